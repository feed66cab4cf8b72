//! `/stats/prometheus`: Envoy's statistics under the names its tag extraction gives them, Istio's standard metrics, and
//! on the status port those of the application.
//!
//! What was counted is copied first; the text of it, which is many times as long, leaves while it is written.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use http::StatusCode;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Inner,
    application::Application,
    body::Pieces,
    exposition::{Exposition, Format, Type, labels, sanitize},
    help,
    http::{Answer, Call},
    stats::{Stat, collect, distributions},
};
use crate::{
    ir::matcher::Regex,
    telemetry::{
        histogram::Distribution,
        mesh::{Outcome, Protocol, Sample},
        metrics::Kind,
        rbac::RbacOwner,
    },
};

/// What is wanted of all there is.
struct Wanted {
    used_only: bool,
    filter: Option<Regex>,
}

impl Wanted {
    fn name(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.is_match(name))
    }

    fn stat(&self, stat: &Stat) -> bool {
        (!self.used_only || stat.value != 0) && (self.filter.is_none() || self.name(&stat.dotted()))
    }
}

/// Both formats; the application's metrics, where it has any, decide on which. The turn is held while it is made.
pub(super) fn answer(
    inner: Arc<Inner>,
    call: &Call,
    application: Option<Arc<Application>>,
    turn: Vec<OwnedSemaphorePermit>,
) -> Answer {
    let filter = match call.parameter("filter").map(Regex::search).transpose() {
        Ok(filter) => filter,
        Err(reason) => return Answer::error(StatusCode::BAD_REQUEST, format!("filter: {reason}\n")),
    };
    let wanted = Wanted { used_only: call.has("usedonly"), filter };
    let format = application.as_ref().map_or_else(|| Format::accepted(&call.accept), |a| a.format);
    let (pieces, maker) = Pieces::new();
    tokio::task::spawn_blocking(move || {
        let mut out = |piece| maker.put(piece);
        let mut exposition = Exposition::new(format, &mut out);
        everything(&inner, &wanted, application.as_deref(), &mut exposition);
        if exposition.finish() {
            maker.end();
        }
        drop(turn);
    });
    Answer::pieces(format.content_type(), pieces)
}

fn everything(inner: &Inner, wanted: &Wanted, application: Option<&Application>, exposition: &mut Exposition<'_>) {
    stats(inner, wanted, exposition);
    histograms(inner, wanted, exposition);
    mesh(inner, wanted, exposition);
    if let Some(application) = application {
        application.write(exposition);
    }
}

fn stats(inner: &Inner, wanted: &Wanted, exposition: &mut Exposition<'_>) {
    let mut all: Vec<(String, Stat)> =
        collect(inner).into_iter().filter(|stat| wanted.stat(stat)).map(|stat| (name(&stat), stat)).collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    for family in all.chunk_by(|(a, _), (b, _)| a == b) {
        let (name, first) = &family[0];
        let kind = match first.kind {
            Kind::Counter => Type::Counter,
            Kind::Gauge => Type::Gauge,
        };
        if !exposition.is_wanted()
            || !exposition.family(name, kind, &help::of(first.scope, &split_class(&first.metric).0))
        {
            continue;
        }
        for (_, stat) in family {
            exposition.value(name, &stat_labels(stat), stat.value);
        }
    }
}

fn name(stat: &Stat) -> String {
    let (metric, _) = split_class(&stat.metric);
    match stat.scope {
        "" if stat.rbac.is_some() => rbac_name(stat),
        "" => format!("envoy_{}", sanitize(&metric)),
        "outrigger" => format!("outrigger_{}", sanitize(&metric)),
        scope => format!("envoy_{scope}_{}", sanitize(&metric)),
    }
}

fn stat_labels(stat: &Stat) -> String {
    let class = split_class(&stat.metric).1.map(String::from);
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    pairs.extend(class.as_deref().map(|class| ("envoy_response_code_class", class)));
    pairs.extend(owner_label(stat.scope).map(|label| (label, &*stat.owner)));
    pairs.extend(stat.rbac.iter().flat_map(rbac_labels));
    labels(pairs)
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

fn histograms(inner: &Inner, wanted: &Wanted, exposition: &mut Exposition<'_>) {
    let mut families: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for (scope, owner, metric, values) in distributions(inner) {
        if (wanted.used_only && values.count() == 0) || !wanted.name(&format!("{scope}.{owner}.{metric}")) {
            continue;
        }
        families.entry(format!("envoy_{scope}_{metric}")).or_default().push((scope, owner, metric, values));
    }
    for (name, family) in families {
        let (scope, _, metric, _) = family[0];
        if !exposition.is_wanted() || !exposition.family(&name, Type::Histogram, &help::of(scope, metric)) {
            continue;
        }
        for (scope, owner, _, values) in &family {
            let labels = labels(owner_label(scope).map(|label| (label, &**owner)));
            exposition.histogram(&name, &labels, values);
        }
    }
}

/// A family of Istio's, with its help and how to read it.
type Counted = (&'static str, &'static str, fn(&Sample) -> Option<u64>);
type Distributed = (&'static str, &'static str, fn(&Sample) -> Option<&Distribution>);

const DISTRIBUTED: [Distributed; 3] = [
    ("istio_request_duration_milliseconds", "Duration of requests.", |sample| match sample {
        Sample::Requests { duration, .. } => Some(duration),
        Sample::Connections { .. } => None,
    }),
    ("istio_request_bytes", "Size of request bodies.", |sample| match sample {
        Sample::Requests { request_bytes, .. } => Some(request_bytes),
        Sample::Connections { .. } => None,
    }),
    ("istio_response_bytes", "Size of response bodies.", |sample| match sample {
        Sample::Requests { response_bytes, .. } => Some(response_bytes),
        Sample::Connections { .. } => None,
    }),
];

const COUNTED: [Counted; 5] = [
    ("istio_requests_total", "Requests.", |sample| match sample {
        Sample::Requests { duration, .. } => Some(duration.count()),
        Sample::Connections { .. } => None,
    }),
    ("istio_tcp_connections_opened_total", "TCP connections opened.", |sample| match sample {
        Sample::Connections { opened, .. } => Some(*opened),
        Sample::Requests { .. } => None,
    }),
    ("istio_tcp_connections_closed_total", "TCP connections closed.", |sample| match sample {
        Sample::Connections { closed, .. } => Some(*closed),
        Sample::Requests { .. } => None,
    }),
    ("istio_tcp_received_bytes_total", "Bytes received from clients over TCP.", |sample| match sample {
        Sample::Connections { received, .. } => Some(*received),
        Sample::Requests { .. } => None,
    }),
    ("istio_tcp_sent_bytes_total", "Bytes sent to clients over TCP.", |sample| match sample {
        Sample::Connections { sent, .. } => Some(*sent),
        Sample::Requests { .. } => None,
    }),
];

/// Istio's standard metrics.
fn mesh(inner: &Inner, wanted: &Wanted, exposition: &mut Exposition<'_>) {
    let mut all: Vec<(String, Sample)> = Vec::new();
    inner.context.registry.mesh.visit(Instant::now(), &mut |pair, outcome: &Outcome, sample| {
        debug_assert!(outcome.protocol != Protocol::Tcp || matches!(sample, Sample::Connections { .. }));
        all.push((format!("{pair}{}", outcome.labels()), sample.clone()));
    });
    for (name, help, value) in COUNTED {
        family(&all, (name, Type::Counter, help), wanted, exposition, |exposition, labels, sample| {
            if let Some(value) = value(sample) {
                exposition.value(name, labels, value);
            }
        });
    }
    for (name, help, values) in DISTRIBUTED {
        family(&all, (name, Type::Histogram, help), wanted, exposition, |exposition, labels, sample| {
            if let Some(values) = values(sample) {
                exposition.histogram(name, labels, values);
            }
        });
    }
    if wanted.name("istio_build") && exposition.family("istio_build", Type::Gauge, "What this proxy is.") {
        let version = labels([("component", "proxy"), ("tag", env!("CARGO_PKG_VERSION"))]);
        exposition.value("istio_build", &version, 1);
    }
}

fn family(
    all: &[(String, Sample)],
    (name, kind, help): (&str, Type, &str),
    wanted: &Wanted,
    exposition: &mut Exposition<'_>,
    write: impl Fn(&mut Exposition<'_>, &str, &Sample),
) {
    let requests = !name.starts_with("istio_tcp_");
    let some = all.iter().any(|(_, sample)| matches!(sample, Sample::Requests { .. }) == requests);
    if !some || !wanted.name(name) || !exposition.is_wanted() || !exposition.family(name, kind, help) {
        return;
    }
    all.iter().for_each(|(labels, sample)| write(exposition, labels, sample));
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
