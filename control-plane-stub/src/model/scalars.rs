//! Scalars that check themselves while they are decoded, so that an error carries its path.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer, de::Error};

use super::re2::differs;

/// A field of the published API that this release does not implement: its presence is an error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Unsupported {}

impl<'de> Deserialize<'de> for Unsupported {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom(
            "is not supported yet by this release: remove it, ignoring it would change what you asked for",
        ))
    }
}

/// A duration as Istio writes it: `5s`, `1h30m`, `1.5s`, `100ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let text = String::deserialize(de)?;
        parse_duration(&text)
            .map(Self)
            .ok_or_else(|| D::Error::custom(format!("`{text}` is not a duration such as 5s, 100ms or 1h30m")))
    }
}

/// At most a year, so that no sum downstream can overflow.
fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut nanos) = (text, 0f64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_len = rest[digits..].find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len() - digits);
        let unit = match &rest[digits..digits + unit_len] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanos += number * unit;
        rest = &rest[digits + unit_len..];
    }
    let valid = !text.is_empty() && nanos.is_finite() && nanos <= 366.0 * 86_400e9;
    valid.then(|| Duration::from_nanos(nanos.round() as u64))
}

/// A duration of at least one millisecond, where zero would disable or break what it bounds.
pub(super) fn positive<'de, D: Deserializer<'de>>(de: D) -> Result<Option<HumanDuration>, D::Error> {
    let duration = HumanDuration::deserialize(de)?;
    if duration.0 < Duration::from_millis(1) {
        return Err(D::Error::custom("must be at least 1ms"));
    }
    Ok(Some(duration))
}

/// `{value: 0.1}`: a share in percent, as fine as a millionth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percentage(pub f64);

impl Percentage {
    /// Of a million.
    pub fn millionths(self) -> u32 {
        (self.0 * 10_000.0).round() as u32
    }
}

impl<'de> Deserialize<'de> for Percentage {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            #[serde(default)]
            value: f64,
        }
        percent(Raw::deserialize(de)?.value).map(Self)
    }
}

fn percent<E: Error>(value: f64) -> Result<f64, E> {
    if (0.0..=100.0).contains(&value) {
        return Ok(value);
    }
    Err(E::custom(format!("{value} is not a percentage (0 to 100)")))
}

/// A bare number in percent.
pub(super) fn some_percent<'de, D: Deserializer<'de>>(de: D) -> Result<Option<f64>, D::Error> {
    percent(f64::deserialize(de)?).map(Some)
}

/// As [`some_percent`], without a fraction.
pub(super) fn whole_percent<'de, D: Deserializer<'de>>(de: D) -> Result<Option<u32>, D::Error> {
    percent(f64::from(u32::deserialize(de)?)).map(|value| Some(value as u32))
}

/// A regular expression that compiles, in RE2's syntax (no look-around, no back-references).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegexText(pub String);

impl<'de> Deserialize<'de> for RegexText {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let text = String::deserialize(de)?;
        match regex::RegexBuilder::new(&text).size_limit(1 << 20).build() {
            Ok(_) => match differs(&text) {
                None => Ok(Self(text)),
                Some(reason) => Err(D::Error::custom(reason)),
            },
            Err(e) => Err(D::Error::custom(format!("not a regular expression in RE2's syntax: {e}"))),
        }
    }
}

/// A TCP port, 1 to 65535.
pub(super) fn port<'de, D: Deserializer<'de>>(de: D) -> Result<u16, D::Error> {
    let number = i64::deserialize(de)?;
    u16::try_from(number)
        .ok()
        .filter(|n| *n != 0)
        .ok_or_else(|| D::Error::custom(format!("{number} is not a port (1 to 65535)")))
}

/// As [`port`], for an optional field.
pub(super) fn some_port<'de, D: Deserializer<'de>>(de: D) -> Result<Option<u16>, D::Error> {
    port(de).map(Some)
}

/// A map of header names to values that Envoy accepts as they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderValues(pub BTreeMap<String, String>);

impl<'de> Deserialize<'de> for HeaderValues {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<String, String>::deserialize(de)?;
        for (name, value) in &map {
            header_name(name).map_err(D::Error::custom)?;
            header_value(value).map_err(|e| D::Error::custom(format!("{name}: {e}")))?;
        }
        Ok(Self(map))
    }
}

/// Whether `name` is a header's name (`:authority` included: that is the host).
pub(super) fn header_name(name: &str) -> Result<(), String> {
    let bare = if name.eq_ignore_ascii_case(":authority") { &name[1..] } else { name };
    http::HeaderName::from_bytes(bare.as_bytes()).map(|_| ()).map_err(|_| format!("`{name}` is not a header name"))
}

/// Operators that both Envoy and Outrigger expand in header values.
const OPERATORS: &[&str] = &[
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_TLS_CIPHER",
    "UPSTREAM_REMOTE_ADDRESS",
    "UPSTREAM_HOST",
    "UPSTREAM_CLUSTER",
    "PROTOCOL",
    "REQ",
    "RESP",
    "START_TIME",
    "RESPONSE_FLAGS",
    "RESPONSE_CODE",
    "RESPONSE_CODE_DETAILS",
    "REQUESTED_SERVER_NAME",
    "ROUTE_NAME",
    "HOSTNAME",
    "VIRTUAL_CLUSTER_NAME",
    "STREAM_ID",
    "REQUEST_DURATION",
    "BYTES_RECEIVED",
    "BYTES_SENT",
    "CONNECTION_ID",
];

fn header_value(value: &str) -> Result<(), String> {
    http::HeaderValue::from_str(value).map_err(|_| "holds characters no header may hold".to_owned())?;
    let mut rest = value;
    while let Some(at) = rest.find('%') {
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            rest = after;
            continue;
        }
        let name =
            rest.find(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_').unwrap_or(rest.len());
        if !OPERATORS.contains(&&rest[..name]) {
            return Err(format!("`%{}` is not an operator known here: write %% for a percent sign", &rest[..name]));
        }
        let operator = &rest[..name];
        // Of these Envoy demands an argument, and of these alone it cuts the value.
        let of_header = matches!(operator, "REQ" | "RESP");
        let close = match rest[name..].strip_prefix('(') {
            Some(inner) => {
                let end = inner.find(')').ok_or("a ( of an operator is not closed")?;
                if of_header && end == 0 {
                    return Err(format!("%{operator}% needs the name of a header"));
                }
                if !of_header && !matches!(operator, "START_TIME" | "RESPONSE_CODE_DETAILS") {
                    return Err(format!("%{operator}% takes no argument"));
                }
                name + 1 + end + 1
            }
            None if of_header => return Err(format!("%{operator}% needs the name of a header: %{operator}(name)%")),
            None => name,
        };
        let end = rest[close..].find('%').ok_or("an operator is not closed by %")?;
        let limit = &rest[close..close + end];
        let valid =
            limit.strip_prefix(':').map_or(limit.is_empty(), |length| of_header && length.parse::<u16>().is_ok());
        if !valid {
            return Err(format!("`{limit}` does not belong into an operator"));
        }
        rest = &rest[close + end + 1..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [("5s", 5000), ("1.5s", 1500), ("100ms", 100), ("1h30m", 5_400_000), ("0s", 0), ("0", 0)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "5x", "-5s", "1.2.3s", "9999999h"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn header_values() {
        for ok in
            ["", "a", "100%%", "%REQ(x-a):12%", "%DOWNSTREAM_REMOTE_ADDRESS%", "a%PROTOCOL%b%%", "%START_TIME(%s)%"]
        {
            assert_eq!(header_value(ok), Ok(()), "{ok}");
        }
        for bad in [
            "100%",
            "%NOPE%",
            "%REQ(x%",
            "%REQ(x)",
            "a\nb",
            "%PROTOCOL:x%",
            "%REQ%",
            "%RESP()%",
            "%PROTOCOL(x)%",
            "%PROTOCOL:5%",
        ] {
            assert!(header_value(bad).is_err(), "{bad}");
        }
    }
}
