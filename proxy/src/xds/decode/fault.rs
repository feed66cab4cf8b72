//! The fault filter.

use http::StatusCode;
use outrigger_wire::pb::envoy::{
    extensions::filters::{
        common::fault::v3::{
            FaultDelay as PbDelay, FaultRateLimit as PbRate, fault_delay::FaultDelaySecifier as Delay,
            fault_rate_limit::LimitType,
        },
        http::fault::v3::{FaultAbort as PbAbort, HttpFault as Pb, fault_abort::ErrorType},
    },
    r#type::v3::FractionalPercent,
};

use super::{
    at::At,
    fields::fields,
    matcher,
    report::Reject,
    scalar::{self, positive},
};
use crate::ir::{
    Fraction,
    filters::{AbortKind, Fault, FaultAbort, FaultDelay, FaultRate},
};

pub(crate) fn fault(message: &Pb, at: &At<'_>) -> Result<Fault, Reject> {
    fields!(at, message => Pb {
        read: [
            delay, abort, upstream_cluster, headers, downstream_nodes, max_active_faults, response_rate_limit,
            delay_percent_runtime, abort_percent_runtime, delay_duration_runtime, abort_http_status_runtime,
            max_active_faults_runtime, response_rate_limit_percent_runtime, abort_grpc_status_runtime,
        ],
        // A name out of a request header never becomes the name of a statistic here.
        harmless: [disable_downstream_cluster_stats],
        unsupported: [filter_metadata],
    });
    let keys = [
        ("delay_percent_runtime", &message.delay_percent_runtime),
        ("abort_percent_runtime", &message.abort_percent_runtime),
        ("delay_duration_runtime", &message.delay_duration_runtime),
        ("abort_http_status_runtime", &message.abort_http_status_runtime),
        ("max_active_faults_runtime", &message.max_active_faults_runtime),
        ("response_rate_limit_percent_runtime", &message.response_rate_limit_percent_runtime),
        ("abort_grpc_status_runtime", &message.abort_grpc_status_runtime),
    ];
    for (name, _) in keys.iter().filter(|(_, key)| !key.is_empty()) {
        at.field(name).harmless("there is no runtime: the configured value applies");
    }
    let cluster = message.upstream_cluster.as_str();
    Ok(Fault {
        delay: message.delay.as_ref().map(|m| delay(m, &at.field("delay"))).transpose()?,
        abort: message.abort.as_ref().map(|m| abort(m, &at.field("abort"))).transpose()?,
        rate_limit: message
            .response_rate_limit
            .as_ref()
            .map(|m| rate(m, &at.field("response_rate_limit")))
            .transpose()?,
        upstream_cluster: (!cluster.is_empty()).then(|| cluster.into()),
        headers: matcher::headers("headers", &message.headers, at)?,
        downstream_nodes: message.downstream_nodes.iter().map(|n| n.as_str().into()).collect(),
        max_active: message.max_active_faults.map(|v| v.value),
    })
}

/// Without a percentage nothing is hit.
fn percentage(message: &Option<FractionalPercent>, at: &At<'_>) -> Result<Fraction, Reject> {
    match message {
        Some(m) => scalar::fraction(m, &at.field("percentage")),
        None => Ok(Fraction { numerator: 0, denominator: 100 }),
    }
}

fn delay(message: &PbDelay, at: &At<'_>) -> Result<FaultDelay, Reject> {
    fields!(at, message => PbDelay { read: [percentage, fault_delay_secifier] });
    let duration = match at.required("fault_delay_secifier", &message.fault_delay_secifier)? {
        Delay::FixedDelay(d) => {
            let at = at.field("fixed_delay");
            positive(Some(scalar::duration(d, &at)?), &at)?
        }
        Delay::HeaderDelay(_) => None,
    };
    Ok(FaultDelay { duration, percentage: percentage(&message.percentage, at)? })
}

fn abort(message: &PbAbort, at: &At<'_>) -> Result<FaultAbort, Reject> {
    fields!(at, message => PbAbort { read: [percentage, response_body, error_type] });
    let kind = match at.required("error_type", &message.error_type)? {
        ErrorType::HttpStatus(code) => {
            let status = u16::try_from(*code).ok().filter(|c| (200..600).contains(c));
            let status = status.and_then(|c| StatusCode::from_u16(c).ok());
            let reason = || at.field("http_status").reject(format!("{code} is not between 200 and 599"));
            AbortKind::Http(status.ok_or_else(reason)?)
        }
        ErrorType::GrpcStatus(code) => {
            let reason = |_| at.field("grpc_status").reject(format!("{code} is not a gRPC status"));
            AbortKind::Grpc(u16::try_from(*code).map_err(reason)?)
        }
        ErrorType::HeaderAbort(_) => AbortKind::Header,
    };
    let percentage = percentage(&message.percentage, at)?;
    Ok(FaultAbort { kind, percentage, body: message.response_body.as_str().into() })
}

fn rate(message: &PbRate, at: &At<'_>) -> Result<FaultRate, Reject> {
    fields!(at, message => PbRate { read: [percentage, limit_type] });
    let kbps = match at.required("limit_type", &message.limit_type)? {
        LimitType::FixedLimit(limit) if limit.limit_kbps == 0 => {
            return Err(at.field("fixed_limit").field("limit_kbps").reject("must be at least 1"));
        }
        LimitType::FixedLimit(limit) => Some(limit.limit_kbps),
        LimitType::HeaderLimit(_) => None,
    };
    Ok(FaultRate { kbps, percentage: percentage(&message.percentage, at)? })
}
