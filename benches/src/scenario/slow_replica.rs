//! One replica of four is slow and fails nothing: how much of it each balancer lets the clients feel.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    bench::{Bench, Title},
    failures, measure,
};
use crate::{
    drive::{self, faulty::Mood, open_loop},
    load::{Seen, curve},
    result::Sample,
    rig::{Between, Contender, Extra, Kind, Origin, Plan, Replica, Rig},
};

const REPLICAS: usize = 4;
/// Milliseconds that an answer takes, and that one takes in the slow replica.
const TAKES: (u16, u16) = (2, 500);
const CONNECTIONS: usize = 256;
/// Requests per second: round robin keeps an eighth of that in flight at the slow replica, and all of it has to find a
/// connection. Least request makes what is in flight alike, so the slow one's share is the quotient of the times; only
/// below 1 % is it not the p99, at any rate.
const RATE: (usize, usize) = (1000, 250);
/// Most rounds.
pub(super) const ROUNDS: u32 = 3;
/// Length of a measurement in windows: the first is thrown away.
pub(super) const WINDOWS: u32 = 3;

/// Name, what it is, the cluster's fields, and whether Envoy has it.
fn balancers() -> [(&'static str, &'static str, Value, bool); 4] {
    let aware = json!({"filter_metadata": {"outrigger.load_balancing": {"latency_aware": true}}});
    let peak = json!({"policies": [{"typed_extension_config": {
        "name": "envoy.load_balancing_policies.peak_ewma",
        "typed_config": {
            "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
            "type_url": "type.googleapis.com/envoy.extensions.load_balancing_policies.peak_ewma.v3.PeakEwma",
            "value": {},
        },
    }}]});
    [
        ("round-robin", "round robin", json!({"lb_policy": "ROUND_ROBIN"}), true),
        ("least-request", "least request", json!({"lb_policy": "LEAST_REQUEST"}), true),
        (
            "latency-aware",
            "least request with `latency_aware`",
            json!({"lb_policy": "LEAST_REQUEST", "metadata": aware}),
            false,
        ),
        ("peak-ewma", "peak EWMA", json!({"load_balancing_policy": peak}), false),
    ]
}

/// Number of cases.
pub(super) const CASES: f64 = 4.0;

pub(super) fn run(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let rate = bench.options.size(RATE.0, RATE.1) as f64;
    for (name, what, cluster, everybody) in balancers() {
        let plan = Plan {
            origin: Origin::Faulty(TAKES.0, TAKES.1),
            replicas: REPLICAS,
            extra: Extra { cluster, ..Extra::default() },
            ..Plan::http(Between::Http2)
        };
        let takes_part = |c: &Contender| everybody || c.kind() == Kind::Outrigger;
        let contenders: Vec<_> = failures::contenders(bench).into_iter().filter(takes_part).collect();
        let mut rigs = bench.rigs(&plan, &contenders)?;
        let title =
            format!("{what}, one of four replicas takes {} instead of {} ms, {rate} requests/s", TAKES.1, TAKES.0);
        let (rounds, window) = (bench.options.rounds().min(ROUNDS), bench.options.window());
        bench.case_of(&Title::new("slow-replica", name, title), &mut rigs, rounds, |rig| one(rig, rate, window))?;
    }
    Ok(())
}

fn one(rig: &mut Rig, rate: f64, window: Duration) -> anyhow::Result<Sample> {
    let controls = rig.replicas.iter().map(Replica::controls).collect::<Result<Vec<_>, _>>()?;
    controls[0].set(Mood::Slow);
    // The balancer has to find out first: what it learnt in earlier rounds it may have forgotten.
    let load = open_loop::Load { to: rig.target(), rate, connections: CONNECTIONS, length: window * WINDOWS };
    let mut counts = Vec::new();
    let mut outcomes = rig.client.within(|| {
        let count = |_| counts.push(controls.iter().map(|c| c.requests() as f64).collect::<Vec<_>>());
        drive::block_on(open_loop::run_phases(load, failures::request(), &[window], count))
    })?;
    let outcome = outcomes.pop().filter(|o| o.completed > 0);
    let outcome = outcome.ok_or_else(|| anyhow::anyhow!("no request succeeded; {}", rig.logs()))?;
    let mut sample = Sample::default();
    let seen = Seen {
        completed: outcome.completed,
        failed: outcome.failed,
        took: window * (WINDOWS - 1),
        curve: curve(&outcome.latency),
    };
    sample.set("rps", seen.completed as f64 / seen.took.as_secs_f64());
    sample.set("failed", seen.failed as f64);
    measure::latencies(&mut sample, &seen.curve);
    let came: Vec<f64> = counts[2].iter().zip(&counts[1]).map(|(after, before)| after - before).collect();
    sample.set("slow_share", 100.0 * came[0] / came.iter().sum::<f64>());
    Ok(sample)
}
