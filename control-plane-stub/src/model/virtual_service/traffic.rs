//! What else happens to requests of a route: faults, mirrors, CORS, delegation.

use serde::{Deserialize, Deserializer, de::Error};

use super::{Destination, StringMatch};
use crate::model::scalars::{HumanDuration, Percentage, Unsupported, positive, whole_percent};

/// Failures made on purpose.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    pub delay: Option<Delay>,
    pub abort: Option<Abort>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Delay {
    #[serde(default, deserialize_with = "positive")]
    pub fixed_delay: Option<HumanDuration>,
    pub percentage: Option<Percentage>,
    /// Istio's older spelling of `percentage`, in whole percents.
    #[serde(default, deserialize_with = "whole_percent")]
    pub percent: Option<u32>,
    _exponential_delay: Option<Unsupported>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Abort {
    #[serde(default, deserialize_with = "status")]
    pub http_status: Option<u32>,
    #[serde(default, deserialize_with = "grpc_status")]
    pub grpc_status: Option<u32>,
    pub percentage: Option<Percentage>,
    _http2_error: Option<Unsupported>,
}

impl Delay {
    /// Of a million; nobody is delayed where nothing is said.
    pub fn millionths(&self) -> u32 {
        millionths(self.percentage, self.percent).unwrap_or(0)
    }
}

impl Abort {
    /// Of a million; nothing is aborted where nothing is said.
    pub fn millionths(&self) -> u32 {
        millionths(self.percentage, None).unwrap_or(0)
    }
}

fn millionths(fine: Option<Percentage>, whole: Option<u32>) -> Option<u32> {
    fine.map(Percentage::millionths).or(whole.map(|percent| percent * 10_000))
}

fn status<'de, D: Deserializer<'de>>(de: D) -> Result<Option<u32>, D::Error> {
    match u32::deserialize(de)? {
        code @ 200..=599 => Ok(Some(code)),
        code => Err(D::Error::custom(format!("{code} is not a status from 200 to 599"))),
    }
}

/// The names of gRPC's statuses; the place of each is its number.
const GRPC: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn grpc_status<'de, D: Deserializer<'de>>(de: D) -> Result<Option<u32>, D::Error> {
    let name = String::deserialize(de)?;
    match GRPC.iter().position(|known| *known == name) {
        Some(number) => Ok(Some(number as u32)),
        None => Err(D::Error::custom(format!("`{name}` is not one of {}", GRPC.join(", ")))),
    }
}

/// A copy of the requests goes there; nobody waits for its answers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    pub destination: Destination,
    pub percentage: Option<Percentage>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CorsPolicy {
    /// Istio's older spelling of `allow_origins`, exact names only.
    #[serde(default)]
    pub allow_origin: Vec<String>,
    #[serde(default)]
    pub allow_origins: Vec<StringMatch>,
    #[serde(default)]
    pub allow_methods: Vec<String>,
    #[serde(default)]
    pub allow_headers: Vec<String>,
    #[serde(default)]
    pub expose_headers: Vec<String>,
    pub max_age: Option<HumanDuration>,
    pub allow_credentials: Option<bool>,
    #[serde(default)]
    pub unmatched_preflights: Preflights,
}

/// What becomes of a preflight request from an origin that is not allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Preflights {
    #[default]
    #[serde(alias = "UNSPECIFIED")]
    Forward,
    Ignore,
}

/// The VirtualService that says more about the requests of a route.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delegate {
    pub name: String,
    pub namespace: Option<String>,
}
