//! What is said to and by a rate limit service, `envoy.service.ratelimit.v3`.
//!
//! Pure: who carries it is not known here. An answer is a stranger's: what cannot be a header is left out.

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use outrigger_wire::pb::{
    envoy::{
        config::core::v3::HeaderValue as PbHeader,
        extensions::common::ratelimit::v3::{
            RateLimitDescriptor,
            rate_limit_descriptor::{Entry, RateLimitOverride},
        },
        service::ratelimit::v3::{
            RateLimitRequest, RateLimitResponse,
            rate_limit_response::{Code, DescriptorStatus, rate_limit::Unit},
        },
    },
    google::protobuf::{Struct, UInt64Value, Value as PbValue, value::Kind},
};
use serde_json::{Map, Number, Value};

use super::Descriptor;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The question about descriptors.
pub fn question(domain: &str, descriptors: &[Descriptor<'_>]) -> RateLimitRequest {
    let one = |descriptor: &Descriptor<'_>| RateLimitDescriptor {
        entries: descriptor.entries.iter().map(|(k, v)| Entry { key: k.to_string(), value: v.to_string() }).collect(),
        limit: descriptor.limit.map(|l| RateLimitOverride { requests_per_unit: l.requests, unit: l.unit }),
        hits_addend: descriptor.hits.map(|value| UInt64Value { value }),
        is_negative_hits: descriptor.negative,
    };
    RateLimitRequest {
        domain: domain.to_owned(),
        descriptors: descriptors.iter().map(one).collect(),
        ..RateLimitRequest::default()
    }
}

/// Whether the answer lets the request pass; `None` when it says nothing that is known.
pub fn allows(answer: &RateLimitResponse) -> Option<bool> {
    match Code::try_from(answer.overall_code) {
        Ok(Code::Ok) => Some(true),
        Ok(Code::OverLimit) => Some(false),
        Ok(Code::Unknown) | Err(_) => None,
    }
}

/// Headers that an answer wants to have added; what frames a message is not for it to say.
pub fn headers(list: &[PbHeader], request: bool) -> HeaderMap {
    let mut map = HeaderMap::new();
    for PbHeader { key, value, raw_value } in list {
        let value = if value.is_empty() { raw_value.as_slice() } else { value.as_bytes() };
        let (Ok(name), Ok(value)) = (HeaderName::from_bytes(key.as_bytes()), HeaderValue::from_bytes(value)) else {
            continue;
        };
        let framing =
            matches!(name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONNECTION | header::UPGRADE)
                || (request && name == header::HOST);
        // More than any map holds is no answer that can be carried out.
        if !framing && map.try_append(name, value).is_err() {
            break;
        }
    }
    map
}

/// `x-ratelimit-*`: of the limit that is closest to being reached.
pub fn announce(statuses: &[DescriptorStatus], into: &mut HeaderMap) {
    let limits = || statuses.iter().filter_map(|s| Some((s, s.current_limit.as_ref()?)));
    let Some((least, limit)) = limits().min_by_key(|(status, _)| status.limit_remaining) else { return };
    let mut policy = limit.requests_per_unit.to_string();
    for (_, limit) in limits() {
        let window = seconds(limit.unit);
        if window == 0 {
            continue;
        }
        let _ = write!(policy, ", {};w={window}", limit.requests_per_unit);
        if !limit.name.is_empty() {
            let _ = write!(policy, ";name=\"{}\"", limit.name);
        }
    }
    // A name that is no header text cannot be passed on.
    let Ok(policy) = HeaderValue::from_str(&policy) else { return };
    let reset = least.duration_until_reset.map_or(0, |d| d.seconds);
    let _ = into.try_append(LIMIT, policy);
    let _ = into.try_append(REMAINING, least.limit_remaining.into());
    let _ = into.try_append(RESET, reset.into());
}

/// `retry-after`: when the last of the limits that are reached begins anew.
pub fn retry_after(statuses: &[DescriptorStatus]) -> Option<u64> {
    let over = statuses.iter().filter(|s| s.code == Code::OverLimit as i32);
    let seconds = over
        .map(|s| s.duration_until_reset.map_or(0, |d| u64::try_from(d.seconds).unwrap_or(0) + u64::from(d.nanos > 0)));
    seconds.max().map(|seconds| seconds.max(1))
}

fn seconds(unit: i32) -> u32 {
    const DAY: u32 = 24 * 60 * 60;
    match Unit::try_from(unit) {
        Ok(Unit::Second) => 1,
        Ok(Unit::Minute) => 60,
        Ok(Unit::Hour) => 60 * 60,
        Ok(Unit::Day) => DAY,
        Ok(Unit::Week) => 7 * DAY,
        Ok(Unit::Month) => 30 * DAY,
        Ok(Unit::Year) => 365 * DAY,
        Ok(Unit::Unknown) | Err(_) => 0,
    }
}

/// What an answer notes for the filters behind. Its depth is bounded by the protobuf decoder.
pub fn fields(message: &Struct) -> Map<String, Value> {
    message.fields.iter().map(|(key, v)| (key.clone(), value(v))).collect()
}

fn value(message: &PbValue) -> Value {
    match &message.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(n)) if n.fract() == 0.0 && n.abs() < 9e15 => Value::Number((*n as i64).into()),
        Some(Kind::NumberValue(n)) => Number::from_f64(*n).map_or(Value::Null, Value::Number),
        Some(Kind::StringValue(s)) => Value::String(s.clone()),
        Some(Kind::BoolValue(b)) => Value::Bool(*b),
        Some(Kind::StructValue(s)) => Value::Object(fields(s)),
        Some(Kind::ListValue(list)) => Value::Array(list.values.iter().map(value).collect()),
    }
}
