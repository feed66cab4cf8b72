//! Small requests on kept connections, as fast as they are answered.

use std::time::Duration;

use super::{
    bench::{Bench, Rigs, Title},
    measure,
};
use crate::{
    load::{Seen, wrk},
    result::Sample,
    rig::{Between, Features, Plan, Rig},
};

/// Load under strace, which slows down what it looks at.
const TRACED: Duration = Duration::from_secs(1);

pub(super) fn run(bench: &mut Bench<'_>, name: &'static str, between: Between) -> anyhow::Result<()> {
    let plan = Plan::http(between);
    let mut rigs = bench.rigs(&plan, &bench.contenders())?;
    warm_up(bench, &mut rigs, |rig, length| load(rig, 16, length))?;
    let wire = if between == Between::Http2 { "HTTP/2" } else { "HTTP/1.1" };
    for connections in [1, 64, 256] {
        let title = format!("HTTP/1.1 application, {wire} in mTLS between, {connections} connections");
        closed_loop(bench, &Title::new(name, format!("c{connections}"), title), &mut rigs, connections)?;
    }
    if between == Between::Http2 {
        for connections in [1, 64] {
            let title = format!("system calls under strace, {connections} connections");
            let title = Title::new(name, format!("calls-c{connections}"), title);
            // They come out alike every time.
            bench.case_of(&title, &mut rigs, 1, |rig| {
                let mut sample = Sample::default();
                measure::system_calls(&mut sample, rig, |rig| load(rig, connections, TRACED))?;
                Ok(sample)
            })?;
        }
    }
    bench.keep(plan, rigs);
    Ok(())
}

/// With a line for every request on both sides.
pub(super) fn logged(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let plan = Plan { features: Features::AccessLog, ..Plan::http(Between::Http2) };
    let mut rigs = bench.rigs(&plan, &bench.contenders())?;
    warm_up(bench, &mut rigs, |rig, length| load(rig, 16, length))?;
    let title = "HTTP/2 in mTLS between, access logs to files on both sides, 64 connections";
    closed_loop(bench, &Title::new("http-logs", "c64", title), &mut rigs, 64)
}

fn closed_loop(bench: &mut Bench<'_>, title: &Title, rigs: &mut Rigs, connections: usize) -> anyhow::Result<()> {
    let (window, syscalls) = (bench.options.window(), bench.options.syscalls);
    bench.case(title, rigs, |rig| {
        let mut sample = measure::requests(rig, |rig| load(rig, connections, window))?;
        if syscalls {
            measure::system_calls(&mut sample, rig, |rig| load(rig, connections, TRACED))?;
        }
        Ok(sample)
    })
}

/// wrk on kept connections.
pub(super) fn load(rig: &Rig, connections: usize, length: Duration) -> anyhow::Result<Seen> {
    let url = format!("http://{}/", rig.target());
    wrk::run(&rig.client, &url, wrk::Load { connections, length, new_connections: false })
}

/// Lets every contender fill its pools and caches; a failure shows in the rounds.
pub(super) fn warm_up<T>(
    bench: &Bench<'_>,
    rigs: &mut Rigs,
    load: impl Fn(&Rig, Duration) -> anyhow::Result<T>,
) -> anyhow::Result<()> {
    if rigs.warm {
        return Ok(());
    }
    for slot in &rigs.slots {
        super::bench::go_on()?;
        if let Ok(rig) = &slot.rig {
            bench.step(&format!("warming up {}", slot.contender));
            if let Err(error) = load(rig, bench.options.warm_up()) {
                bench.note(&format!("{}: {error:#}", slot.contender));
            }
        }
    }
    Ok(())
}
