//! Clusters.

use std::time::Duration;

use outrigger_wire::pb::envoy::config::cluster::v3::{Cluster as Pb, Filter, UpstreamConnectionOptions};

use super::{
    address,
    at::At,
    cluster_breakers, cluster_check, cluster_dns, cluster_http, cluster_lb, cluster_outlier, cluster_tls, extension,
    fields::fields,
    listener::BUFFER_LIMIT,
    metadata,
    report::Reject,
    scalar::{keepalive, not_empty, positive, u32_or},
    tls,
};
use crate::ir::{
    Name,
    cluster::{Cluster, Discovery, HealthPolicy, LbPolicy},
    share::share,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn cluster(message: &Pb, at: &At<'_>) -> Result<Cluster, Reject> {
    fields!(at, message => Pb {
        read: [
            transport_socket_matches, name, alt_stat_name, eds_cluster_config, connect_timeout,
            per_connection_buffer_limit_bytes, lb_policy, load_assignment, health_checks, max_requests_per_connection,
            circuit_breakers, upstream_http_protocol_options, common_http_protocol_options, http_protocol_options,
            http2_protocol_options, typed_extension_protocol_options, dns_refresh_rate, respect_dns_ttl,
            dns_lookup_family, upstream_bind_config, lb_subset_config, common_lb_config, transport_socket, metadata,
            protocol_selection, upstream_connection_options, filters, load_balancing_policy, upstream_config,
            cluster_discovery_type, lb_config, outlier_detection, ignore_health_on_host_removal,
            close_connections_on_host_health_failure,
        ],
        harmless: [
            stats_matcher, cleanup_interval, track_timeout_budgets, track_cluster_stats,
            per_connection_buffer_high_watermark_timeout,
        ],
        unsupported: [
            dns_jitter, dns_failure_refresh_rate, dns_resolvers, use_tcp_for_dns_lookups, dns_resolution_config,
            typed_dns_resolver_config, wait_for_warm_on_init,
            lrs_server, lrs_report_endpoint_metrics, preconnect_policy,
            connection_pool_per_downstream_connection, queuing_policies,
        ],
        refuse: [transport_socket_matcher],
    });
    let name: Name = not_empty(&message.name, &at.field("name"))?.into();
    network_filters(&message.filters, at)?;
    if let Some(config) = &message.upstream_config {
        let at = at.field("upstream_config");
        let any = at.required("typed_config", &config.typed_config)?;
        let at = at.field("typed_config");
        extension::open(any, &at)?.ignore("upstream", &at)?;
    }
    let discovery = cluster_dns::discovery(message, at)?;
    let balancing = cluster_lb::balancing(message, at)?;
    let provided = balancing.policy == LbPolicy::ClusterProvided;
    if provided != matches!(discovery, Discovery::OriginalDst { .. }) {
        let reason = "CLUSTER_PROVIDED belongs to ORIGINAL_DST clusters, and they take no other policy";
        return Err(at.field("lb_policy").reject(reason));
    }
    let timeout = positive(at.duration("connect_timeout", &message.connect_timeout)?, &at.field("connect_timeout"))?;
    let bind = match &message.upstream_bind_config {
        Some(m) => address::bind(m, &at.field("upstream_bind_config"))?,
        None => None,
    };
    let keepalive = match &message.upstream_connection_options {
        Some(m) => {
            let at = at.field("upstream_connection_options");
            fields!(&at, m => UpstreamConnectionOptions {
                read: [tcp_keepalive],
                harmless: [set_local_interface_name_on_upstream_connections],
                unsupported: [happy_eyeballs_config],
            });
            match &m.tcp_keepalive {
                Some(m) => Some(keepalive(m, &at.field("tcp_keepalive"))?),
                None => None,
            }
        }
        None => None,
    };
    let cluster_breakers::Breakers { default: breaker, high: breaker_high, per_host } =
        cluster_breakers::breakers(&message.circuit_breakers, at)?;
    let outlier = match &message.outlier_detection {
        Some(m) => Some(cluster_outlier::outlier(m, &at.field("outlier_detection"))?),
        None => None,
    };
    if outlier.is_some() && provided {
        at.field("outlier_detection").unsupported("hosts of ORIGINAL_DST clusters are not ejected");
    }
    let check = cluster_check::check(&message.health_checks, at)?;
    if check.is_some() {
        if provided {
            return Err(at.field("health_checks").reject("hosts of ORIGINAL_DST clusters cannot be checked"));
        }
        if !message.ignore_health_on_host_removal {
            let at = at.field("ignore_health_on_host_removal");
            at.harmless("a host that discovery removed is gone at once, whether or not its checks pass");
        }
    }
    let health = HealthPolicy {
        outlier,
        check,
        close_on_failure: message.close_connections_on_host_health_failure,
        max_connections_per_host: per_host,
    };
    let alternative = &*message.alt_stat_name;
    let stat_name = match if alternative.is_empty() { &name } else { alternative } {
        same if *same == *name && !same.contains(':') => name.clone(),
        other => other.replace(':', "_").into(),
    };
    Ok(Cluster {
        name,
        stat_name,
        discovery,
        connect_timeout: timeout.unwrap_or(CONNECT_TIMEOUT),
        lb: balancing.policy,
        lb_options: share(balancing.options),
        panic_threshold: balancing.panic_threshold,
        locality_weighted: balancing.locality_weighted,
        http: share(cluster_http::upstream(message, at)?),
        tls: tls::upstream(&message.transport_socket, &at.field("transport_socket"))?,
        transport_matches: at.each(
            "transport_socket_matches",
            &message.transport_socket_matches,
            cluster_tls::transport_match,
        )?,
        breaker,
        breaker_high,
        bind,
        keepalive,
        buffer_limit: u32_or(&message.per_connection_buffer_limit_bytes, BUFFER_LIMIT),
        drain_on_host_removal: true,
        metadata: metadata::metadata(&message.metadata, at),
        health: (health != HealthPolicy::default()).then(|| share(health)),
    })
}

fn network_filters(filters: &[Filter], at: &At<'_>) -> Result<(), Reject> {
    for (i, filter) in filters.iter().enumerate() {
        let at = at.index("filters", i);
        fields!(&at, filter => Filter { read: [name, typed_config], refuse: [config_discovery] });
        let any = at.required("typed_config", &filter.typed_config)?;
        let at = at.field("typed_config");
        extension::open(any, &at)?.ignore("upstream network filter", &at)?;
    }
    Ok(())
}
