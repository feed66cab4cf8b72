//! `/clusters`: every endpoint with its health, weight and live counts, as text or as `envoy.admin.v3.Clusters`.

use std::{
    fmt::Write,
    sync::{Arc, atomic::Ordering},
};

use http::StatusCode;
use serde_json::{Value, json};

use super::{
    Inner,
    http::{Answer, Call},
};
use crate::{
    ir::{
        cluster::{BreakerThresholds, Discovery},
        endpoint::{Address, Health},
        matcher::Regex,
    },
    upstream::{Cluster, HealthFlag, Member, endpoint::EndpointStats},
};

pub(super) fn clusters(inner: &Inner, call: &Call) -> Answer {
    let filter = match call.parameter("filter").map(Regex::search).transpose() {
        Ok(filter) => filter,
        Err(reason) => return Answer::error(StatusCode::BAD_REQUEST, format!("filter: {reason}\n")),
    };
    let live = inner.context.publisher.current();
    let shown = |c: &&Arc<Cluster>| filter.as_ref().is_none_or(|f| f.is_match(&c.config.name));
    let mut clusters: Vec<&Arc<Cluster>> = live.clusters().filter(shown).collect();
    clusters.sort_by(|a, b| a.config.name.cmp(&b.config.name));
    if call.is_json() {
        let statuses: Vec<Value> = clusters.into_iter().map(|c| status(c)).collect();
        return Answer::json(&json!({"cluster_statuses": statuses}));
    }
    let mut text = String::new();
    for cluster in clusters {
        lines(&mut text, cluster);
    }
    Answer::text(text)
}

fn lines(text: &mut String, cluster: &Cluster) {
    let name = &cluster.config.name;
    let thresholds = [("default_priority", &cluster.config.breaker), ("high_priority", &cluster.config.breaker_high)];
    // Writing to a String cannot fail.
    for (priority, t) in thresholds {
        let _ = writeln!(text, "{name}::{priority}::max_connections::{}", t.max_connections);
        let _ = writeln!(text, "{name}::{priority}::max_pending_requests::{}", t.max_pending_requests);
        let _ = writeln!(text, "{name}::{priority}::max_requests::{}", t.max_requests);
        let _ = writeln!(text, "{name}::{priority}::max_retries::{}", t.max_retries);
    }
    if cluster.config.outlier().is_some() {
        for (origin, prefix) in ["", "local_origin_"].into_iter().enumerate() {
            let (mean, threshold) = cluster.outlier_stats().rates(origin);
            let _ = writeln!(text, "{name}::outlier::{prefix}success_rate_average::{mean}");
            let _ = writeln!(text, "{name}::outlier::{prefix}success_rate_ejection_threshold::{threshold}");
        }
    }
    let parts = cluster.inspect();
    for member in parts.members() {
        let endpoint = &member.endpoint;
        let at = &endpoint.label;
        let locality = &parts.localities()[member.locality as usize];
        for (key, value) in counts(member) {
            let _ = writeln!(text, "{name}::{at}::{key}::{value}");
        }
        let _ = writeln!(text, "{name}::{at}::hostname::{}", endpoint.hostname);
        let _ = writeln!(text, "{name}::{at}::health_flags::{}", health_flags(member));
        let [external, local] = success_rates(member);
        let _ = writeln!(text, "{name}::{at}::success_rate::{external}");
        let _ = writeln!(text, "{name}::{at}::local_origin_success_rate::{local}");
        let _ = writeln!(text, "{name}::{at}::weight::{}", member.weight);
        let _ = writeln!(text, "{name}::{at}::region::{}", locality.region);
        let _ = writeln!(text, "{name}::{at}::zone::{}", locality.zone);
        let _ = writeln!(text, "{name}::{at}::sub_zone::{}", locality.sub_zone);
        let _ = writeln!(text, "{name}::{at}::priority::{}", locality.priority);
    }
}

fn counts(member: &Member) -> [(&'static str, u64); 7] {
    let endpoint = &member.endpoint;
    let stats = endpoint.stats_if_used();
    let count = |pick: fn(&EndpointStats) -> u64| stats.map_or(0, pick);
    [
        ("cx_active", u64::from(endpoint.cx_active.load(Ordering::Relaxed))),
        ("cx_connect_fail", count(|s| s.cx_connect_fail.load(Ordering::Relaxed))),
        ("cx_total", count(|s| s.cx_total.load(Ordering::Relaxed))),
        ("rq_active", u64::from(endpoint.rq_active.load(Ordering::Relaxed))),
        ("rq_error", count(|s| s.rq_error.load(Ordering::Relaxed))),
        ("rq_success", count(|s| s.rq_success.load(Ordering::Relaxed))),
        ("rq_total", count(|s| s.rq_total.load(Ordering::Relaxed))),
    ]
}

fn status(cluster: &Cluster) -> Value {
    let parts = cluster.inspect();
    let hosts: Vec<Value> = parts
        .members()
        .iter()
        .map(|member| {
            let locality = &parts.localities()[member.locality as usize];
            let stats: Vec<Value> = counts(member)
                .into_iter()
                .map(|(name, value)| {
                    let kind = if name.ends_with("_active") { "GAUGE" } else { "COUNTER" };
                    json!({"name": name, "value": value.to_string(), "type": kind})
                })
                .collect();
            let mut status = json!({
                "address": address(&member.endpoint.address),
                "stats": stats,
                "health_status": health_status(member),
                "weight": member.weight,
                "hostname": *member.endpoint.hostname,
                "priority": locality.priority,
                "locality": {"region": *locality.region, "zone": *locality.zone, "sub_zone": *locality.sub_zone},
            });
            for (rate, key) in success_rates(member).into_iter().zip(["success_rate", "local_origin_success_rate"]) {
                if rate >= 0.0 {
                    status[key] = json!({"value": rate});
                }
            }
            status
        })
        .collect();
    let mut status = json!({
        "name": *cluster.config.name,
        "host_statuses": hosts,
        "circuit_breakers": {"thresholds": [
            thresholds("DEFAULT", &cluster.config.breaker),
            thresholds("HIGH", &cluster.config.breaker_high),
        ]},
        "observability_name": *cluster.config.stat_name,
    });
    if let Discovery::Eds { service_name, .. } = &cluster.config.discovery
        && *service_name != cluster.config.name
    {
        status["eds_service_name"] = (**service_name).into();
    }
    if cluster.config.outlier().is_some() {
        let keys = ["success_rate_ejection_threshold", "local_origin_success_rate_ejection_threshold"];
        for (origin, key) in keys.into_iter().enumerate() {
            let (_, threshold) = cluster.outlier_stats().rates(origin);
            if threshold >= 0.0 {
                status[key] = json!({"value": threshold});
            }
        }
    }
    status
}

fn thresholds(priority: &str, t: &BreakerThresholds) -> Value {
    json!({
        "priority": priority,
        "max_connections": t.max_connections,
        "max_pending_requests": t.max_pending_requests,
        "max_requests": t.max_requests,
        "max_retries": t.max_retries,
    })
}

fn address(address: &Address) -> Value {
    match address {
        Address::Ip(a) => json!({"socket_address": {"address": a.ip().to_string(), "port_value": a.port()}}),
        Address::Host { host, port } => json!({"socket_address": {"address": **host, "port_value": port}}),
        Address::Pipe(path) => json!({"pipe": {"path": path}}),
    }
}

/// Envoy's names of what is wrong with a host.
fn health_flags(member: &Member) -> String {
    let failed = [
        (HealthFlag::FailedActiveCheck, "/failed_active_hc"),
        (HealthFlag::FailedOutlierCheck, "/failed_outlier_check"),
    ];
    let other = [
        (HealthFlag::DegradedActiveCheck, "/degraded_active_hc"),
        (HealthFlag::PendingActiveCheck, "/pending_active_hc"),
        (HealthFlag::ActiveCheckTimeout, "/active_hc_timeout"),
    ];
    let set = |flags: &[(HealthFlag, &'static str)]| {
        flags.iter().filter(|(flag, _)| member.endpoint.has_flag(*flag)).map(|(_, name)| *name).collect::<String>()
    };
    let eds = match member.health {
        Health::Healthy => "",
        Health::Degraded => "/degraded_eds_health",
        Health::Unhealthy => "/failed_eds_health",
        Health::Draining => "/eds_status_draining",
    };
    let flags = [set(&failed).as_str(), eds, set(&other).as_str()].concat();
    if flags.is_empty() { "healthy".to_owned() } else { flags }
}

/// `HostHealthStatus`: what is set, and what the control plane says.
fn health_status(member: &Member) -> Value {
    let mut status = json!({"eds_health_status": eds_health(member.health)});
    let flags = [
        (HealthFlag::FailedActiveCheck, "failed_active_health_check"),
        (HealthFlag::FailedOutlierCheck, "failed_outlier_check"),
        (HealthFlag::DegradedActiveCheck, "failed_active_degraded_check"),
        (HealthFlag::PendingActiveCheck, "pending_active_hc"),
        (HealthFlag::ActiveCheckTimeout, "active_hc_timeout"),
    ];
    for (flag, name) in flags {
        if member.endpoint.has_flag(flag) {
            status[name] = true.into();
        }
    }
    status
}

/// The success rates of the last interval, external and local; below 0: too few requests.
fn success_rates(member: &Member) -> [f64; 2] {
    member.endpoint.monitor_if_used().map_or([-1.0; 2], |m| m.rates())
}

fn eds_health(health: Health) -> &'static str {
    match health {
        Health::Healthy => "HEALTHY",
        Health::Degraded => "DEGRADED",
        Health::Unhealthy => "UNHEALTHY",
        Health::Draining => "DRAINING",
    }
}
