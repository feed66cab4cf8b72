//! What a DestinationRule's traffic policy makes of a cluster: balancing, limits, ejection, HTTP version.

use super::{
    balancing, filters,
    names::Variant,
    pb::{self, any, cluster, core, upstream_http},
    scope::{Target, class},
};
use crate::model::{Class, ConnectionPool, H2Upgrade, OutlierDetection, RetryBudget, TrafficPolicy};
use upstream_http::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig, explicit_http_config::ProtocolConfig,
};

/// What runs through a cluster, which is what its ALPN list says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    /// HTTP, in the version of the client.
    Http,
    Http2,
    Tcp,
}

impl Carries {
    pub(super) fn of(target: &Target<'_>, variant: Variant, policy: &TrafficPolicy) -> Self {
        let upgrade = policy.connection_pool.as_ref().and_then(|pool| pool.http.h2_upgrade_policy);
        let as_client = policy.connection_pool.as_ref().is_some_and(|pool| pool.http.use_client_protocol);
        match class(target.service, target.port) {
            Class::Http if as_client => Self::Http,
            Class::Tcp | Class::Tls => Self::Tcp,
            Class::Auto if variant == Variant::Tcp => Self::Tcp,
            Class::Http | Class::Auto if upgrade == Some(H2Upgrade::Upgrade) => Self::Http2,
            Class::Http if target.port.protocol.is_http2() => Self::Http2,
            Class::Http | Class::Auto => Self::Http,
        }
    }

    /// Offered to a peer. Of these, a peer's HTTP chains negotiate at most `h2`, its TCP chains at most `istio`.
    pub(super) fn alpn(self) -> &'static [&'static str] {
        match self {
            Self::Http => &["istio-http/1.1", "istio-h2", "istio"],
            Self::Http2 => &["istio-h2", "istio", "h2"],
            Self::Tcp => &["istio"],
        }
    }
}

/// What is not of the policy, but goes into the options of HTTP too.
pub(super) struct HttpBasis {
    pub preserve_case: bool,
    /// Names for TLS from each request.
    pub by_request: Option<core::UpstreamHttpProtocolOptions>,
}

/// Sets everything but balancing, security and discovery.
pub(super) fn apply(cluster: &mut cluster::Cluster, policy: &TrafficPolicy, carries: Carries, basis: HttpBasis) {
    let none = ConnectionPool::default();
    let pool = policy.connection_pool.as_ref().unwrap_or(&none);
    connections(cluster, pool, policy.retry_budget.as_ref());
    if let Some(detection) = &policy.outlier_detection {
        cluster.outlier_detection = Some(outlier(detection));
    }
    cluster.common_lb_config = Some(balancing::common(policy));
    if let Some(options) = http_options(pool, carries, basis) {
        set_http_options(cluster, options);
    }
}

/// What concerns connections of any kind.
pub(super) fn connections(cluster: &mut cluster::Cluster, pool: &ConnectionPool, budget: Option<&RetryBudget>) {
    let connect = pool.tcp.connect_timeout.map_or(std::time::Duration::from_secs(10), |t| t.0);
    cluster.connect_timeout = pb::duration(connect);
    cluster.circuit_breakers = Some(breakers(pool, budget));
    if let Some(keepalive) = &pool.tcp.tcp_keepalive {
        let seconds = |d: Option<crate::model::HumanDuration>| pb::number(d?.0.as_secs().max(1) as u32);
        cluster.upstream_connection_options = Some(cluster::UpstreamConnectionOptions {
            tcp_keepalive: Some(core::TcpKeepalive {
                keepalive_probes: keepalive.probes.and_then(pb::number),
                keepalive_time: seconds(keepalive.time),
                keepalive_interval: seconds(keepalive.interval),
            }),
            ..Default::default()
        });
    }
}

pub(super) fn set_http_options(cluster: &mut cluster::Cluster, options: upstream_http::HttpProtocolOptions) {
    let key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned();
    cluster.typed_extension_protocol_options.insert(key, any(options));
}

/// Unlimited but for what the operator limits: Envoy's own defaults (1024) surprise under load. Zero is no limit
/// either: in Istio's API it is the same as nothing.
pub(super) fn breakers(pool: &ConnectionPool, given: Option<&RetryBudget>) -> cluster::CircuitBreakers {
    let limit = |given: Option<u32>| pb::number(given.filter(|n| *n > 0).unwrap_or(u32::MAX));
    let budget = |budget: &RetryBudget| cluster::circuit_breakers::thresholds::RetryBudget {
        budget_percent: Some(pb::types::Percent { value: budget.percent.unwrap_or(20.0) }),
        min_retry_concurrency: pb::number(budget.min_retry_concurrency.filter(|n| *n > 0).unwrap_or(3)),
        ..Default::default()
    };
    let thresholds = cluster::circuit_breakers::Thresholds {
        max_connections: limit(pool.tcp.max_connections),
        max_pending_requests: limit(pool.http.http1_max_pending_requests),
        max_requests: limit(pool.http.http2_max_requests),
        max_retries: limit(pool.http.max_retries),
        retry_budget: given.map(budget),
        track_remaining: true,
        ..Default::default()
    };
    cluster::CircuitBreakers { thresholds: vec![thresholds], ..Default::default() }
}

/// As Istio reads it: what is not said is Envoy's default (five 5xx in a row), zero switches a detector off, and
/// success rates are nobody's business.
fn outlier(detection: &OutlierDetection) -> cluster::OutlierDetection {
    let on = |errors: Option<u32>| {
        (errors.and_then(pb::number), errors.and_then(|n| pb::number(if n > 0 { 100 } else { 0 })))
    };
    let (consecutive_5xx, enforcing_consecutive_5xx) = on(detection.consecutive_5xx_errors);
    let gateway = detection.consecutive_gateway_errors.or(detection.consecutive_errors);
    let (consecutive_gateway_failure, enforcing_consecutive_gateway_failure) = on(gateway);
    let mut config = cluster::OutlierDetection {
        consecutive_5xx,
        enforcing_consecutive_5xx,
        consecutive_gateway_failure,
        enforcing_consecutive_gateway_failure,
        enforcing_success_rate: pb::number(0),
        interval: detection.interval.and_then(|d| pb::duration(d.0)),
        base_ejection_time: detection.base_ejection_time.and_then(|d| pb::duration(d.0)),
        max_ejection_percent: detection.max_ejection_percent.filter(|n| *n > 0).and_then(pb::number),
        split_external_local_origin_errors: detection.split_external_local_origin_errors,
        ..Default::default()
    };
    if detection.split_external_local_origin_errors {
        let (failures, enforcing) = on(detection.consecutive_local_origin_failures);
        config.consecutive_local_origin_failure = failures;
        config.enforcing_consecutive_local_origin_failure = enforcing;
        config.enforcing_local_origin_success_rate = pb::number(0);
    }
    config
}

fn http_options(
    pool: &ConnectionPool,
    carries: Carries,
    basis: HttpBasis,
) -> Option<upstream_http::HttpProtocolOptions> {
    let http2 = core::Http2ProtocolOptions {
        max_concurrent_streams: pool.http.max_concurrent_streams.filter(|n| *n > 0).and_then(pb::number),
        ..Default::default()
    };
    let mut options = match carries {
        Carries::Tcp => return None,
        Carries::Http => downstream_version(http2, basis.preserve_case),
        Carries::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2)),
    };
    options.upstream_http_protocol_options = basis.by_request;
    limit(&mut options, pool);
    Some(options)
}

/// How long an HTTP connection may be idle, live, and be used.
pub(super) fn limit(options: &mut upstream_http::HttpProtocolOptions, pool: &ConnectionPool) {
    let limited = pool.http.max_requests_per_connection.filter(|n| *n > 0);
    let idle = pool.http.idle_timeout.or(pool.tcp.idle_timeout);
    if limited.is_some() || idle.is_some() || pool.tcp.max_connection_duration.is_some() {
        options.common_http_protocol_options = Some(core::HttpProtocolOptions {
            idle_timeout: idle.and_then(|d| pb::duration(d.0)),
            max_requests_per_connection: limited.and_then(pb::number),
            max_connection_duration: pool.tcp.max_connection_duration.and_then(|d| pb::duration(d.0)),
            ..Default::default()
        });
    }
}

/// Upstream as downstream: what a transparent proxy should do.
pub(super) fn downstream_version(
    http2: core::Http2ProtocolOptions,
    preserve_case: bool,
) -> upstream_http::HttpProtocolOptions {
    let config = UseDownstreamHttpConfig {
        http_protocol_options: Some(filters::http1_options(preserve_case)),
        http2_protocol_options: Some(http2),
        ..Default::default()
    };
    upstream_http::HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(config)),
        ..Default::default()
    }
}

/// One version, whatever the client speaks.
pub(super) fn explicit(version: ProtocolConfig) -> upstream_http::HttpProtocolOptions {
    let config = ExplicitHttpConfig { protocol_config: Some(version) };
    upstream_http::HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)),
        ..Default::default()
    }
}
