//! `/stats` and `/stats/prometheus`: the statistics blocks under Envoy's names.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, atomic::Ordering},
};

use http::StatusCode;
use serde_json::json;

use super::{
    Inner,
    http::{Answer, Call},
};
use crate::{
    ir::{Name, matcher::Regex},
    telemetry::{
        metrics::{Kind, panics},
        rbac::RbacOwner,
        tap,
    },
    tls::expiry::days_until_first,
    xds,
};

/// One value: where it belongs, its metric name, and what it counts.
struct Stat {
    /// `cluster`, `http`, `tcp`, `listener`, or empty for the process's own.
    scope: &'static str,
    /// Cluster name, stat prefix...; empty for the process's own.
    owner: Name,
    metric: Cow<'static, str>,
    kind: Kind,
    value: u64,
    /// Of an RBAC filter: it has names of its own.
    rbac: Option<RbacOwner>,
}

impl Stat {
    /// Envoy's dotted name.
    fn dotted(&self) -> String {
        if let Some(owner) = &self.rbac {
            return owner.dotted(&self.metric);
        }
        match self.scope {
            "" => self.metric.to_string(),
            // Envoy has the prefix in front here.
            scope @ "http_local_rate_limit" => format!("{}.{scope}.{}", self.owner, self.metric),
            scope => match self.metric.strip_prefix("ratelimit_") {
                Some(metric) => format!("{scope}.{}.ratelimit.{metric}", self.owner),
                None => format!("{scope}.{}.{}", self.owner, self.metric),
            },
        }
    }
}

fn collect(inner: &Inner) -> Vec<Stat> {
    let mut stats = own(inner);
    inner.context.registry.visit(&mut |scope, owner, metric, kind, value| {
        stats.push(Stat { scope, owner: owner.clone(), metric: metric.into(), kind, value, rbac: None });
    });
    inner.context.registry.rbac.visit(&mut |owner, metric, value| {
        let (kind, metric) = (Kind::Counter, metric.into());
        stats.push(Stat { scope: "", owner: owner.prefix.clone(), metric, kind, value, rbac: Some(owner.clone()) });
    });
    let live = inner.context.publisher.current();
    for cluster in live.clusters() {
        let owner = &cluster.config.stat_name;
        cluster.visit_stats(&mut |metric, kind, value| {
            stats.push(Stat { scope: "cluster", owner: owner.clone(), metric: metric.into(), kind, value, rbac: None });
        });
    }
    stats
}

/// The process's own statistics.
fn own(inner: &Inner) -> Vec<Stat> {
    let nobody: Name = "".into();
    let named = |metric, kind, value| Stat { scope: "", owner: nobody.clone(), metric, kind, value, rbac: None };
    let stat = |metric: &'static str, kind, value| named(Cow::Borrowed(metric), kind, value);
    let status = inner.context.subscription.status().borrow().clone();
    let live = inner.context.publisher.current();
    let ready = inner.state.not_ready(&status).is_empty();
    // Envoy's `server.state`: 0 live, 1 draining, 2 pre-initializing.
    let state = if inner.state.draining.load(Ordering::Relaxed) { 1 } else { 2 * u64::from(!ready) };
    let mut stats = vec![
        stat("server.live", Kind::Gauge, u64::from(ready)),
        stat("server.state", Kind::Gauge, state),
        stat("server.uptime", Kind::Gauge, inner.state.started.elapsed().as_secs()),
        stat("server.concurrency", Kind::Gauge, inner.context.workers as u64),
        stat("server.total_connections", Kind::Gauge, inner.context.shared.connections.load(Ordering::Relaxed)),
        stat("server.panics", Kind::Counter, panics().get()),
        stat("server.config_problems", Kind::Gauge, inner.state.problems().len() as u64),
        stat("server.config_version", Kind::Gauge, inner.state.version()),
        stat("listener_manager.total_listeners_active", Kind::Gauge, live.listeners.len() as u64),
        stat("listener_manager.workers_started", Kind::Gauge, 1),
        stat("cluster_manager.active_clusters", Kind::Gauge, live.clusters().len() as u64),
        stat("access_log.written", Kind::Counter, inner.context.sinks.written()),
        stat("access_log.dropped", Kind::Counter, inner.context.sinks.dropped()),
        stat("access_log.failed", Kind::Counter, inner.context.sinks.failed()),
        stat("tap.missed", Kind::Counter, tap::missed()),
    ];
    for (kind, s) in &status.kinds {
        let prefix = match kind {
            xds::Kind::Cluster => "cluster_manager.cds".to_owned(),
            xds::Kind::Listener => "listener_manager.lds".to_owned(),
            xds::Kind::Endpoints | xds::Kind::Routes | xds::Kind::Secret => format!("xds.{kind}"),
        };
        for (name, value) in [
            ("update_attempt", s.update_attempt),
            ("update_success", s.update_success),
            ("update_rejected", s.update_rejected),
            ("update_failure", s.update_failure),
        ] {
            stats.push(named(format!("{prefix}.{name}").into(), Kind::Counter, value));
        }
    }
    let connected = status.sources.values().any(|s| s.connected_since.is_some());
    stats.push(stat("control_plane.connected_state", Kind::Gauge, u64::from(connected)));
    if let Some(identity) = &status.identity {
        let seconds = identity.not_after.and_then(|t| t.duration_since(std::time::SystemTime::now()).ok());
        stats.push(stat("server.cert_seconds_to_expiry", Kind::Gauge, seconds.map_or(0, |d| d.as_secs())));
        stats.push(stat("server.cert_renewals", Kind::Counter, identity.renewals));
        stats.push(stat("server.cert_renewal_failures", Kind::Counter, identity.failures));
        stats.push(stat("server.cert_renewal_failing", Kind::Gauge, u64::from(identity.last_error.is_some())));
        stats.push(stat("server.clock_skewed", Kind::Gauge, u64::from(identity.clock_skewed)));
    }
    certificates(inner, &mut stats);
    stats
}

/// When certificates end.
fn certificates(inner: &Inner, stats: &mut Vec<Stat>) {
    let expirations = inner.context.secrets.expirations();
    let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
    stats.push(Stat {
        scope: "",
        owner: "".into(),
        metric: "server.days_until_first_cert_expiring".into(),
        kind: Kind::Gauge,
        value: days_until_first(&expirations, now),
        rbac: None,
    });
    stats.extend(expirations.into_iter().map(|e| Stat {
        scope: "certificate",
        owner: (*e.name).into(),
        metric: "expiration_unix_time_seconds".into(),
        kind: Kind::Gauge,
        value: u64::try_from(e.at).unwrap_or(0),
        rbac: None,
    }));
}

/// `/stats`.
pub(super) fn stats(inner: &Inner, call: &Call) -> Answer {
    let filter = match call.parameter("filter").map(Regex::search).transpose() {
        Ok(filter) => filter,
        Err(reason) => return Answer::error(StatusCode::BAD_REQUEST, format!("filter: {reason}\n")),
    };
    let used_only = call.has("usedonly");
    if call.parameter("format") == Some("prometheus") {
        return prometheus(inner, call);
    }
    let only = match call.parameter("type").map(str::to_ascii_lowercase).as_deref() {
        None | Some("all") => None,
        Some("counters") => Some(Some(Kind::Counter)),
        Some("gauges") => Some(Some(Kind::Gauge)),
        Some("histograms" | "textreadouts") => Some(None),
        Some(_) => return Answer::error(StatusCode::BAD_REQUEST, "invalid &type= param\n"),
    };
    let reset = super::lock(&inner.state.reset).clone();
    let mut lines: Vec<(String, u64)> = collect(inner)
        .into_iter()
        .filter(|s| only.is_none_or(|kind| kind == Some(s.kind)))
        .map(|s| {
            let name = s.dotted();
            let before = if s.kind == Kind::Counter { reset.get(&name).copied().unwrap_or(0) } else { 0 };
            (name, s.value.saturating_sub(before))
        })
        .filter(|(_, value)| !used_only || *value != 0)
        .filter(|(name, _)| filter.as_ref().is_none_or(|f| f.is_match(name)))
        .collect();
    lines.sort();
    match call.parameter("format") {
        Some("json") => {
            let stats: Vec<_> = lines.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            Answer::json(&json!({"stats": stats}))
        }
        Some("text") | None => Answer::text(lines.iter().fold(String::new(), |mut text, (name, value)| {
            let _ = writeln!(text, "{name}: {value}");
            text
        })),
        Some(other) => {
            Answer::error(StatusCode::BAD_REQUEST, format!("format: `{other}` is not text, json or prometheus\n"))
        }
    }
}

/// `/reset_counters`: from now on `/stats` shows what is added. Prometheus is told the totals all the same: to it a
/// counter that goes back is a process that was restarted.
pub(super) fn reset(inner: &Inner, _: &Call) -> Answer {
    let counters = collect(inner).into_iter().filter(|s| s.kind == Kind::Counter && s.value != 0);
    *super::lock(&inner.state.reset) = Arc::new(counters.map(|s| (s.dotted(), s.value)).collect());
    Answer::text("OK\n")
}

/// `/stats/prometheus`, exposition format 0.0.4.
pub(super) fn prometheus(inner: &Inner, call: &Call) -> Answer {
    let used_only = call.has("usedonly");
    // One family must be one block of lines, whatever order the scopes come in.
    let mut families: BTreeMap<String, (Kind, String)> = BTreeMap::new();
    for stat in collect(inner) {
        if used_only && stat.value == 0 {
            continue;
        }
        let (metric, class) = split_class(&stat.metric);
        let name = match stat.scope {
            "" if stat.rbac.is_some() => rbac_name(&stat),
            "" => format!("envoy_{}", sanitize(&metric)),
            scope => format!("envoy_{scope}_{}", sanitize(&metric)),
        };
        let owner_label = match stat.scope {
            "cluster" => Some("envoy_cluster_name"),
            "http" => Some("envoy_http_conn_manager_prefix"),
            "tcp" => Some("envoy_tcp_prefix"),
            "listener" => Some("envoy_listener_address"),
            "http_local_rate_limit" => Some("envoy_local_http_ratelimit_prefix"),
            "local_rate_limit" => Some("envoy_local_ratelimit_prefix"),
            "ratelimit" => Some("envoy_ratelimit_prefix"),
            "certificate" => Some("certificate"),
            _ => None,
        };
        let mut labels = Vec::new();
        if let Some(class) = class {
            labels.push(format!("envoy_response_code_class=\"{class}\""));
        }
        if let Some(label) = owner_label {
            labels.push(format!("{label}=\"{}\"", escape(&stat.owner)));
        }
        labels.extend(stat.rbac.iter().flat_map(rbac_labels));
        let (_, lines) = families.entry(name.clone()).or_insert((stat.kind, String::new()));
        let _ = writeln!(lines, "{name}{{{}}} {}", labels.join(","), stat.value);
    }
    let mut text = String::new();
    for (name, (kind, lines)) in families {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let _ = write!(text, "# TYPE {name} {kind}\n{lines}");
    }
    Answer { content_type: "text/plain; version=0.0.4; charset=utf-8", ..Answer::text(text) }
}

fn rbac_name(stat: &Stat) -> String {
    let (http, policy, kind) = match &stat.rbac {
        Some(owner) => (owner.http, owner.policy.is_some(), owner.kind()),
        None => (false, false, ""),
    };
    let (http, policy) = (if http { "http_" } else { "" }, if policy { "policy_" } else { "" });
    format!("envoy_{http}rbac_{policy}{kind}{}", stat.metric)
}

/// The tags that Envoy extracts from the names.
fn rbac_labels(owner: &RbacOwner) -> Vec<String> {
    let prefix = owner.prefix.trim_end_matches('.');
    let mut labels = vec![if owner.http {
        format!("envoy_http_conn_manager_prefix=\"{}\"", escape(prefix))
    } else {
        format!("envoy_rbac_prefix=\"{}\"", escape(prefix))
    }];
    if !owner.rules.is_empty() {
        labels.push(format!("envoy_rbac_http_prefix=\"{}\"", escape(&owner.rules)));
    }
    if let Some(policy) = &owner.policy {
        labels.push(format!("envoy_rbac_policy_name=\"{}\"", escape(policy)));
    }
    labels
}

/// `upstream_rq_2xx` is `upstream_rq_xx` with the class as a label, as Envoy's tag extraction makes it.
fn split_class(metric: &str) -> (String, Option<char>) {
    let class = metric.strip_suffix("xx").and_then(|m| m.chars().last()).filter(char::is_ascii_digit);
    match class {
        Some(class) => (metric.replacen(&format!("_{class}xx"), "_xx", 1), Some(class)),
        None => (metric.to_owned(), None),
    }
}

fn sanitize(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_envoys() {
        assert_eq!(split_class("upstream_rq_5xx"), ("upstream_rq_xx".to_owned(), Some('5')));
        assert_eq!(split_class("upstream_rq_total"), ("upstream_rq_total".to_owned(), None));
        assert_eq!(sanitize("listener_manager.lds.update_success"), "listener_manager_lds_update_success");
        assert_eq!(escape("a\"b\\c"), "a\\\"b\\\\c");
    }

    #[test]
    fn statistics_of_rbac_filters_have_envoys_tags() {
        let owner = RbacOwner {
            http: true,
            prefix: "in".into(),
            rules: "dry_".into(),
            shadow: true,
            policy: Some("ns[a]-policy[b]-rule[0]".into()),
        };
        let stat = |owner: &RbacOwner| Stat {
            scope: "",
            owner: owner.prefix.clone(),
            metric: "denied".into(),
            kind: Kind::Counter,
            value: 1,
            rbac: Some(owner.clone()),
        };
        assert_eq!(rbac_name(&stat(&owner)), "envoy_http_rbac_policy_shadow_denied");
        let labels = [
            "envoy_http_conn_manager_prefix=\"in\"",
            "envoy_rbac_http_prefix=\"dry_\"",
            "envoy_rbac_policy_name=\"ns[a]-policy[b]-rule[0]\"",
        ];
        assert_eq!(rbac_labels(&owner), labels);
        let network = RbacOwner { http: false, prefix: "tcp.".into(), rules: "".into(), shadow: false, policy: None };
        assert_eq!(rbac_name(&stat(&network)), "envoy_rbac_denied");
        assert_eq!(rbac_labels(&network), ["envoy_rbac_prefix=\"tcp\""]);
    }
}
