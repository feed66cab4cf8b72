//! Memory of doing nothing.

use std::time::Duration;

use anyhow::ensure;

use super::{
    bench::{Bench, Title},
    measure,
};
use crate::{
    account::Memory,
    drive::{http1, idle},
    result::Sample,
    rig::{Between, HOST, Plan, Rig},
};

/// Time for allocators and timers to come to rest.
const SETTLE: Duration = Duration::from_secs(2);
/// Requests before the first look, so that what is made once is made.
const FIRST: usize = 64;

pub(super) fn run(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let plan = Plan::http(Between::Http2);
    let proxies = bench.proxies();
    let rounds = bench.options.rounds().min(3);
    for count in [0, bench.options.size(2000, 200), bench.options.size(8000, 500)] {
        let title = match count {
            0 => "a fresh proxy after its first request".to_owned(),
            n => format!("{n} idle HTTP/1.1 connections of one answered request each, HTTP/2 in mTLS between"),
        };
        // Rigs of their own for every measurement: memory has a history.
        let starter = bench.starter();
        bench.rounds(&Title::new("idle", count.to_string(), title), &proxies, rounds, |_, contender| {
            let (_fabric, mut rig) = starter.one(&plan, contender)?;
            let sample = connections(&rig, count)?;
            rig.check()?;
            Ok(sample)
        })?;
    }
    Ok(())
}

fn connections(rig: &Rig, count: usize) -> anyhow::Result<Sample> {
    let request = http1::request("GET", "/", HOST, "");
    let mut sample = Sample::default();
    if count == 0 {
        std::thread::sleep(SETTLE);
        measure::memory(&mut sample, &rig.memory());
        return Ok(sample);
    }
    let open = |count| rig.client.within(|| idle::open(rig.target(), count, &request));
    drop(open(FIRST)?);
    std::thread::sleep(SETTLE);
    let before = rig.memory();
    let streams = open(count)?;
    std::thread::sleep(SETTLE);
    let during = rig.memory();
    let closed = idle::closed(&streams);
    ensure!(closed == 0, "{closed} of {count} idle connections were closed by the proxy");
    drop(streams);
    std::thread::sleep(SETTLE);
    let after = rig.memory();
    let each = |of: fn(&Memory) -> u64| (of(&during) as f64 - of(&before) as f64) / 1e3 / count as f64;
    measure::memory(&mut sample, &during);
    sample.set("kb_conn_out", each(|m| m.rss_out));
    sample.set("kb_conn_in", each(|m| m.rss_in));
    sample.set("rss_closed_out", after.rss_out as f64 / 1e6);
    Ok(sample)
}
