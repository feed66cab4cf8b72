//! The TCP proxy filter.

use std::time::Duration;

use outrigger_wire::pb::envoy::{
    extensions::filters::network::tcp_proxy::v3::{
        TcpProxy as Pb,
        tcp_proxy::{ClusterSpecifier, TcpAccessLogOptions, weighted_cluster::ClusterWeight},
    },
    r#type::v3::{HashPolicy as PbHash, hash_policy::PolicySpecifier},
};

use super::{
    access_log::access_logs,
    at::At,
    fields::fields,
    lb_subset,
    report::Reject,
    scalar::{not_empty, positive, u32_in, zero_is_off},
};
use crate::ir::{
    balancing::SharedCriteria,
    listener::TcpProxy,
    route::{HashPolicy, HeaderOps, WeightedTarget},
};

const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

pub(crate) fn tcp_proxy(message: &Pb, at: &At<'_>) -> Result<TcpProxy, Reject> {
    fields!(at, message => Pb {
        read: [
            stat_prefix, idle_timeout, access_log, max_connect_attempts, hash_policy, max_downstream_connection_duration,
            access_log_options, cluster_specifier, metadata_match,
        ],
        harmless: [access_log_flush_interval, check_drain_close],
        unsupported: [
            downstream_idle_timeout, upstream_idle_timeout, backoff_options,
            max_downstream_connection_duration_jitter_percentage, flush_access_log_on_connected, proxy_protocol_tlvs,
            proxy_protocol_tlv_merge_policy, upstream_connect_mode, max_early_data_bytes,
        ],
        refuse: [on_demand, tunneling_config],
    });
    if let Some(options) = &message.access_log_options {
        let at = at.field("access_log_options");
        fields!(&at, options => TcpAccessLogOptions {
            read: [],
            unsupported: [access_log_flush_interval, flush_access_log_on_connected, flush_access_log_on_start],
        });
    }
    let criteria = lb_subset::criteria(&message.metadata_match, None, at);
    let targets = match at.required("cluster_specifier", &message.cluster_specifier)? {
        ClusterSpecifier::Cluster(name) => vec![target(not_empty(name, &at.field("cluster"))?, 1, &criteria)],
        ClusterSpecifier::WeightedClusters(weighted) => {
            let at = at.field("weighted_clusters");
            if weighted.clusters.is_empty() {
                return Err(at.field("clusters").reject("must not be empty"));
            }
            let targets = at.each("clusters", &weighted.clusters, |m, at| {
                fields!(at, m => ClusterWeight { read: [name, weight, metadata_match] });
                if m.weight == 0 {
                    return Err(at.field("weight").reject("must be at least 1"));
                }
                let criteria = lb_subset::criteria(&m.metadata_match, criteria.as_ref(), at);
                Ok(target(not_empty(&m.name, &at.field("name"))?, m.weight, &criteria))
            })?;
            if targets.iter().map(|t| u64::from(t.weight)).sum::<u64>() > u64::from(u32::MAX) {
                return Err(at.field("clusters").reject("the sum of the weights is too large"));
            }
            targets
        }
    };
    let duration = at.duration("max_downstream_connection_duration", &message.max_downstream_connection_duration)?;
    let attempts_at = at.field("max_connect_attempts");
    Ok(TcpProxy {
        stat_prefix: not_empty(&message.stat_prefix, &at.field("stat_prefix"))?.into(),
        istio_stats: None,
        targets,
        idle_timeout: zero_is_off(at.duration("idle_timeout", &message.idle_timeout)?.or(Some(IDLE_TIMEOUT))),
        max_connection_duration: positive(duration, &at.field("max_downstream_connection_duration"))?,
        max_connect_attempts: u32_in(&message.max_connect_attempts, 1, 1..=u32::MAX, &attempts_at)?,
        hash_policy: at.each("hash_policy", &message.hash_policy, hash)?.into_iter().flatten().collect(),
        access_log: access_logs("access_log", &message.access_log, at)?,
    })
}

fn target(cluster: &str, weight: u32, criteria: &SharedCriteria) -> WeightedTarget {
    WeightedTarget {
        cluster: cluster.into(),
        cluster_header: None,
        weight,
        headers: HeaderOps::default(),
        host_rewrite: None,
        overrides: None,
        criteria: criteria.clone(),
    }
}

fn hash(message: &PbHash, at: &At<'_>) -> Result<Option<HashPolicy>, Reject> {
    match at.required("policy_specifier", &message.policy_specifier)? {
        PolicySpecifier::SourceIp(_) => Ok(Some(HashPolicy::SourceIp { terminal: false })),
        PolicySpecifier::FilterState(_) => {
            at.field("filter_state").unsupported("nothing sets filter state: the policy yields no hash");
            Ok(None)
        }
    }
}
