//! Three proxies in a row, each with retries, before a service that fails: how many calls become of one.

use std::time::Duration;

use anyhow::ensure;
use outrigger_tests::Fabric;

use super::{
    bench::{Bench, Title},
    failures,
};
use crate::{
    drive::{faulty::Mood, open_loop},
    result::Sample,
    rig::Chain,
};

const HOPS: usize = 3;
const CONNECTIONS: usize = 64;
/// What an answer takes.
const TAKES: Duration = Duration::from_millis(10);

const CASES: &[(&str, &str, Mood)] =
    &[("failing", "every answer is 503", Mood::Unavailable), ("half", "every second answer is 503", Mood::Moody)];

/// Number of cases.
pub(super) const COUNT: f64 = CASES.len() as f64;
/// Length of a measurement in windows: before, and while it fails.
pub(super) const WINDOWS: u32 = 4;

pub(super) fn run(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let contenders = failures::contenders(bench);
    let (rounds, window) = (bench.options.rounds().min(failures::ROUNDS), bench.options.window());
    let (rate, workers) = (bench.options.size(300, 100) as f64, bench.options.concurrency);
    // Nobody is ejected: the service as a whole is what fails.
    let mut extra = failures::policy();
    extra.cluster = serde_json::Value::Null;
    for (name, what, mood) in CASES {
        let title = format!("{HOPS} proxies with 2 retries each before 3 replicas: {what}; {rate} requests/s");
        bench.rounds(&Title::new("hops", *name, title), &contenders, rounds, |_, contender| {
            let mut fabric = Fabric::new();
            let mut chain = Chain::start(&mut fabric, contender, (HOPS, workers), TAKES, &extra)?;
            let sample = measure(&chain, *mood, rate, window)?;
            chain.check()?;
            Ok(sample)
        })?;
    }
    Ok(())
}

fn measure(chain: &Chain, mood: Mood, rate: f64, window: Duration) -> anyhow::Result<Sample> {
    let length = window * WINDOWS;
    let outcomes;
    let mut counts = Vec::new();
    {
        let counts = &mut counts;
        outcomes = chain.run(async move |to| {
            let load = open_loop::Load { to, rate, connections: CONNECTIONS, length };
            open_loop::run_phases(load, failures::request(), &[window], |phase| {
                counts.push(chain.requests());
                if phase == 1 {
                    chain.bottom().iter().for_each(|controls| controls.set(mood));
                }
            })
            .await
        })?;
    }
    ensure!(outcomes.len() == 2 && counts.len() == 3, "the schedule was not kept");
    // Retries may come after the schedule's end.
    let (before, during) = (&outcomes[0], &outcomes[1]);
    let mut sample = Sample::default();
    let calls = (chain.requests() - counts[1]) as f64;
    sample.set("multiplier", calls / (during.completed + during.failed).max(1) as f64);
    sample.set("before_ok", failures::success(before));
    sample.set("fault_ok", failures::success(during));
    sample.set("fault_p50", during.latency.value_at_quantile(0.5) as f64 / 1e3);
    sample.set("fault_p99", during.latency.value_at_quantile(0.99) as f64 / 1e3);
    Ok(sample)
}
