//! What a DestinationRule's traffic policy makes of a cluster: balancing, limits, ejection, HTTP version.

use super::{
    filters,
    names::Variant,
    pb::{self, any, cluster, core, upstream_http},
    scope::{Target, class},
};
use crate::model::{Balance, Class, ConnectionPool, H2Upgrade, OutlierDetection, TrafficPolicy};
use cluster::cluster::LbPolicy;
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

/// Balancing; `PASSTHROUGH` is the caller's matter.
pub(super) fn balance(policy: &TrafficPolicy) -> LbPolicy {
    match policy.load_balancer.as_ref().and_then(|balancer| balancer.simple) {
        None | Some(Balance::LeastRequest) => LbPolicy::LeastRequest,
        Some(Balance::RoundRobin) => LbPolicy::RoundRobin,
        Some(Balance::Random) => LbPolicy::Random,
        Some(Balance::Passthrough) => LbPolicy::ClusterProvided,
    }
}

pub(super) fn passes_through(policy: &TrafficPolicy) -> bool {
    balance(policy) == LbPolicy::ClusterProvided
}

/// Sets everything but security and discovery.
pub(super) fn apply(cluster: &mut cluster::Cluster, policy: &TrafficPolicy, carries: Carries, preserve_case: bool) {
    let none = ConnectionPool::default();
    let pool = policy.connection_pool.as_ref().unwrap_or(&none);
    let connect = pool.tcp.connect_timeout.map_or(std::time::Duration::from_secs(10), |t| t.0);
    cluster.connect_timeout = pb::duration(connect);
    cluster.circuit_breakers = Some(breakers(pool));
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
    if let Some(detection) = &policy.outlier_detection {
        cluster.outlier_detection = Some(outlier(detection));
    }
    // Istio's default: no panic mode, unhealthy endpoints stay out. It needs a percentage only with ejection.
    let healthy = policy.outlier_detection.as_ref().and_then(|o| o.min_health_percent).unwrap_or(0);
    cluster.common_lb_config = Some(cluster::cluster::CommonLbConfig {
        healthy_panic_threshold: Some(pb::types::Percent { value: healthy.into() }),
        ..Default::default()
    });
    if let Some(options) = http_options(pool, carries, preserve_case) {
        set_http_options(cluster, options);
    }
}

pub(super) fn set_http_options(cluster: &mut cluster::Cluster, options: upstream_http::HttpProtocolOptions) {
    let key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned();
    cluster.typed_extension_protocol_options.insert(key, any(options));
}

/// Unlimited but for what the operator limits: Envoy's own defaults (1024) surprise under load.
pub(super) fn breakers(pool: &ConnectionPool) -> cluster::CircuitBreakers {
    let thresholds = cluster::circuit_breakers::Thresholds {
        max_connections: pb::number(pool.tcp.max_connections.unwrap_or(u32::MAX)),
        max_pending_requests: pb::number(pool.http.http1_max_pending_requests.unwrap_or(u32::MAX)),
        max_requests: pb::number(pool.http.http2_max_requests.unwrap_or(u32::MAX)),
        max_retries: pb::number(pool.http.max_retries.unwrap_or(u32::MAX)),
        ..Default::default()
    };
    cluster::CircuitBreakers { thresholds: vec![thresholds], ..Default::default() }
}

fn outlier(detection: &OutlierDetection) -> cluster::OutlierDetection {
    let on =
        |errors: Option<u32>| (errors.and_then(pb::number), pb::number(if errors.unwrap_or(0) > 0 { 100 } else { 0 }));
    // Istio's default when nothing is said: five errors in a row.
    let said = detection.consecutive_errors.or(detection.consecutive_gateway_errors);
    let server = match (detection.consecutive_5xx_errors, said) {
        (None, None) => Some(5),
        (errors, _) => errors,
    };
    let (consecutive_5xx, enforcing_consecutive_5xx) = on(server.filter(|n| *n > 0));
    let (consecutive_gateway_failure, enforcing_consecutive_gateway_failure) = on(said.filter(|n| *n > 0));
    let mut config = cluster::OutlierDetection {
        consecutive_5xx,
        enforcing_consecutive_5xx,
        consecutive_gateway_failure,
        enforcing_consecutive_gateway_failure,
        enforcing_success_rate: pb::number(0),
        interval: detection.interval.and_then(|d| pb::duration(d.0)),
        base_ejection_time: detection.base_ejection_time.and_then(|d| pb::duration(d.0)),
        max_ejection_percent: detection.max_ejection_percent.and_then(pb::number),
        split_external_local_origin_errors: detection.split_external_local_origin_errors,
        ..Default::default()
    };
    if detection.split_external_local_origin_errors {
        let (failures, enforcing) = on(detection.consecutive_local_origin_failures.filter(|n| *n > 0));
        config.consecutive_local_origin_failure = failures;
        config.enforcing_consecutive_local_origin_failure = enforcing;
        config.enforcing_local_origin_success_rate = pb::number(0);
    }
    config
}

fn http_options(
    pool: &ConnectionPool,
    carries: Carries,
    preserve_case: bool,
) -> Option<upstream_http::HttpProtocolOptions> {
    let http2 = core::Http2ProtocolOptions {
        max_concurrent_streams: pool.http.max_concurrent_streams.filter(|n| *n > 0).and_then(pb::number),
        ..Default::default()
    };
    let mut options = match carries {
        Carries::Tcp => return None,
        Carries::Http => downstream_version(http2, preserve_case),
        Carries::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2)),
    };
    let limited = pool.http.max_requests_per_connection.filter(|n| *n > 0);
    if limited.is_some() || pool.http.idle_timeout.is_some() || pool.tcp.max_connection_duration.is_some() {
        options.common_http_protocol_options = Some(core::HttpProtocolOptions {
            idle_timeout: pool.http.idle_timeout.and_then(|d| pb::duration(d.0)),
            max_requests_per_connection: limited.and_then(pb::number),
            max_connection_duration: pool.tcp.max_connection_duration.and_then(|d| pb::duration(d.0)),
            ..Default::default()
        });
    }
    Some(options)
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
