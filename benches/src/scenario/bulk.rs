//! Many bytes in one direction, and the plaintext relay.

use super::{
    bench::{Bench, Title},
    http, measure,
};
use crate::{
    drive::{
        self,
        bulk::{Direction, Load},
    },
    result::Sample,
    rig::{Between, HOST, Origin, Plan, Rig},
};

const STREAMS: usize = 4;

pub(super) fn run(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    for (wire, between) in [("h2", Between::Http2), ("tcp", Between::TcpTls)] {
        both_ways(bench, "bulk", wire, between)?;
    }
    Ok(())
}

/// Without TLS: what a splice can do.
pub(super) fn plain(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    both_ways(bench, "tcp-plain", "tcp", Between::Tcp)?;
    let mut rigs = bench.rigs(&Plan::http(Between::Tcp), &bench.contenders())?;
    http::warm_up(bench, &mut rigs, |rig, length| http::load(rig, 64, length))?;
    let window = bench.options.window();
    let title = "small requests through a plaintext TCP relay on both sides, 64 connections";
    bench.case(&Title::new("tcp-plain", "c64", title), &mut rigs, |rig| {
        measure::requests(rig, |rig| http::load(rig, 64, window))
    })
}

fn both_ways(bench: &mut Bench<'_>, scenario: &'static str, wire: &str, between: Between) -> anyhow::Result<()> {
    let plan = Plan { origin: Origin::Bulk, ..Plan::http(between) };
    let mut rigs = bench.rigs(&plan, &bench.contenders())?;
    let window = bench.options.window();
    for (way, direction) in [("down", Direction::Down), ("up", Direction::Up)] {
        let what = match between {
            Between::Http1 => "HTTP/1.1 in mTLS",
            Between::Http2 => "HTTP/2 in mTLS",
            Between::TcpTls => "TCP in mTLS",
            Between::Tcp => "plaintext TCP",
        };
        http::warm_up(bench, &mut rigs, |rig, length| {
            let load = Load { to: rig.target(), direction, streams: STREAMS, length };
            rig.client.within(|| drive::block_on(drive::bulk::run(load, HOST)))
        })?;
        let load = if direction == Direction::Down { "downloads" } else { "uploads" };
        let title = format!("{STREAMS} {load} at a time, {what} between");
        bench.case(&Title::new(scenario, format!("{wire}-{way}"), title), &mut rigs, |rig| {
            bytes(rig, Load { to: rig.target(), direction, streams: STREAMS, length: window })
        })?;
    }
    Ok(())
}

fn bytes(rig: &Rig, load: Load) -> anyhow::Result<Sample> {
    let proxies = rig.proxies();
    let before = proxies.usage();
    let (bytes, took) = rig.client.within(|| drive::block_on(drive::bulk::run(load, HOST)))?;
    let used = proxies.usage().since(&before);
    let mut sample = Sample::default();
    let gigabytes = bytes as f64 / 1e9;
    sample.set("mb_s", bytes as f64 / 1e6 / took.as_secs_f64());
    if !proxies.is_empty() {
        let user = used.out.user() + used.into.user();
        sample.set("cpu_gb", used.cpu() / gigabytes);
        sample.set("cpu_gb_user", user / gigabytes);
        sample.set("cpu_gb_sys", (used.cpu() - user) / gigabytes);
        sample.set("cpu_gb_out", used.out.cpu() / gigabytes);
        sample.set("cpu_gb_in", used.into.cpu() / gigabytes);
        measure::memory(&mut sample, &rig.memory());
    }
    Ok(sample)
}
