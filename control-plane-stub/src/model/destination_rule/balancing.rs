//! Which endpoint takes a request.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error};

use crate::model::scalars::{HumanDuration, positive, some_percent};

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancer {
    pub simple: Option<Balance>,
    pub consistent_hash: Option<ConsistentHash>,
    pub locality_lb_setting: Option<LocalitySetting>,
    /// Istio's older spelling of `warmup.duration`.
    #[serde(default, deserialize_with = "positive")]
    pub warmup_duration_secs: Option<HumanDuration>,
    pub warmup: Option<Warmup>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Balance {
    #[serde(alias = "UNSPECIFIED", alias = "LEAST_CONN")]
    LeastRequest,
    RoundRobin,
    Random,
    Passthrough,
}

/// Requests with the same key go to the same endpoint while it is there.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConsistentHash {
    pub http_header_name: Option<String>,
    pub http_cookie: Option<HashCookie>,
    #[serde(default)]
    pub use_source_ip: bool,
    pub http_query_parameter_name: Option<String>,
    pub ring_hash: Option<RingHash>,
    pub maglev: Option<Maglev>,
    /// Istio's older spelling of `ring_hash.minimum_ring_size`.
    #[serde(default, deserialize_with = "long")]
    pub minimum_ring_size: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HashCookie {
    pub name: String,
    #[serde(default)]
    pub path: String,
    /// Present: a cookie is made where there is none; zero: for the session.
    pub ttl: Option<HumanDuration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RingHash {
    #[serde(default, deserialize_with = "long")]
    pub minimum_ring_size: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Maglev {
    #[serde(default, deserialize_with = "long")]
    pub table_size: Option<u64>,
}

/// 64 bits, which JSON may write as text. Zero means the same as nothing.
fn long<'de, D: Deserializer<'de>>(de: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Raw {
        Number(u64),
        Text(String),
    }
    let number = match Raw::deserialize(de)? {
        Raw::Number(number) => number,
        Raw::Text(text) => text.parse().map_err(|_| D::Error::custom(format!("`{text}` is not a number")))?,
    };
    Ok(Some(number).filter(|number| *number > 0))
}

/// A fresh endpoint gets its share step by step.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Warmup {
    #[serde(default, deserialize_with = "positive")]
    pub duration: Option<HumanDuration>,
    #[serde(default, deserialize_with = "some_percent")]
    pub minimum_percent: Option<f64>,
    pub aggression: Option<f64>,
}

/// How near and far endpoints share the traffic.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalitySetting {
    pub enabled: Option<bool>,
    #[serde(default)]
    pub distribute: Vec<Distribute>,
    #[serde(default)]
    pub failover: Vec<Failover>,
    #[serde(default)]
    pub failover_priority: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distribute {
    pub from: String,
    /// Percents by locality pattern.
    #[serde(default)]
    pub to: BTreeMap<String, u32>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failover {
    pub from: String,
    pub to: String,
}

impl LocalitySetting {
    /// Whether `locality` is one that `pattern` (`region/zone/*`) means.
    pub(crate) fn covers(pattern: &str, locality: &crate::model::Locality) -> bool {
        let mut wanted = pattern.splitn(3, '/');
        let mut part = |have: &str, optional: bool| match wanted.next() {
            Some("*") => true,
            None | Some("") => optional || have.is_empty(),
            Some(text) => text == have,
        };
        part(&locality.region, false) && part(&locality.zone, true) && part(&locality.sub_zone, true)
    }
}
