//! `/stats/prometheus`: Envoy's statistics under the names its tag extraction gives them, Istio's standard metrics, and
//! on the status port those of the application.

use std::{borrow::Cow, collections::BTreeMap, time::Instant};

use super::{
    Inner,
    exposition::{END, Exposition, Format, labels, sanitize},
    help,
    http::{Answer, Call},
    stats::{Stat, collect},
};
use crate::{
    ir::Name,
    telemetry::{
        histogram::Distribution,
        mesh::{Outcome, Protocol, Sample},
        metrics::Kind,
        rbac::RbacOwner,
    },
};

/// What the application answered to a scrape of ours.
#[derive(Debug)]
pub(super) struct Application {
    pub(super) format: Format,
    pub(super) body: String,
}

/// Both formats; the application's metrics, where it has any, decide on which.
pub(super) fn answer(inner: &Inner, call: &Call, application: Option<&Application>) -> Answer {
    let format = application.map_or_else(|| Format::accepted(&call.accept), |application| application.format);
    let mut exposition = Exposition::new(format);
    let used_only = call.has("usedonly");
    for stat in collect(inner) {
        if !used_only || stat.value != 0 {
            write(&mut exposition, &stat);
        }
    }
    histograms(inner, used_only, &mut exposition);
    mesh(inner, &mut exposition);
    let mut text = exposition.finish();
    if let Some(application) = application {
        let body = application.body.trim_end();
        text.push_str(body.strip_suffix(END.trim_end()).unwrap_or(body).trim_end());
        text.push('\n');
    }
    if format == Format::OpenMetrics {
        text.push_str(END);
    }
    Answer { content_type: format.content_type(), ..Answer::text(text) }
}

fn write(exposition: &mut Exposition, stat: &Stat) {
    let (metric, class) = split_class(&stat.metric);
    let name = match stat.scope {
        "" if stat.rbac.is_some() => rbac_name(stat),
        "" => format!("envoy_{}", sanitize(&metric)),
        "outrigger" => format!("outrigger_{}", sanitize(&metric)),
        scope => format!("envoy_{scope}_{}", sanitize(&metric)),
    };
    let class = class.map(String::from);
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    pairs.extend(class.as_deref().map(|class| ("envoy_response_code_class", class)));
    pairs.extend(owner_label(stat.scope).map(|label| (label, &*stat.owner)));
    pairs.extend(stat.rbac.iter().flat_map(rbac_labels));
    exposition.value(&name, stat.kind, || help::of(stat.scope, &metric), (&labels(pairs), stat.value));
}

fn owner_label(scope: &str) -> Option<&'static str> {
    match scope {
        "cluster" => Some("envoy_cluster_name"),
        "http" => Some("envoy_http_conn_manager_prefix"),
        "tcp" => Some("envoy_tcp_prefix"),
        "listener" => Some("envoy_listener_address"),
        "http_local_rate_limit" => Some("envoy_local_http_ratelimit_prefix"),
        "local_rate_limit" => Some("envoy_local_ratelimit_prefix"),
        "ratelimit" => Some("envoy_ratelimit_prefix"),
        "certificate" => Some("certificate"),
        _ => None,
    }
}

fn histograms(inner: &Inner, used_only: bool, exposition: &mut Exposition) {
    let mut write = |scope: &'static str, owner: &str, metric: &'static str, values: &Distribution| {
        if used_only && values.count() == 0 {
            return;
        }
        let name = format!("envoy_{scope}_{metric}");
        let labels = labels(owner_label(scope).map(|label| (label, owner)));
        exposition.histogram(&name, || help::of(scope, metric), &labels, values);
    };
    inner.context.registry.visit_histograms(&mut |scope, owner, metric, values| write(scope, owner, metric, &values));
    let live = inner.context.publisher.current();
    // Clusters may share a name in statistics.
    let mut clusters: BTreeMap<(&Name, &'static str), Distribution> = BTreeMap::new();
    for cluster in live.clusters() {
        for (metric, values) in cluster.stats.distributions() {
            clusters.entry((&cluster.config.stat_name, metric)).or_default().add(&values);
        }
    }
    clusters.iter().for_each(|((owner, metric), values)| write("cluster", owner, metric, values));
}

/// Istio's standard metrics.
fn mesh(inner: &Inner, exposition: &mut Exposition) {
    inner.context.registry.mesh.visit(Instant::now(), &mut |pair, outcome: &Outcome, sample| {
        let labels = format!("{pair}{}", outcome.labels());
        let help = |text: &'static str| move || Cow::Borrowed(text);
        match sample {
            Sample::Requests { duration, request_bytes, response_bytes } => {
                let total = (&*labels, duration.count());
                exposition.value("istio_requests_total", Kind::Counter, help("Requests."), total);
                for (name, text, values) in [
                    ("istio_request_duration_milliseconds", "Duration of requests.", duration),
                    ("istio_request_bytes", "Size of request bodies.", request_bytes),
                    ("istio_response_bytes", "Size of response bodies.", response_bytes),
                ] {
                    exposition.histogram(name, help(text), &labels, values);
                }
            }
            Sample::Connections { opened, closed, received, sent } => {
                for (name, text, value) in [
                    ("istio_tcp_connections_opened_total", "TCP connections opened.", opened),
                    ("istio_tcp_connections_closed_total", "TCP connections closed.", closed),
                    ("istio_tcp_received_bytes_total", "Bytes received from clients over TCP.", received),
                    ("istio_tcp_sent_bytes_total", "Bytes sent to clients over TCP.", sent),
                ] {
                    exposition.value(name, Kind::Counter, help(text), (&labels, *value));
                }
            }
        }
        debug_assert!(outcome.protocol != Protocol::Tcp || matches!(sample, Sample::Connections { .. }));
    });
    let version = labels([("component", "proxy"), ("tag", env!("CARGO_PKG_VERSION"))]);
    exposition.value("istio_build", Kind::Gauge, || "What this proxy is.".into(), (&version, 1));
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
fn rbac_labels(owner: &RbacOwner) -> Vec<(&'static str, &str)> {
    let prefix = owner.prefix.trim_end_matches('.');
    let mut labels = vec![(if owner.http { "envoy_http_conn_manager_prefix" } else { "envoy_rbac_prefix" }, prefix)];
    if !owner.rules.is_empty() {
        labels.push(("envoy_rbac_http_prefix", &*owner.rules));
    }
    labels.extend(owner.policy.iter().map(|policy| ("envoy_rbac_policy_name", &**policy)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_envoys() {
        assert_eq!(split_class("upstream_rq_5xx"), ("upstream_rq_xx".to_owned(), Some('5')));
        assert_eq!(split_class("upstream_rq_total"), ("upstream_rq_total".to_owned(), None));
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
        let wanted = [
            ("envoy_http_conn_manager_prefix", "in"),
            ("envoy_rbac_http_prefix", "dry_"),
            ("envoy_rbac_policy_name", "ns[a]-policy[b]-rule[0]"),
        ];
        assert_eq!(rbac_labels(&owner), wanted);
        let network = RbacOwner { http: false, prefix: "tcp.".into(), rules: "".into(), shadow: false, policy: None };
        assert_eq!(rbac_name(&stat(&network)), "envoy_rbac_denied");
        assert_eq!(rbac_labels(&network), [("envoy_rbac_prefix", "tcp")]);
    }
}
