//! `RateLimit` (`outrigger.dev/v1alpha1`): how much of which traffic the selected workloads take.

mod key;
mod settings;

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer, de::Error};

pub use self::{
    key::LimitKey,
    settings::{ExternalService, Failure, GlobalLimit, LimitEndpoint, LimitResponse},
};
use super::{
    peer_authentication::{Selector, subset},
    scalars::header_name,
    virtual_service::StringMatch,
};
use crate::ratelimit::rate::{Algorithm, Rate, Unit};

/// Values of its keys that a local limit tells apart, where the operator does not say.
const DEFAULT_MAX_KEYS: u32 = 10_000;
const MAX_KEYS: u32 = 1_000_000;
/// Headers in a key: each doubles the descriptors of a local limit.
const MAX_HEADER_KEYS: usize = 3;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Raw {
    selector: Option<Selector>,
    #[serde(default, rename = "match")]
    matching: LimitMatch,
    #[serde(default)]
    key: Vec<LimitKey>,
    rate: RawRate,
    burst: Option<u32>,
    algorithm: Option<RawAlgorithm>,
    scope: Scope,
    #[serde(default)]
    mode: LimitMode,
    #[serde(default)]
    response: LimitResponse,
    global: Option<GlobalLimit>,
    max_keys: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRate {
    requests: u32,
    per: Per,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Per {
    Second,
    Minute,
    Hour,
    Day,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum RawAlgorithm {
    FixedWindow,
    Gcra,
}

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Those to one workload instance.
    Local,
    /// Those to all instances.
    Global,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LimitMode {
    #[default]
    Enforce,
    /// Counted as if it were enforced.
    DryRun,
}

/// Which traffic: everything that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitMatch {
    /// Where the application listens.
    #[serde(default, deserialize_with = "super::scalars::some_port")]
    pub port: Option<u16>,
    #[serde(default, deserialize_with = "methods")]
    pub methods: Vec<String>,
    /// Without the query.
    #[serde(default, deserialize_with = "path")]
    pub path: Option<StringMatch>,
    #[serde(default, deserialize_with = "headers")]
    pub headers: BTreeMap<String, StringMatch>,
}

impl LimitMatch {
    /// Whether it looks at more than the connection.
    pub fn is_http(&self) -> bool {
        !self.methods.is_empty() || self.path.is_some() || !self.headers.is_empty()
    }
}

fn methods<'de, D: Deserializer<'de>>(de: D) -> Result<Vec<String>, D::Error> {
    let methods = Vec::<String>::deserialize(de)?;
    for method in &methods {
        let known = !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        if !known {
            return Err(D::Error::custom(format!("`{method}` is not a method, such as GET: they are in upper case")));
        }
    }
    Ok(methods)
}

fn path<'de, D: Deserializer<'de>>(de: D) -> Result<Option<StringMatch>, D::Error> {
    match StringMatch::deserialize(de)? {
        StringMatch::Present => Err(D::Error::custom("give exactly one of exact, prefix, regex")),
        StringMatch::Exact(text) | StringMatch::Prefix(text) if !text.starts_with('/') || text.contains('?') => {
            Err(D::Error::custom(format!("`{text}` is not a path: it begins with / and has no query")))
        }
        condition => Ok(Some(condition)),
    }
}

fn headers<'de, D: Deserializer<'de>>(de: D) -> Result<BTreeMap<String, StringMatch>, D::Error> {
    let given = BTreeMap::<String, StringMatch>::deserialize(de)?;
    let mut headers = BTreeMap::new();
    for (name, condition) in given {
        header_name(&name).map_err(D::Error::custom)?;
        if headers.insert(name.to_ascii_lowercase(), condition).is_some() {
            return Err(D::Error::custom(format!("`{name}` is there twice")));
        }
    }
    Ok(headers)
}

/// A rate limit.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    pub selector: Option<Selector>,
    pub matching: LimitMatch,
    /// What requests are told apart by, in order.
    pub key: Vec<LimitKey>,
    pub rate: Rate,
    pub scope: Scope,
    pub mode: LimitMode,
    pub response: LimitResponse,
    /// For [`Scope::Global`].
    pub global: GlobalLimit,
    /// For [`Scope::Local`].
    pub max_keys: u32,
}

impl<'de> Deserialize<'de> for RateLimit {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let raw = Raw::deserialize(de)?;
        Self::new(raw).map_err(D::Error::custom)
    }
}

impl RateLimit {
    fn new(raw: Raw) -> Result<Self, String> {
        let local = raw.scope == Scope::Local;
        if local && (raw.global.is_some() || raw.algorithm.is_some()) {
            return Err("`global` and `algorithm` are for scope: global; a local limit is a token bucket".to_owned());
        }
        if !local && raw.max_keys.is_some() {
            return Err("`maxKeys` is for scope: local; the rate limit service has a bound of its own".to_owned());
        }
        if raw.rate.requests == 0 {
            return Err("`rate.requests` must be at least 1".to_owned());
        }
        let algorithm = match raw.algorithm {
            Some(RawAlgorithm::FixedWindow) => Algorithm::FixedWindow,
            Some(RawAlgorithm::Gcra) | None => Algorithm::Gcra,
        };
        match raw.burst {
            Some(0) => return Err("`burst` must be at least 1".to_owned()),
            Some(_) if algorithm == Algorithm::FixedWindow => return Err("a fixed window has no `burst`".to_owned()),
            _ => {}
        }
        let max_keys = raw.max_keys.unwrap_or(DEFAULT_MAX_KEYS);
        if !(1..=MAX_KEYS).contains(&max_keys) {
            return Err(format!("`maxKeys` must be 1 to {MAX_KEYS}"));
        }
        key::check(&raw.key, MAX_HEADER_KEYS)?;
        let unit = match raw.rate.per {
            Per::Second => Unit::Second,
            Per::Minute => Unit::Minute,
            Per::Hour => Unit::Hour,
            Per::Day => Unit::Day,
        };
        let (requests, burst) = (raw.rate.requests, raw.burst.unwrap_or(raw.rate.requests));
        Ok(Self {
            selector: raw.selector,
            matching: raw.matching,
            key: raw.key,
            rate: Rate { requests, unit, burst, algorithm },
            scope: raw.scope,
            mode: raw.mode,
            response: raw.response,
            global: raw.global.unwrap_or_default(),
            max_keys,
        })
    }

    /// Whether it is for a workload with `labels`, namespaces aside.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector.as_ref().is_none_or(|selector| subset(&selector.match_labels, labels))
    }

    /// Whether connections can be held against it, not only requests.
    pub fn counts_connections(&self) -> bool {
        let keys = match self.scope {
            Scope::Local => self.key.is_empty(),
            Scope::Global => self.key.iter().all(|key| *key == LimitKey::RemoteAddress { forwarded: false }),
        };
        !self.matching.is_http() && keys
    }

    /// How long a refused client should wait, at most.
    pub fn period(&self) -> Duration {
        Duration::from_secs(self.rate.unit.seconds())
    }
}
