//! `envoy.extensions.load_balancing_policies.peak_ewma.v3.PeakEwma`, which the descriptor pool lacks.

use outrigger_wire::pb::google::protobuf::{DoubleValue, Duration, UInt32Value};
use prost::Message;
use serde_json::{Map, Value};

use super::{at::At, extension::Extension, fields::fields, report::Reject, scalar::positive};
use crate::ir::balancing::{Number, PeakEwma};

pub(crate) const KIND: &str = "envoy.extensions.load_balancing_policies.peak_ewma.v3.PeakEwma";

#[derive(Clone, PartialEq, Message)]
struct Pb {
    #[prost(message, optional, tag = "1")]
    decay_time: Option<Duration>,
    #[prost(message, optional, tag = "2")]
    aggregation_interval: Option<Duration>,
    #[prost(message, optional, tag = "3")]
    max_samples_per_host: Option<UInt32Value>,
    #[prost(message, optional, tag = "4")]
    default_rtt: Option<Duration>,
    #[prost(message, optional, tag = "5")]
    penalty_value: Option<DoubleValue>,
}

pub(crate) fn peak_ewma(extension: &Extension<'_>, at: &At<'_>) -> Result<PeakEwma, Reject> {
    let message = extension.foreign(at, from_json)?;
    fields!(at, &message => Pb {
        read: [decay_time, default_rtt, penalty_value],
        // Every answer counts at once, for all workers.
        harmless: [aggregation_interval, max_samples_per_host],
    });
    let default = PeakEwma::default();
    let duration = |name: &str, value: &Option<Duration>| positive(at.duration(name, value)?, &at.field(name));
    let penalty = match &message.penalty_value {
        None => default.penalty,
        Some(v) => Number::new(v.value)
            .filter(|v| v.get() > 0.0)
            .ok_or_else(|| at.field("penalty_value").reject("must be greater than zero"))?,
    };
    Ok(PeakEwma {
        decay: duration("decay_time", &message.decay_time)?.unwrap_or(default.decay),
        default_rtt: duration("default_rtt", &message.default_rtt)?.unwrap_or(default.default_rtt),
        penalty,
        ..default
    })
}

fn from_json(fields: &Map<String, Value>) -> Result<Pb, String> {
    let mut message = Pb::default();
    for (name, value) in fields {
        let wrong = || format!("{name}: {value} is not what the field takes");
        let seconds = || {
            let text = value.as_str().and_then(|v| v.strip_suffix('s')).and_then(|v| v.parse::<f64>().ok());
            let seconds = text.filter(|v| v.is_finite() && v.abs() < 1e11).ok_or_else(wrong)?;
            let nanos = ((seconds - seconds.trunc()) * 1e9).round() as i32;
            Ok::<_, String>(Some(Duration { seconds: seconds.trunc() as i64, nanos }))
        };
        match name.as_str() {
            "decay_time" | "decayTime" => message.decay_time = seconds()?,
            "aggregation_interval" | "aggregationInterval" => message.aggregation_interval = seconds()?,
            "default_rtt" | "defaultRtt" => message.default_rtt = seconds()?,
            "max_samples_per_host" | "maxSamplesPerHost" => {
                let value = value.as_u64().and_then(|v| u32::try_from(v).ok()).ok_or_else(wrong)?;
                message.max_samples_per_host = Some(UInt32Value { value });
            }
            "penalty_value" | "penaltyValue" => {
                message.penalty_value = Some(DoubleValue { value: value.as_f64().ok_or_else(wrong)? });
            }
            _ => return Err(format!("{name} is not a field")),
        }
    }
    Ok(message)
}
