//! What happens to a request that an HTTP route takes.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error};

use super::{CorsPolicy, Delegate, Destination, Fault, HttpMatch, Mirror, Retries};
use crate::model::scalars::{HeaderValues, HumanDuration, Percentage, RegexText, some_port, whole_percent};

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRoute {
    pub name: Option<String>,
    #[serde(default, rename = "match")]
    pub matches: Vec<HttpMatch>,
    #[serde(default)]
    pub route: Vec<HttpDestination>,
    pub redirect: Option<Redirect>,
    pub direct_response: Option<DirectResponse>,
    pub rewrite: Option<Rewrite>,
    pub timeout: Option<HumanDuration>,
    pub retries: Option<Retries>,
    #[serde(default)]
    pub headers: Headers,
    pub fault: Option<Fault>,
    pub mirror: Option<Destination>,
    #[serde(default)]
    pub mirrors: Vec<Mirror>,
    /// Istio's older spelling of `mirror_percentage`, in whole percents.
    #[serde(default, alias = "mirror_percent", deserialize_with = "whole_percent")]
    pub mirror_percent: Option<u32>,
    pub mirror_percentage: Option<Percentage>,
    pub cors_policy: Option<CorsPolicy>,
    pub delegate: Option<Delegate>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpDestination {
    pub destination: Destination,
    pub weight: Option<u32>,
    #[serde(default)]
    pub headers: Headers,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Headers {
    #[serde(default)]
    pub request: HeaderOperations,
    #[serde(default)]
    pub response: HeaderOperations,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderOperations {
    #[serde(default)]
    pub set: HeaderValues,
    #[serde(default)]
    pub add: HeaderValues,
    #[serde(default)]
    pub remove: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rewrite {
    #[serde(default)]
    pub uri: Option<String>,
    #[serde(default)]
    pub authority: Option<String>,
    #[serde(default)]
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegexRewrite {
    #[serde(rename = "match")]
    pub pattern: RegexText,
    pub rewrite: String,
}

impl RegexRewrite {
    /// `\1` and the like must name groups of the pattern; Envoy refuses others.
    pub(crate) fn is_valid(&self) -> bool {
        let groups = regex::Regex::new(&self.pattern.0).map_or(0, |regex| regex.captures_len() - 1);
        let mut rest = self.rewrite.chars();
        while let Some(c) = rest.next() {
            let valid = c != '\\'
                || match rest.next() {
                    Some('\\') => true,
                    Some(digit) => digit.to_digit(10).is_some_and(|group| group as usize <= groups),
                    None => false,
                };
            if !valid {
                return false;
            }
        }
        true
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Redirect {
    pub uri: Option<String>,
    pub authority: Option<String>,
    #[serde(default, deserialize_with = "some_port")]
    pub port: Option<u16>,
    pub derive_port: Option<DerivePort>,
    pub scheme: Option<String>,
    pub redirect_code: Option<RedirectCode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DerivePort {
    FromProtocolDefault,
    FromRequestPort,
}

/// The statuses Envoy can redirect with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RedirectCode(pub u16);

impl<'de> Deserialize<'de> for RedirectCode {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        match u16::deserialize(de)? {
            code @ (301 | 302 | 303 | 307 | 308) => Ok(Self(code)),
            code => Err(D::Error::custom(format!("{code} is not one of 301, 302, 303, 307, 308"))),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectResponse {
    #[serde(deserialize_with = "status")]
    pub status: u32,
    pub body: Option<Body>,
}

fn status<'de, D: Deserializer<'de>>(de: D) -> Result<u32, D::Error> {
    match u32::deserialize(de)? {
        code @ 200..=599 => Ok(code),
        code => Err(D::Error::custom(format!("{code} is not a status from 200 to 599"))),
    }
}

/// Largest body of a direct response, in bytes: also what Envoy is told to accept.
pub const MAX_BODY: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    Text(String),
    Bytes(Vec<u8>),
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            string: Option<String>,
            bytes: Option<String>,
        }
        let body = match Raw::deserialize(de)? {
            Raw { string: Some(text), bytes: None } => Self::Text(text),
            Raw { string: None, bytes: Some(text) } => {
                use base64::Engine;
                let decoded = base64::engine::general_purpose::STANDARD.decode(text);
                Self::Bytes(decoded.map_err(|e| D::Error::custom(format!("bytes is not base64: {e}")))?)
            }
            _ => return Err(D::Error::custom("give exactly one of string, bytes")),
        };
        let length = match &body {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        };
        if length > MAX_BODY {
            return Err(D::Error::custom(format!("is larger than {MAX_BODY} bytes")));
        }
        Ok(body)
    }
}

impl Headers {
    /// Values that set the host instead of a header.
    pub fn host(&self) -> Option<&str> {
        let host = |name: &str| name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority");
        self.request.set.0.iter().find(|(name, _)| host(name)).map(|(_, value)| value.as_str())
    }

    /// All operations with their names, for checks.
    pub(crate) fn operations(&self) -> BTreeMap<&'static str, &HeaderOperations> {
        BTreeMap::from([("request", &self.request), ("response", &self.response)])
    }
}
