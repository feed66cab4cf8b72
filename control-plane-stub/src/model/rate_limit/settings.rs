//! What clients see of a refusal, and how the rate limit service is asked.

use std::{str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de::Error};

use crate::model::scalars::{HumanDuration, positive};

/// How refused clients are answered.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitResponse {
    #[serde(default = "too_many_requests", deserialize_with = "status")]
    pub status: u16,
    /// `x-ratelimit-limit`, `-remaining` and `-reset` in every response.
    #[serde(default)]
    pub headers: bool,
    /// `retry-after` in refusals with status 429.
    #[serde(default = "yes")]
    pub retry_after: bool,
}

impl Default for LimitResponse {
    fn default() -> Self {
        Self { status: too_many_requests(), headers: false, retry_after: true }
    }
}

fn yes() -> bool {
    true
}

fn too_many_requests() -> u16 {
    429
}

fn status<'de, D: Deserializer<'de>>(de: D) -> Result<u16, D::Error> {
    let status = u16::deserialize(de)?;
    // Envoy's own list, which has no other.
    let known = [
        400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 423, 424,
        426, 428, 429, 431, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
    ];
    if known.contains(&status) {
        return Ok(status);
    }
    Err(D::Error::custom(format!("{status} is not a status of a refusal: 429, 503 or another from 400 to 511")))
}

/// What to do with requests that the service gives no answer for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Failure {
    /// Each instance enforces its part of the limit on its own.
    #[default]
    LocalShare,
    Allow,
    Deny,
}

/// A rate limit service of somebody else's, which is a Service of the mesh.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalService {
    pub host: String,
    #[serde(deserialize_with = "crate::model::scalars::port")]
    pub port: u16,
    pub domain: String,
}

/// How the service is asked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GlobalLimit {
    #[serde(default)]
    pub failure_mode: Failure,
    #[serde(default, deserialize_with = "positive")]
    timeout: Option<HumanDuration>,
    /// Instead of the control plane.
    pub service: Option<ExternalService>,
}

impl GlobalLimit {
    /// How long a request waits for the answer.
    pub fn timeout(&self) -> Duration {
        self.timeout.map_or(Duration::from_millis(100), |timeout| timeout.0)
    }
}

/// Where a rate limit service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitEndpoint {
    /// A name or an address.
    pub host: String,
    pub port: u16,
}

impl FromStr for LimitEndpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not HOST:PORT, such as 10.0.0.2:15012 or [fd00::2]:15012");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = match bracketed {
            Some(ip) => ip.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?.to_string(),
            None if crate::model::names::is_host(host) && !host.starts_with('*') => host.to_owned(),
            None => return Err(wrong()),
        };
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        Ok(Self { host, port })
    }
}
