//! What a route makes of HTTP filters that do nothing by themselves: faults and CORS. And the mirrors of a route.

use std::collections::BTreeMap;

use super::{
    matches,
    pb::{self, any, core, route, types},
    scope::Scope,
};
use crate::model::{CorsPolicy, Destination, Fault, HttpRoute, Preflights, StringMatch};
use outrigger_wire::pb::envoy::extensions::filters::{
    common::fault::v3::{FaultDelay, fault_delay::FaultDelaySecifier},
    http::{
        cors::v3::CorsPolicy as Cors,
        fault::v3::{FaultAbort, HttpFault, fault_abort::ErrorType},
    },
};
use pb::matcher::string_matcher::MatchPattern;
use types::fractional_percent::DenominatorType;

pub(super) const FAULT: &str = "envoy.filters.http.fault";
pub(super) const CORS: &str = "envoy.filters.http.cors";

/// The per-route configurations, by the filter's name.
pub(super) fn configs(rule: &HttpRoute, speaks_cors: bool) -> BTreeMap<String, pb::Any> {
    let fault = rule.fault.as_ref().map(|f| (FAULT.to_owned(), any(fault(f))));
    let cors = rule.cors_policy.as_ref().filter(|_| speaks_cors).map(|c| (CORS.to_owned(), any(cors(c))));
    fault.into_iter().chain(cors).collect()
}

/// Of a million, as coarse as it can be said.
fn share(millionths: u32) -> types::FractionalPercent {
    let (numerator, denominator) = match millionths {
        n if n % 10_000 == 0 => (n / 10_000, DenominatorType::Hundred),
        n => (n, DenominatorType::Million),
    };
    types::FractionalPercent { numerator, denominator: denominator as i32 }
}

fn fault(fault: &Fault) -> HttpFault {
    let delay = fault.delay.as_ref().and_then(|delay| {
        Some(FaultDelay {
            percentage: Some(share(delay.millionths())),
            fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(pb::duration(delay.fixed_delay?.0)?)),
        })
    });
    let abort = fault.abort.as_ref().map(|abort| FaultAbort {
        percentage: Some(share(abort.millionths())),
        error_type: abort.http_status.map(ErrorType::HttpStatus).or(abort.grpc_status.map(ErrorType::GrpcStatus)),
        ..Default::default()
    });
    HttpFault { delay, abort, ..Default::default() }
}

fn always(millionths: u32) -> Option<core::RuntimeFractionalPercent> {
    Some(core::RuntimeFractionalPercent { default_value: Some(share(millionths)), ..Default::default() })
}

/// `*` and the empty prefix mean every origin.
fn origin_of(wanted: &StringMatch) -> pb::matcher::StringMatcher {
    let everyone = || pb::string(MatchPattern::SafeRegex(pb::regex(".*")));
    match wanted {
        StringMatch::Exact(text) if text == "*" => everyone(),
        wanted => matches::pattern(wanted).unwrap_or_else(everyone),
    }
}

fn cors(policy: &CorsPolicy) -> Cors {
    let exact = policy.allow_origin.iter().map(|origin| origin_of(&StringMatch::Exact(origin.clone())));
    Cors {
        allow_origin_string_match: exact.chain(policy.allow_origins.iter().map(origin_of)).collect(),
        allow_methods: policy.allow_methods.join(","),
        allow_headers: policy.allow_headers.join(","),
        expose_headers: policy.expose_headers.join(","),
        max_age: policy.max_age.map(|age| age.0.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: policy.allow_credentials.and_then(|yes| if yes { pb::yes() } else { pb::no() }),
        filter_enabled: always(1_000_000),
        forward_not_matching_preflights: match policy.unmatched_preflights {
            Preflights::Forward => pb::yes(),
            Preflights::Ignore => pb::no(),
        },
        ..Default::default()
    }
}

/// Where copies go. A share of nothing is no mirror.
pub(super) fn mirrors(
    scope: &Scope<'_>,
    rule: &HttpRoute,
    called: u16,
) -> Vec<route::route_action::RequestMirrorPolicy> {
    let whole = rule.mirror_percent.map(|percent| percent * 10_000);
    let percentage = rule.mirror_percentage.map(|p| p.millionths()).or(whole);
    let first = rule.mirror.iter().map(|to| (to, percentage));
    let more = rule.mirrors.iter().map(|m| (&m.destination, m.percentage.map(|p| p.millionths())));
    let policy = |(to, millionths): (&Destination, Option<u32>)| {
        let millionths = millionths.unwrap_or(1_000_000);
        (millionths > 0).then(|| route::route_action::RequestMirrorPolicy {
            cluster: scope.cluster(to, called, false),
            runtime_fraction: always(millionths),
            trace_sampled: pb::no(),
            ..Default::default()
        })
    };
    first.chain(more).filter_map(policy).collect()
}
