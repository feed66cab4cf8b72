//! When a failed request is tried again.

use serde::{Deserialize, Deserializer, de::Error};

use crate::model::scalars::{HumanDuration, positive};

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retries {
    /// None switch retries off, as in Istio; who says nothing of retries at all gets the mesh's default.
    #[serde(default)]
    pub attempts: u16,
    #[serde(default, deserialize_with = "positive")]
    pub per_try_timeout: Option<HumanDuration>,
    #[serde(default)]
    pub retry_on: RetryOn,
    #[serde(default, deserialize_with = "positive")]
    pub backoff: Option<HumanDuration>,
    pub retry_ignore_previous_hosts: Option<bool>,
    #[serde(default)]
    pub retry_remote_localities: bool,
}

impl Retries {
    /// Whether it says how to retry, but not to retry.
    pub(crate) fn is_idle(&self) -> bool {
        let says_how = self.per_try_timeout.is_some()
            || self.backoff.is_some()
            || self.retry_on != RetryOn::default()
            || self.retry_remote_localities;
        self.attempts == 0 && says_how
    }
}

/// Conditions by name, and status codes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RetryOn {
    pub conditions: Vec<String>,
    pub codes: Vec<u32>,
}

const CONDITIONS: &[&str] = &[
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

impl<'de> Deserialize<'de> for RetryOn {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let text = String::deserialize(de)?;
        let mut policy = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.parse::<u32>() {
                Ok(code @ 200..=599) => policy.codes.push(code),
                _ if CONDITIONS.contains(&part) => policy.conditions.push(part.to_owned()),
                _ => {
                    let known = CONDITIONS.join(", ");
                    return Err(D::Error::custom(format!("`{part}` is neither a status code nor one of {known}")));
                }
            }
        }
        Ok(policy)
    }
}
