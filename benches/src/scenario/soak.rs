//! Load of changing kinds for minutes: memory has to find its level.

use std::time::{Duration, Instant};

use super::{
    bench::{Bench, Title, go_on},
    http, measure,
};
use crate::{
    drive::{http1, idle},
    load::wrk,
    result::{Sample, stats},
    rig::{Between, HOST, Plan, Rig},
};

/// One mixture of loads.
const CYCLE: Duration = Duration::from_secs(4);

pub(super) fn run(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let (plan, proxies, length) = (Plan::http(Between::Http2), bench.proxies(), bench.options.soak());
    let title = format!("{length:?} of kept connections, new connections and bursts of 500 connections in turn");
    let starter = bench.starter();
    bench.rounds(&Title::new("soak", "mixed", title), &proxies, 1, |_, contender| {
        let (_fabric, mut rig) = starter.one(&plan, contender)?;
        let sample = soak(&rig, length)?;
        rig.check()?;
        Ok(sample)
    })
}

fn soak(rig: &Rig, length: Duration) -> anyhow::Result<Sample> {
    let start = Instant::now();
    let request = http1::request("GET", "/", HOST, "");
    let url = format!("http://{}/", rig.target());
    let (mut points, mut completed, mut failed) = (Vec::new(), 0, 0);
    while start.elapsed() < length {
        go_on()?;
        let kept = http::load(rig, 64, CYCLE / 2)?;
        let new = wrk::Load { connections: 16, length: CYCLE / 4, new_connections: true };
        let new = wrk::run(&rig.client, &url, new)?;
        drop(rig.client.within(|| idle::open(rig.target(), 500, &request))?);
        completed += kept.completed + new.completed;
        failed += kept.failed + new.failed;
        let memory = rig.memory();
        points.push((start.elapsed().as_secs_f64(), (memory.rss_out + memory.rss_in) as f64 / 1e6));
    }
    let mut sample = Sample::default();
    sample.set("rps", completed as f64 / start.elapsed().as_secs_f64());
    sample.set("failed", failed as f64);
    // The first half is for finding the level.
    sample.set("growth", stats::slope(&points[points.len() / 2..]) * 1e3 * 60.0);
    measure::memory(&mut sample, &rig.memory());
    sample.memory = points;
    Ok(sample)
}
