//! Match trees (`xds.type.matcher.v3.Matcher`) whose leaves are RBAC actions.

use http::HeaderName;
use std::collections::BTreeMap;

use super::Action;
use crate::ir::{
    Name,
    matcher::{Cidr, StringMatcher},
    metadata::ValueMatcher,
};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    pub root: Matcher,
    /// Some leaf logs: every decision then says whether to log.
    pub logs: bool,
    /// Some input is metadata.
    pub reads_metadata: bool,
    /// Some input is a header.
    pub reads_headers: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matcher {
    pub kind: Option<Kind>,
    pub otherwise: Option<OnMatch>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first that matches.
    List(Box<[(Predicate, OnMatch)]>),
    Exact(Input, BTreeMap<Box<str>, OnMatch>),
    /// The longest prefix below which something matches.
    Prefix(Input, BTreeMap<Box<str>, OnMatch>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnMatch {
    Matcher(Box<Matcher>),
    Leaf { name: Name, action: Action },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Predicate {
    Single(Input, Test),
    Or(Box<[Predicate]>),
    And(Box<[Predicate]>),
    Not(Box<Predicate>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    Header(HeaderName),
    /// `:method`, `:path`, `:authority` or `:scheme`.
    Pseudo(Box<str>),
    DestinationIp,
    DestinationPort,
    /// The client as far as forwarding headers are trusted.
    SourceIp,
    SourcePort,
    DirectSourceIp,
    ServerName,
    UriSan,
    DnsSan,
    Subject,
    Metadata {
        namespace: Box<str>,
        path: Box<[Box<str>]>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    Text(StringMatcher),
    Ip(Box<[Cidr]>),
    Metadata { value: ValueMatcher, invert: bool },
}
