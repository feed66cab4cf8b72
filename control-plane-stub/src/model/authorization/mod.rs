//! `AuthorizationPolicy`: who may do what with which workloads.
//!
//! Owns the document, and which policies hold for a workload. Every value has been checked while it was decoded: a key,
//! a pattern or an address that is not understood refuses the document, because leaving it out would change who gets in.

mod rule;
mod values;

use std::collections::BTreeMap;

use serde::Deserialize;

pub use self::{
    rule::{Both, Clause, Condition, From, Key, Lists, Operation, Rule, Source as Caller, To},
    values::{IpBlock, NamespacePattern, PathPattern, Pattern, PortText, ServiceAccount},
};
use super::{
    attachment::{Attached, TargetRef},
    document::{Meta, Object},
    peer_authentication::Selector,
};

/// Where an operator asks to be told what a policy would do.
pub(crate) const DRY_RUN: &str = "istio.io/dry-run";

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationPolicy {
    pub selector: Option<Selector>,
    pub target_ref: Option<TargetRef>,
    #[serde(default)]
    pub target_refs: Vec<TargetRef>,
    #[serde(default)]
    pub action: Action,
    /// None of them matches: an ALLOW without rules allows nobody.
    #[serde(default)]
    pub rules: Vec<Rule>,
    pub provider: Option<ProviderName>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    #[default]
    Allow,
    Deny,
    Audit,
    /// Somebody else decides: the extension provider.
    Custom,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderName {
    pub name: String,
}

impl Attached for AuthorizationPolicy {
    fn selector(&self) -> Option<&BTreeMap<String, String>> {
        self.selector.as_ref().map(|s| &s.match_labels)
    }

    fn target_refs(&self) -> impl Iterator<Item = &TargetRef> {
        self.target_ref.iter().chain(&self.target_refs)
    }
}

impl Object<AuthorizationPolicy> {
    /// Only told what it would do, not enforced.
    pub fn is_dry_run(&self) -> bool {
        dry_run(&self.meta).unwrap_or_default()
    }
}

/// What the annotation says; none if that is neither true nor false.
pub(super) fn dry_run(meta: &Meta) -> Option<bool> {
    match meta.annotations.get(DRY_RUN).map(String::as_str) {
        None | Some("0" | "f" | "F" | "false" | "False" | "FALSE") => Some(false),
        Some("1" | "t" | "T" | "true" | "True" | "TRUE") => Some(true),
        Some(_) => None,
    }
}
