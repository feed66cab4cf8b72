//! From a request to its descriptors, as the `rate_limits` of routes and filters say.
//!
//! An action that cannot make its entry leaves the whole descriptor out, unless it says `skip_if_absent`: then only the
//! entry is missing. Pure: what it looks at comes in as [`Facts`].

use std::{borrow::Cow, net::IpAddr};

use serde_json::Value;

use super::{Descriptor, Descriptors, Entries, Entry};
use crate::{
    ir::{
        Metadata,
        format::Template,
        matcher::Cidr,
        metadata::value_at,
        rate_limit::{Action, Hits, HitsNumber, Limit, LimitOverride, MetadataKey, MetadataSource, Rule},
    },
    policy::router::{self, RequestFacts},
};

/// What descriptors may be made of.
#[derive(Clone, Copy)]
pub struct Facts<'a, 'r> {
    pub request: &'a RequestFacts<'a>,
    /// The address that is trusted to be the client's.
    pub remote: IpAddr,
    /// `--service-cluster`.
    pub service_cluster: &'a str,
    /// Where the request is bound for.
    pub cluster: Option<&'a str>,
    pub route: Option<&'a Metadata>,
    pub cluster_metadata: &'r dyn Fn() -> Option<&'a Metadata>,
    /// What filters noted so far.
    pub dynamic: Option<&'r Metadata>,
    /// Renders a format.
    pub render: &'r dyn Fn(&Template) -> String,
}

/// Envoy's bound on hits.
const MAX_HITS: f64 = 1e9;

impl Rule {
    /// Adds the rule's descriptor, if the request has what it takes.
    pub fn describe<'a>(&'a self, facts: &Facts<'a, '_>, into: &mut Descriptors<'a>) {
        let mut entries = Entries::new();
        for action in &self.actions {
            match action.entry(facts) {
                Made::Entry(entry) => entries.push(entry),
                Made::Skipped => {}
                Made::Nothing => return,
            }
        }
        let Ok(hits) = self.hits.as_ref().map(|hits| hits.number(facts).ok_or(())).transpose() else { return };
        if entries.is_empty() {
            return;
        }
        into.push(Descriptor {
            entries,
            limit: self.limit.as_ref().and_then(|limit| limit.resolve(facts)),
            hits,
            negative: self.hits.as_ref().is_some_and(|h| h.negative),
            headers: self.headers,
        });
    }
}

enum Made<'a> {
    Entry(Entry<'a>),
    /// There is none, which is in order.
    Skipped,
    /// There can be no descriptor.
    Nothing,
}

impl Action {
    fn entry<'a>(&'a self, facts: &Facts<'a, '_>) -> Made<'a> {
        let request = facts.request;
        let some = |key: &'a str, value: Cow<'a, str>| Made::Entry((key.into(), value));
        let found = |key: &'a str, value: Option<Cow<'a, str>>, skip: bool| match value {
            Some(value) => some(key, value),
            None if skip => Made::Skipped,
            None => Made::Nothing,
        };
        match self {
            Self::SourceCluster => some("source_cluster", facts.service_cluster.into()),
            Self::DestinationCluster => found("destination_cluster", facts.cluster.map(Into::into), false),
            Self::RequestHeader { name, key, skip_if_absent } => found(key, header(name, request), *skip_if_absent),
            Self::QueryParameter { name, key, skip_if_absent } => {
                found(key, query(request.path, name), *skip_if_absent)
            }
            Self::RemoteAddress => some("remote_address", facts.remote.to_canonical().to_string().into()),
            Self::MaskedRemoteAddress { v4, v6 } => {
                let remote = facts.remote.to_canonical();
                let length = if remote.is_ipv4() { *v4 } else { *v6 };
                let network = Cidr::new(remote, length).map(|c| format!("{}/{length}", c.address).into());
                found("masked_remote_address", network, false)
            }
            Self::Generic { key, value } => some(key, (&**value).into()),
            Self::HeaderMatch { key, value, expect, headers } => {
                let matches = headers.iter().all(|m| router::header_matches(m, request));
                found(key, (matches == *expect).then(|| (&**value).into()), false)
            }
            Self::QueryMatch { key, value, expect, parameters } => {
                let matches = parameters.iter().all(|m| m.matches(query(request.path, &m.name).as_deref()));
                found(key, (matches == *expect).then(|| (&**value).into()), false)
            }
            Self::AddressMatch { key, value, default, ranges, invert } => {
                let remote = facts.remote.to_canonical();
                if ranges.iter().any(|range| range.contains(remote)) == *invert {
                    return Made::Nothing;
                }
                let text = match value.literal() {
                    Some(literal) => literal.into(),
                    None => Cow::Owned((facts.render)(value)),
                };
                let text = if text.is_empty() { Cow::Borrowed(&**default) } else { text };
                found(key, (!text.is_empty()).then_some(text), false)
            }
            Self::Metadata { key, from, at, default, skip_if_absent } => {
                let configured = |source: Option<&'a Metadata>| Some(at.find(source?)?.as_str()?.into());
                let text: Option<Cow<'a, str>> = match from {
                    MetadataSource::Dynamic => {
                        facts.dynamic.and_then(|noted| Some(at.find(noted)?.as_str()?.to_owned().into()))
                    }
                    MetadataSource::Route => configured(facts.route),
                    MetadataSource::Cluster => configured((facts.cluster_metadata)()),
                };
                let text = text.filter(|t| !t.is_empty());
                let text = text.or_else(|| Some(&**default).filter(|t| !t.is_empty()).map(Into::into));
                found(key, text, *skip_if_absent)
            }
        }
    }
}

impl MetadataKey {
    /// The value in a struct of structs.
    fn find<'m>(&self, metadata: &'m Metadata) -> Option<&'m Value> {
        value_at(metadata, &self.namespace, &self.path)
    }
}

impl LimitOverride {
    fn resolve(&self, facts: &Facts<'_, '_>) -> Option<Limit> {
        match self {
            Self::Fixed(limit) => Some(*limit),
            Self::Metadata(key) => {
                let found = key.find(facts.dynamic?)?.as_object()?;
                let requests = found.get("requests_per_unit")?.as_f64()?;
                let unit = unit(found.get("unit")?.as_str()?)?;
                Some(Limit { requests: requests as u32, unit })
            }
        }
    }
}

/// A unit of `envoy.type.v3.RateLimitUnit` by its name.
fn unit(name: &str) -> Option<i32> {
    const UNITS: [&str; 8] = ["UNKNOWN", "SECOND", "MINUTE", "HOUR", "DAY", "MONTH", "YEAR", "WEEK"];
    UNITS.iter().position(|unit| *unit == name).and_then(|at| i32::try_from(at).ok())
}

impl Hits {
    /// How many there are; `None` when the request does not tell.
    fn number(&self, facts: &Facts<'_, '_>) -> Option<u64> {
        match &self.number {
            HitsNumber::Fixed(number) => Some(*number),
            HitsNumber::Format(template) => {
                let number: f64 = (facts.render)(template).trim().parse().ok()?;
                (0.0..=MAX_HITS).contains(&number).then_some(number as u64)
            }
        }
    }
}

fn header<'a>(name: &str, request: &RequestFacts<'a>) -> Option<Cow<'a, str>> {
    match name {
        ":method" => Some(request.method.as_str().into()),
        ":path" => Some(request.path.into()),
        ":scheme" => Some(request.scheme.into()),
        ":authority" | "host" => Some(request.authority.into()),
        name => request.headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes())),
    }
}

/// The first value of a query parameter, decoded.
fn query<'a>(path: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let (_, query) = path.split('#').next()?.split_once('?')?;
    let decoded = |text: &'a str| percent_encoding::percent_decode_str(text).decode_utf8_lossy();
    query.split('&').filter(|pair| !pair.is_empty()).find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(key) == name).then(|| decoded(value))
    })
}
