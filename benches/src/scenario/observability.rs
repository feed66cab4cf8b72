//! What metrics, access logs and traces cost a request: the same pair of proxies without and with them, in turn.
//!
//! Envoy's packages have no `istio.stats`: its part in the metrics is the nearest it has, statistics of every route. What
//! both count anyway is in the base. Before anything is measured each case shows that it does what it is called.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{
    bench::{Bench, Rigs, Title},
    failures, http, measure,
};
use crate::{
    drive::{Service, otlp},
    result::Sample,
    rig::{Between, Both, Contender, Extra, Features, Kind, Plan, Rig, grpc_cluster},
};

/// Where the receiver of spans listens, in every Pod.
const OTLP_PORT: u16 = 4317;
/// Connections of the load that CPU is taken from; latency is one connection's.
const CONNECTIONS: usize = 32;
/// Of requests, in percent.
const SAMPLED: f64 = 1.0;

#[derive(Clone, Copy, Debug)]
struct What {
    name: &'static str,
    about: &'static str,
    metrics: bool,
    log: bool,
    traces: bool,
}

const CASES_OF: &[What] = &[
    What { name: "metrics", about: "Istio's metrics (Envoy: of routes)", metrics: true, log: false, traces: false },
    What { name: "log", about: "a JSON access log to a file", metrics: false, log: true, traces: false },
    What { name: "traces", about: "1 % tracing over OTLP", metrics: false, log: false, traces: true },
    What { name: "all", about: "metrics, JSON access log and 1 % tracing", metrics: true, log: true, traces: true },
];

/// Number of cases.
pub(super) const CASES: f64 = CASES_OF.len() as f64;
/// Windows of a measurement.
pub(super) const WINDOWS: f64 = 6.0;

impl What {
    fn plan(self, kind: Kind) -> Plan {
        let mut extra = Extra::default();
        if self.metrics {
            if kind == Kind::Envoy {
                extra.routes = json!({"stat_prefix": "default"});
            } else {
                extra.both.filters.push(istio_stats());
                let service = json!({"host": "app.default.svc.cluster.local", "name": "app", "namespace": "default"});
                extra.cluster = json!({"metadata": {"filter_metadata": {"istio": {"services": [service]}}}});
            }
        }
        if self.traces {
            trace(&mut extra.both);
        }
        let features = if self.log { Features::JsonLog } else { Features::Usual };
        Plan { extra, features, ..Plan::http(Between::Http2) }
    }
}

fn istio_stats() -> Value {
    let config = json!({
        "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
        "type_url": "type.googleapis.com/stats.PluginConfig",
        "value": {},
    });
    json!({"name": "istio.stats", "typed_config": config})
}

/// As our control plane and Istio's say it.
fn trace(both: &mut Both) {
    let tag = |name: &str, value: &str| json!({"tag": name, "literal": {"value": value}});
    let provider = json!({
        "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
        "service_name": "bench.default",
        "grpc_service": {"envoy_grpc": {"cluster_name": "otel"}},
    });
    both.manager["tracing"] = json!({
        "client_sampling": {"value": 100.0},
        "random_sampling": {"value": SAMPLED},
        "overall_sampling": {"value": 100.0},
        "custom_tags": [
            tag("istio.canonical_service", "bench"),
            tag("istio.canonical_revision", "latest"),
            tag("istio.namespace", "default"),
        ],
        "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": provider},
    });
    both.clusters.push(grpc_cluster("otel", "127.0.0.1", OTLP_PORT));
}

pub(super) fn run(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let contenders = failures::contenders(bench);
    let mut without = bench.rigs(&Plan::http(Between::Http2), &contenders)?;
    http::warm_up(bench, &mut without, |rig, length| http::load(rig, CONNECTIONS, length))?;
    for what in CASES_OF {
        case(bench, &contenders, &mut without, *what)?;
    }
    Ok(())
}

fn case(bench: &mut Bench<'_>, contenders: &[Contender], without: &mut Rigs, what: What) -> anyhow::Result<()> {
    let mut with = Vec::new();
    for contender in contenders {
        let rigs = bench.rigs(&what.plan(contender.kind()), std::slice::from_ref(contender))?;
        let receivers = Receivers::start(&rigs)?;
        with.push((rigs, receivers));
    }
    for (rigs, receivers) in &mut with {
        http::warm_up(bench, rigs, |rig, length| http::load(rig, CONNECTIONS, length))?;
        for rig in rigs.slots.iter().filter_map(|slot| slot.rig.as_ref().ok()) {
            proven(rig, what, receivers).with_context(|| format!("{} {}", rig.contender, what.name))?;
        }
    }
    let about = what.about;
    let title = format!("{about}, {CONNECTIONS} connections (latency: one); added: to the same proxies without");
    let (rounds, window) = (bench.options.rounds(), bench.options.window());
    bench.rounds(&Title::new("observability", what.name, title), contenders, rounds, |index, _| {
        let pair = [&without.slots[index], &with[index].0.slots[0]];
        let [without, with] = pair.map(|slot| slot.rig.as_ref().map_err(|e| anyhow::anyhow!("{e}")));
        compare(without?, with?, window)
    })?;
    let slots = with.iter_mut().flat_map(|(rigs, _)| &mut rigs.slots);
    for slot in slots.chain(&mut without.slots) {
        if let Ok(rig) = &mut slot.rig {
            rig.check()?;
        }
    }
    Ok(())
}

/// Receivers of spans beside both proxies.
struct Receivers {
    spans: Arc<AtomicU64>,
    _services: Vec<Service>,
}

impl Receivers {
    fn start(rigs: &Rigs) -> anyhow::Result<Self> {
        let spans = Arc::new(AtomicU64::new(0));
        let running = rigs.slots.iter().filter_map(|slot| slot.rig.as_ref().ok());
        let pods = running.flat_map(|rig| [&rig.client, rig.server()]);
        let start = |pod: &outrigger_tests::Pod| {
            let counted = spans.clone();
            Service::start(pod.listen(OTLP_PORT), move |on| otlp::serve(on, counted))
        };
        let services = pods.map(start).collect::<anyhow::Result<_>>()?;
        Ok(Self { spans, _services: services })
    }
}

/// The warm-up has left what the case is to leave.
fn proven(rig: &Rig, what: What, receivers: &Receivers) -> anyhow::Result<()> {
    let scrape = || {
        let (_, text) = rig.server().try_sh("curl -sS -m 10 http://127.0.0.1:15000/stats/prometheus");
        let name = if rig.contender.kind() == Kind::Envoy { "envoy_vhost_route_" } else { "istio_requests_total{" };
        text.contains(name)
    };
    let logged = || rig.access_logs().iter().all(|file| std::fs::metadata(file).is_ok_and(|m| m.len() > 0));
    // Envoy keeps lines and spans for seconds.
    let eventually = |holds: &dyn Fn() -> bool| {
        (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(100));
            holds()
        })
    };
    ensure!(!what.metrics || eventually(&scrape), "counts nothing");
    ensure!(!what.log || eventually(&logged), "logs nothing");
    ensure!(!what.traces || eventually(&|| receivers.spans.load(Relaxed) > 0), "sends no spans");
    Ok(())
}

/// Without, with, with, without: what drifts in one direction meanwhile falls on both alike.
fn compare(without: &Rig, with: &Rig, window: Duration) -> anyhow::Result<Sample> {
    let busy = |rig: &Rig| {
        let sample = measure::requests(rig, |rig| http::load(rig, CONNECTIONS, window));
        // Nobody reads them, and they would fill the disk.
        for file in rig.access_logs().iter().filter(|file| file.exists()) {
            std::fs::File::options().write(true).truncate(true).open(file)?;
        }
        sample
    };
    let (first, mut sample, second, last) = (busy(without)?, busy(with)?, busy(with)?, busy(without)?);
    for (key, more, percent) in [
        ("cpu", "cpu_more", "cpu_percent"),
        ("cpu_out", "cpu_out_more", "cpu_out_percent"),
        ("cpu_in", "cpu_in_more", "cpu_in_percent"),
    ] {
        let base = mean(&first, &last, key)?;
        let all = mean(&sample, &second, key)?;
        sample.set(key, all);
        sample.set(more, all - base);
        sample.set(percent, (all / base - 1.0) * 100.0);
    }
    let single = |rig: &Rig| measure::requests(rig, |rig| http::load(rig, 1, window));
    let (base, with) = (single(without)?, single(with)?);
    for (key, added) in [("p50", "p50_added"), ("p99", "p99_added")] {
        sample.set(added, (figure(&with, key)? - figure(&base, key)?) * 1e3);
    }
    Ok(sample)
}

fn mean(a: &Sample, b: &Sample, key: &str) -> anyhow::Result<f64> {
    Ok((figure(a, key)? + figure(b, key)?) / 2.0)
}

fn figure(sample: &Sample, key: &str) -> anyhow::Result<f64> {
    sample.figures.get(key).copied().with_context(|| format!("no {key}"))
}
