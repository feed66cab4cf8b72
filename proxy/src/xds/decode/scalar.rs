//! Scalars with Envoy's constraints: durations, ports, percentages, header names, wrappers.

use std::time::Duration;

use http::HeaderName;
use outrigger_wire::pb::{
    envoy::{
        config::core::v3::{RuntimeFractionalPercent, TcpKeepalive},
        r#type::v3::{FractionalPercent, Percent, fractional_percent::DenominatorType},
    },
    google::protobuf::{self as g, BoolValue, UInt32Value},
};

use super::{at::At, fields::fields, report::Reject};
use crate::ir::{Fraction, listener::Keepalive};

/// Longer durations mean the same as this one, a hundred years: nothing may overflow a clock.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

pub(crate) fn duration(value: &g::Duration, at: &At<'_>) -> Result<Duration, Reject> {
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(value.seconds), u32::try_from(value.nanos)) else {
        return Err(at.reject("must not be negative"));
    };
    if nanos > 999_999_999 || seconds > 315_576_000_000 {
        return Err(at.reject("is out of the range of a duration"));
    }
    Ok(Duration::new(seconds, nanos).min(MAX_DURATION))
}

/// A duration whose zero means "off".
pub(crate) fn zero_is_off(value: Option<Duration>) -> Option<Duration> {
    value.filter(|d| !d.is_zero())
}

/// A duration that Envoy wants above zero.
pub(crate) fn positive(value: Option<Duration>, at: &At<'_>) -> Result<Option<Duration>, Reject> {
    match value {
        Some(Duration::ZERO) => Err(at.reject("must be greater than zero")),
        value => Ok(value),
    }
}

pub(crate) fn port(value: u32, at: &At<'_>) -> Result<u16, Reject> {
    u16::try_from(value).map_err(|_| at.reject(format!("{value} is not a port")))
}

pub(crate) fn bool_or(value: &Option<BoolValue>, default: bool) -> bool {
    value.as_ref().map_or(default, |v| v.value)
}

pub(crate) fn u32_or(value: &Option<UInt32Value>, default: u32) -> u32 {
    value.as_ref().map_or(default, |v| v.value)
}

/// A wrapped number that must lie in `range`.
pub(crate) fn u32_in(
    value: &Option<UInt32Value>,
    default: u32,
    range: std::ops::RangeInclusive<u32>,
    at: &At<'_>,
) -> Result<u32, Reject> {
    let value = u32_or(value, default);
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(at.reject(format!("{value} is not between {} and {}", range.start(), range.end())))
    }
}

/// A percentage of 0 to 100.
pub(crate) fn percent(value: &Percent, at: &At<'_>) -> Result<f64, Reject> {
    if (0.0..=100.0).contains(&value.value) {
        Ok(value.value)
    } else {
        Err(at.reject(format!("{} is not between 0 and 100", value.value)))
    }
}

pub(crate) fn fraction(value: &FractionalPercent, at: &At<'_>) -> Result<Fraction, Reject> {
    let denominator = match DenominatorType::try_from(value.denominator) {
        Ok(DenominatorType::Hundred) => 100,
        Ok(DenominatorType::TenThousand) => 10_000,
        Ok(DenominatorType::Million) => 1_000_000,
        Err(_) => return Err(at.field("denominator").reject(format!("{} is not known", value.denominator))),
    };
    // More than the whole is the whole, as in Envoy.
    Ok(Fraction { numerator: value.numerator.min(denominator), denominator })
}

pub(crate) fn runtime_fraction(value: &RuntimeFractionalPercent, at: &At<'_>) -> Result<Fraction, Reject> {
    runtime_key(&value.runtime_key, at);
    let default = at.required("default_value", &value.default_value)?;
    fraction(default, &at.field("default_value"))
}

/// There is no runtime to look a key up in: the default applies.
pub(crate) fn runtime_key(key: &str, at: &At<'_>) {
    if !key.is_empty() {
        at.field("runtime_key").harmless("there is no runtime: the default value applies");
    }
}

pub(crate) fn not_empty<'m>(value: &'m str, at: &At<'_>) -> Result<&'m str, Reject> {
    if value.is_empty() { Err(at.reject("must not be empty")) } else { Ok(value) }
}

pub(crate) fn header_name(name: &str, at: &At<'_>) -> Result<HeaderName, Reject> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| at.reject(format!("{name:?} is not a header name")))
}

/// An enumeration's value, refusing numbers that have no name.
pub(crate) fn enumeration<E: TryFrom<i32>>(value: i32, at: &At<'_>) -> Result<E, Reject> {
    E::try_from(value).map_err(|_| at.reject(format!("enumeration value {value} is not known")))
}

pub(crate) fn keepalive(value: &TcpKeepalive, at: &At<'_>) -> Result<Keepalive, Reject> {
    fields!(at, value => TcpKeepalive { read: [keepalive_probes, keepalive_time, keepalive_interval] });
    // Zero is the system's default; the bound is the kernel's.
    let number = |name: &str, value: &Option<UInt32Value>| match u32_or(value, 0) {
        0 => Ok(None),
        v if v > 32_767 => Err(at.field(name).reject(format!("{v} is more than 32767"))),
        v => Ok(Some(v)),
    };
    let seconds = |v: u32| Duration::from_secs(u64::from(v));
    Ok(Keepalive {
        probes: number("keepalive_probes", &value.keepalive_probes)?.map(|p| p.min(127)),
        time: number("keepalive_time", &value.keepalive_time)?.map(seconds),
        interval: number("keepalive_interval", &value.keepalive_interval)?.map(seconds),
    })
}
