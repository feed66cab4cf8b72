//! `/stats`: the statistics blocks under Envoy's names.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
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
        histogram::Distribution,
        metrics::{Kind, panics},
        rbac::RbacOwner,
        tap,
    },
    tls::expiry::days_until_first,
    xds,
};

/// One value: where it belongs, its metric name, and what it counts.
pub(super) struct Stat {
    /// `cluster`, `http`, `tcp`, `listener`, `outrigger`, or empty for the process's own.
    pub(super) scope: &'static str,
    /// Cluster name, stat prefix...; empty for the process's own.
    pub(super) owner: Name,
    pub(super) metric: Cow<'static, str>,
    pub(super) kind: Kind,
    pub(super) value: u64,
    /// Of an RBAC filter: it has names of its own.
    pub(super) rbac: Option<RbacOwner>,
}

impl Stat {
    /// Envoy's dotted name.
    pub(super) fn dotted(&self) -> String {
        if let Some(owner) = &self.rbac {
            return owner.dotted(&self.metric);
        }
        match self.scope {
            "" => self.metric.to_string(),
            scope @ "outrigger" => format!("{scope}.{}", self.metric),
            // Envoy has the prefix in front here.
            scope @ "http_local_rate_limit" => format!("{}.{scope}.{}", self.owner, self.metric),
            scope => match self.metric.strip_prefix("ratelimit_") {
                Some(metric) => format!("{scope}.{}.ratelimit.{metric}", self.owner),
                None => format!("{scope}.{}.{}", self.owner, self.metric),
            },
        }
    }
}

pub(super) fn collect(inner: &Inner) -> Vec<Stat> {
    let mut stats = own(inner);
    inner.context.registry.visit(&mut |scope, owner, metric, kind, value| {
        stats.push(Stat { scope, owner: owner.clone(), metric: metric.into(), kind, value, rbac: None });
    });
    inner.context.registry.rbac.visit(&mut |owner, metric, value| {
        let (kind, metric) = (Kind::Counter, metric.into());
        stats.push(Stat { scope: "", owner: owner.prefix.clone(), metric, kind, value, rbac: Some(owner.clone()) });
    });
    let live = inner.context.publisher.current();
    // Clusters may share a name in statistics, which is then one statistic as far as anybody can see.
    let mut first: HashMap<&Name, (usize, usize)> = HashMap::with_capacity(live.clusters().len());
    for cluster in live.clusters() {
        let (owner, start) = (&cluster.config.stat_name, stats.len());
        cluster.visit_stats(&mut |metric, kind, value| {
            stats.push(Stat { scope: "cluster", owner: owner.clone(), metric: metric.into(), kind, value, rbac: None });
        });
        match first.get(owner) {
            None => drop(first.insert(owner, (start, stats.len()))),
            Some(&(from, to)) => {
                for again in stats.split_off(start) {
                    match stats[from..to].iter_mut().find(|stat| stat.metric == again.metric) {
                        Some(stat) => stat.value = stat.value.wrapping_add(again.value),
                        None => stats.push(again),
                    }
                }
            }
        }
    }
    stats
}

/// Every distribution as (scope, owner, metric, values).
pub(super) fn distributions(inner: &Inner) -> Vec<(&'static str, Name, &'static str, Distribution)> {
    let mut all = Vec::new();
    inner.context.registry.visit_histograms(&mut |scope, owner, metric, values| {
        all.push((scope, owner.clone(), metric, values));
    });
    let live = inner.context.publisher.current();
    // Clusters may share a name in statistics.
    let mut clusters: BTreeMap<(&Name, &'static str), Distribution> = BTreeMap::new();
    for cluster in live.clusters() {
        for (metric, values) in cluster.stats.distributions() {
            clusters.entry((&cluster.config.stat_name, metric)).or_default().add(&values);
        }
    }
    all.extend(clusters.into_iter().map(|((owner, metric), values)| ("cluster", owner.clone(), metric, values)));
    all
}

/// The quantiles that Envoy tells.
const QUANTILES: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

/// Distributions by their dotted names, in order.
fn histograms(inner: &Inner, wanted: impl Fn(&str, &Distribution) -> bool) -> Vec<(String, Distribution)> {
    let named = |(scope, owner, metric, values)| (format!("{scope}.{owner}.{metric}"), values);
    let mut all: Vec<_> = distributions(inner).into_iter().map(named).collect();
    all.retain(|(name, values)| wanted(name, values));
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}

/// As Envoy writes them: of the last interval, which there is none of here, and of all time.
fn quantiles(values: &Distribution) -> String {
    if values.count() == 0 {
        return "No recorded values".to_owned();
    }
    let one = |q: &f64| format!("P{q}(nan,{})", rounded(values.quantile(q / 100.0)).unwrap_or(f64::NAN));
    QUANTILES.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn rounded(value: Option<f64>) -> Option<f64> {
    value.map(|value| (value * 1000.0).round() / 1000.0)
}

/// As Envoy has them in JSON: one entry for all.
fn quantiles_json(all: &[(String, Distribution)]) -> serde_json::Value {
    let computed: Vec<_> = all
        .iter()
        .map(|(name, values)| {
            let value = |q: &f64| json!({"interval": null, "cumulative": rounded(values.quantile(q / 100.0))});
            json!({"name": name, "values": QUANTILES.iter().map(value).collect::<Vec<_>>()})
        })
        .collect();
    json!({"histograms": {"supported_quantiles": QUANTILES, "computed_quantiles": computed}})
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
        // As in Envoy: the process before this one, while it drains after a replacement.
        stat("server.hot_restart_epoch", Kind::Gauge, inner.state.epoch.load(Ordering::Relaxed)),
        stat("server.parent_connections", Kind::Gauge, inner.state.parent_connections.load(Ordering::Relaxed)),
        stat("server.application_seen", Kind::Gauge, u64::from(inner.state.application_seen.load(Ordering::Relaxed))),
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
    let overload = *super::lock(&inner.state.overload);
    for (name, part) in [("cgroup_memory", overload.memory), ("file_descriptors", overload.descriptors)] {
        // Percent, as in Envoy.
        let percent = part.map_or(0, |part| (part * 100.0).clamp(0.0, 1000.0) as u64);
        let name = format!("overload.envoy.resource_monitors.{name}.pressure");
        stats.push(named(name.into(), Kind::Gauge, percent));
    }
    for (name, active) in [
        ("stop_accepting_requests", overload.sheds),
        ("reject_incoming_connections", overload.sheds),
        ("reduce_timeouts", overload.closes_idle),
    ] {
        let name = format!("overload.envoy.overload_actions.{name}.active");
        stats.push(named(name.into(), Kind::Gauge, u64::from(active)));
    }
    stats.push(stat("overload.rises", Kind::Counter, overload.rises));
    let (good, bad) = {
        let reloads = super::lock(&inner.state.reloads);
        (reloads.good, reloads.bad)
    };
    stats.push(stat("server.static_reload_success", Kind::Counter, good));
    stats.push(stat("server.static_reload_rejected", Kind::Counter, bad));
    let (waiting, served, refused) = *super::lock(&inner.state.held);
    stats.push(stat("listener_manager.held_connections", Kind::Gauge, waiting));
    stats.push(stat("listener_manager.held_connections_served", Kind::Counter, served));
    stats.push(stat("listener_manager.held_connections_refused", Kind::Counter, refused));
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
    // Who has no control plane cannot have lost it.
    if !status.sources.is_empty() {
        let connected = status.sources.values().any(|s| s.connected_since.is_some());
        stats.push(stat("control_plane.connected_state", Kind::Gauge, u64::from(connected)));
    }
    if let Some(saved) = &status.saved {
        let age = saved.in_force.and_then(|written| written.elapsed().ok());
        stats.push(stat("control_plane.last_good_in_force", Kind::Gauge, u64::from(saved.in_force.is_some())));
        stats.push(stat("control_plane.last_good_age_seconds", Kind::Gauge, age.map_or(0, |age| age.as_secs())));
        stats.push(stat("control_plane.last_good_refused", Kind::Gauge, u64::from(saved.refused.is_some())));
        stats.push(stat("control_plane.last_good_pending", Kind::Gauge, u64::from(saved.pending)));
        stats.push(stat("control_plane.last_good_written", Kind::Counter, saved.writes));
        stats.push(stat("control_plane.last_good_write_failed", Kind::Counter, saved.write_failures));
    }
    if let Some(identity) = &status.identity {
        let seconds = identity.not_after.and_then(|t| t.duration_since(std::time::SystemTime::now()).ok());
        stats.push(stat("server.cert_seconds_to_expiry", Kind::Gauge, seconds.map_or(0, |d| d.as_secs())));
        stats.push(stat("server.cert_renewals", Kind::Counter, identity.renewals));
        stats.push(stat("server.cert_renewal_failures", Kind::Counter, identity.failures));
        stats.push(stat("server.cert_renewal_failing", Kind::Gauge, u64::from(identity.last_error.is_some())));
        stats.push(stat("server.clock_skewed", Kind::Gauge, u64::from(identity.clock_skewed)));
    }
    certificates(inner, &mut stats);
    let ours = |metric: &'static str, kind, value| Stat { scope: "outrigger", ..stat(metric, kind, value) };
    let series = inner.context.registry.mesh.counts();
    stats.push(ours("metric_series", Kind::Gauge, series.series));
    stats.push(ours("metric_series_refused_total", Kind::Counter, series.refused));
    stats.push(ours("metric_series_expired_total", Kind::Counter, series.expired));
    if let Some(application) = &inner.application {
        let (scrapes, failures) = application.counts();
        stats.push(ours("application_scrapes_total", Kind::Counter, scrapes));
        stats.push(ours("application_scrape_failures_total", Kind::Counter, failures));
    }
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
    let shows = match call.parameter("type").map(str::to_ascii_lowercase).as_deref() {
        None | Some("all" | "histograms") => true,
        Some(_) => false,
    };
    let histograms = histograms(inner, |name, values| {
        shows && (!used_only || values.count() != 0) && filter.as_ref().is_none_or(|f| f.is_match(name))
    });
    match call.parameter("format") {
        Some("json") => {
            let mut stats: Vec<_> = lines.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            if !histograms.is_empty() {
                stats.push(quantiles_json(&histograms));
            }
            Answer::json(&json!({"stats": stats}))
        }
        Some("text") | None => {
            let mut text = String::new();
            for (name, value) in &lines {
                let _ = writeln!(text, "{name}: {value}");
            }
            for (name, values) in &histograms {
                let _ = writeln!(text, "{name}: {}", quantiles(values));
            }
            Answer::text(text)
        }
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
