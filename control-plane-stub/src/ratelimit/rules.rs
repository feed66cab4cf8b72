//! Which limit a descriptor falls under.
//!
//! Two sources: RateLimit objects, all in [`DOMAIN`], each by its name in the first entry; and the domains of rules files,
//! trees of entries as lyft/ratelimit has them, where the exact value goes before the longest `prefix*` before any value,
//! and a limit holds for descriptors that end at its node. Pure: knows nothing of counters or callers' credentials.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use aws_lc_rs::digest;
use outrigger_wire::pb::envoy::{
    extensions::common::ratelimit::v3::{RateLimitDescriptor, rate_limit_descriptor::Entry},
    r#type::v3::RateLimitUnit,
};

use super::rate::{Algorithm, Rate, Unit};

/// The domain of RateLimit objects.
pub const DOMAIN: &str = "outrigger";
/// Key of the first entry of their descriptors; its value is `namespace/name`.
pub const OBJECT: &str = "ratelimit";

/// Longer keys are kept as a digest.
const MAX_KEY: usize = 256;
const MAX_ENTRIES: usize = 32;

/// The limit of a RateLimit object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRule {
    /// Whose workloads may ask; `None`: everybody's.
    pub namespace: Option<String>,
    /// Of these, those of some service accounts only; `None`: all.
    pub accounts: Option<Accounts>,
    pub rate: Rate,
    pub enforced: bool,
    /// Keys of the entries behind the first, in this order; each may be absent.
    pub keys: Vec<String>,
}

/// A workload's namespace and service account: what a caller can prove of itself.
pub type Account = (String, String);

/// Whom a selector means, as far as the documents know workloads. Who runs under an account that no document names has
/// told its labels itself and is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounts {
    pub selected: HashSet<Account>,
    pub known: Arc<HashSet<Account>>,
}

impl Accounts {
    fn include(&self, (namespace, account): (&str, &str)) -> bool {
        let account = (namespace.to_owned(), account.to_owned());
        self.selected.contains(&account) || !self.known.contains(&account)
    }
}

/// A node of a rules file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Branch {
    pub name: Arc<str>,
    /// No limit: what ends here is not limited.
    pub rate: Option<Rate>,
    /// Only counted.
    pub shadow: bool,
    pub exact: HashMap<(String, String), Branch>,
    /// Values that begin so, the longest first.
    pub prefixes: Vec<(String, String, Branch)>,
    pub any: HashMap<String, Branch>,
}

/// The limits of RateLimit objects, by `namespace/name`.
pub type Objects = HashMap<String, ObjectRule>;
/// The limits of rules files, by domain.
pub type Domains = HashMap<String, Branch>;

/// All limits.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    pub objects: &'a Objects,
    pub domains: &'a Domains,
}

/// The limit of one descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Whose counter: a text of the operator's, never of a caller's.
    pub rule: Arc<str>,
    pub key: String,
    pub rate: Rate,
    pub enforced: bool,
}

/// Why a descriptor is not answered at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("a descriptor needs 1 to {MAX_ENTRIES} entries with keys")]
    Malformed,
    #[error("the limit of the descriptor is for other workloads")]
    Foreign,
    #[error("hits of domain `{DOMAIN}` cannot be given back")]
    Return,
    #[error("a descriptor of domain `{DOMAIN}` cannot bring its own limit")]
    Override,
    #[error("the unit of the descriptor's own limit is not known")]
    Unit,
}

impl Rules<'_> {
    /// The limit of `descriptor`; none if no rule is for it. `caller` is its namespace and service account, if it
    /// has an identity.
    pub fn find(
        &self,
        domain: &str,
        descriptor: &RateLimitDescriptor,
        caller: Option<(&str, &str)>,
    ) -> Result<Option<Found>, Refusal> {
        let entries = &descriptor.entries;
        if entries.is_empty() || entries.len() > MAX_ENTRIES || entries.iter().any(|entry| entry.key.is_empty()) {
            return Err(Refusal::Malformed);
        }
        if domain == DOMAIN {
            if descriptor.limit.is_some() {
                return Err(Refusal::Override);
            }
            if descriptor.is_negative_hits {
                return Err(Refusal::Return);
            }
            return self.of_object(entries, caller);
        }
        // Not even with a limit of its own: everybody could fill the counters with domains they make up.
        let Some(root) = self.domains.get(domain) else { return Ok(None) };
        let branch = root.find(entries);
        let own = descriptor.limit.as_ref().map(|limit| unit(limit.unit).map(|unit| (limit.requests_per_unit, unit)));
        let found = match (own.transpose()?, branch) {
            (Some((requests, unit)), branch) => {
                let algorithm =
                    branch.and_then(|b| b.rate).map_or(Algorithm::FixedWindow, |configured| configured.algorithm);
                let rate = Rate { requests, unit, burst: requests, algorithm };
                let rule = branch.map_or_else(|| "override".into(), |branch| Arc::clone(&branch.name));
                Some((rule, rate, branch.is_none_or(|branch| !branch.shadow)))
            }
            (None, Some(branch)) => branch.rate.map(|rate| (Arc::clone(&branch.name), rate, !branch.shadow)),
            (None, None) => None,
        };
        Ok(found.map(|(rule, rate, enforced)| Found { rule, key: key(domain, entries, &rate), rate, enforced }))
    }

    fn of_object(&self, entries: &[Entry], caller: Option<(&str, &str)>) -> Result<Option<Found>, Refusal> {
        let Some((first, rest)) = entries.split_first().filter(|(first, _)| first.key == OBJECT) else {
            return Ok(None);
        };
        let Some(rule) = self.objects.get(&first.value) else { return Ok(None) };
        if let Some(caller) = caller {
            let here = rule.namespace.as_ref().is_none_or(|owner| owner == caller.0);
            if !here || !rule.accounts.as_ref().is_none_or(|accounts| accounts.include(caller)) {
                return Err(Refusal::Foreign);
            }
        }
        let mut known = rule.keys.iter();
        if !rest.iter().all(|entry| known.any(|key| *key == entry.key)) {
            return Ok(None);
        }
        let key = key(DOMAIN, entries, &rule.rate);
        Ok(Some(Found { rule: first.value.as_str().into(), key, rate: rule.rate, enforced: rule.enforced }))
    }
}

impl Branch {
    fn find(&self, entries: &[Entry]) -> Option<&Branch> {
        entries.iter().try_fold(self, |branch, entry| branch.child(&entry.key, &entry.value))
    }

    fn child(&self, key: &str, value: &str) -> Option<&Branch> {
        if !self.exact.is_empty()
            && let Some(exact) = self.exact.get(&(key.to_owned(), value.to_owned()))
        {
            return Some(exact);
        }
        let by_prefix = self.prefixes.iter().find(|(k, prefix, _)| k == key && value.starts_with(prefix.as_str()));
        by_prefix.map(|(_, _, branch)| branch).or_else(|| self.any.get(key))
    }
}

fn unit(number: i32) -> Result<Unit, Refusal> {
    match RateLimitUnit::try_from(number) {
        Ok(RateLimitUnit::Second) => Ok(Unit::Second),
        Ok(RateLimitUnit::Minute) => Ok(Unit::Minute),
        Ok(RateLimitUnit::Hour) => Ok(Unit::Hour),
        Ok(RateLimitUnit::Day) => Ok(Unit::Day),
        Ok(RateLimitUnit::Month) => Ok(Unit::Month),
        Ok(RateLimitUnit::Year) => Ok(Unit::Year),
        Ok(RateLimitUnit::Unknown) | Err(_) => Err(Refusal::Unit),
    }
}

/// What is counted together. Every part tells its length, so no two descriptors share a key by a separator in a value;
/// the rate is part of it, because a counter means nothing under another one.
fn key(domain: &str, entries: &[Entry], rate: &Rate) -> String {
    use std::fmt::Write;
    let algorithm = match rate.algorithm {
        Algorithm::FixedWindow => 'w',
        Algorithm::Gcra => 'g',
    };
    let mut key = format!("{}/{}/{}/{algorithm}", rate.requests, rate.unit.as_str(), rate.burst);
    let parts = entries.iter().flat_map(|entry| [entry.key.as_str(), entry.value.as_str()]);
    for part in std::iter::once(domain).chain(parts) {
        write!(key, "|{}:{part}", part.len()).expect("writing to a String cannot fail");
    }
    if key.len() <= MAX_KEY {
        return key;
    }
    let mut short = String::from("#");
    for byte in digest::digest(&digest::SHA256, key.as_bytes()).as_ref() {
        write!(short, "{byte:02x}").expect("writing to a String cannot fail");
    }
    short
}
