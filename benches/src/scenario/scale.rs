//! Configuration size: services that are known and not used.

use std::{cell::RefCell, collections::HashMap, time::Duration};

use super::{
    bench::{Bench, Title},
    measure,
};
use crate::{
    result::Sample,
    rig::{Between, Plan},
};

/// Time after the first request until memory is read.
const SETTLE: Duration = Duration::from_secs(1);

pub(super) fn run(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let proxies = bench.proxies();
    let rounds = bench.options.rounds().min(3);
    // Memory with one service, by contender, to subtract.
    let bases: RefCell<HashMap<String, f64>> = RefCell::default();
    for services in [1, bench.options.size(1000, 100), bench.options.size(5000, 500)] {
        let plan = Plan { services, ..Plan::http(Between::Http2) };
        let title = format!("{services} services with 4 endpoints and 6 names each in the outbound proxy's file");
        let starter = bench.starter();
        bench.rounds(&Title::new("scale", services.to_string(), title), &proxies, rounds, |_, contender| {
            let (_fabric, mut rig) = starter.one(&plan, contender)?;
            std::thread::sleep(SETTLE);
            let mut sample = Sample::default();
            measure::memory(&mut sample, &rig.memory());
            sample.set("ready_ms", rig.ready_after.as_secs_f64() * 1e3);
            let rss = sample.figures["rss_out"];
            let mut bases = bases.borrow_mut();
            if services == 1 {
                let base = bases.entry(contender.to_string()).or_insert(rss);
                *base = base.min(rss);
            } else if let Some(base) = bases.get(&contender.to_string()) {
                sample.set("kb_service", (rss - base) * 1e3 / (services - 1) as f64);
            }
            rig.check()?;
            Ok(sample)
        })?;
    }
    Ok(())
}
