//! The same rate for everyone, and what a request waits at that rate.

use std::rc::Rc;

use super::{
    bench::{Bench, Title},
    http, measure,
};
use crate::{
    drive::{self, http1, open_loop},
    load::{Seen, curve},
    rig::{Between, HOST, Plan},
};

const CONNECTIONS: usize = 64;
/// Length of a measurement, in windows of the closed loops.
pub(super) const LONGER: u32 = 2;
/// Most rounds.
pub(super) const ROUNDS: u32 = 3;

pub(super) fn run(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let plan = Plan::http(Between::Http2);
    let mut rigs = bench.rigs(&plan, &bench.contenders())?;
    http::warm_up(bench, &mut rigs, |rig, length| http::load(rig, CONNECTIONS, length))?;
    let mut slowest: Option<(f64, String)> = None;
    for slot in &rigs.slots {
        let Ok(rig) = &slot.rig else { continue };
        bench.step(&format!("open-loop: capacity of {}", slot.contender));
        let Ok(seen) = http::load(rig, CONNECTIONS, bench.options.window()) else { continue };
        let rate = seen.completed as f64 / seen.took.as_secs_f64();
        if slowest.as_ref().is_none_or(|(least, _)| rate < *least) {
            slowest = Some((rate, slot.contender.to_string()));
        }
    }
    let Some((capacity, slowest)) = slowest else { anyhow::bail!("open-loop: nobody answers") };
    // Longer than a closed loop: at a quarter of the rate the high percentiles need the requests.
    let window = bench.options.window() * LONGER;
    for percent in [25, 50, 75] {
        let rate = (capacity * f64::from(percent) / 100.0).round();
        let title = format!("{rate} requests/s, {percent} % of the capacity of {slowest}, {CONNECTIONS} connections");
        let title = Title::new("open-loop", format!("{percent}%"), title);
        bench.case_of(&title, &mut rigs, bench.options.rounds().min(ROUNDS), |rig| {
            let load = open_loop::Load { to: rig.target(), rate, connections: CONNECTIONS, length: window };
            let mut lateness = 0;
            let mut sample = measure::requests(rig, |rig| {
                let request = http1::request("GET", "/", HOST, "");
                let outcome = rig.client.within(|| drive::block_on(open_loop::run(load, Rc::from(request))))?;
                lateness = outcome.lateness.value_at_quantile(0.99);
                let (completed, failed) = (outcome.completed, outcome.failed);
                Ok(Seen { completed, failed, took: window, curve: curve(&outcome.latency) })
            })?;
            sample.set("rate", rate);
            sample.set("lateness", lateness as f64 / 1000.0);
            Ok(sample)
        })?;
    }
    bench.keep(plan, rigs);
    Ok(())
}
