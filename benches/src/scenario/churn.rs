//! Endpoint updates at a high rate: how soon one is used, and what the others cost the requests.

use std::{rc::Rc, time::Duration};

use anyhow::ensure;

use super::bench::{Bench, Title};
use crate::{
    drive::{
        self,
        ads::Ads,
        churn::{self, Flip},
        http1, open_loop,
    },
    result::Sample,
    rig::{APP_PORT, Between, HOST, Kind, OTHER_PORT, PROBE, Plan, Rig, Via, XDS_PORT, assignment, service_name},
};

const ENDPOINTS_EACH: usize = 10;
const UPDATES: f64 = 1000.0;
/// Requests a second: little, because it is the proxy's waiting that is of interest and not its work.
const REQUESTS: f64 = 1000.0;

pub(super) fn run(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let clusters = bench.options.size(1000, 100);
    let plan = Plan { services: clusters, via: Via::Xds, ..Plan::http(Between::Http1) };
    let proxies: Vec<_> = bench.proxies();
    let window = bench.options.window();
    let flips = bench.options.size(100, 20);
    let title = format!(
        "{} endpoints in {clusters} clusters over delta ADS, {UPDATES} updates/s, {REQUESTS} requests/s, plaintext",
        clusters * ENDPOINTS_EACH
    );
    let starter = bench.starter();
    bench.rounds(&Title::new("churn", "updates", title), &proxies, bench.options.rounds(), |_, contender| {
        ensure!(contender.kind() != Kind::Haproxy, "HAProxy takes no xDS");
        let (_fabric, mut rig) = starter.one(&plan, contender)?;
        let sample = measure(&rig, clusters, flips, window)?;
        rig.check()?;
        Ok(sample)
    })
}

fn measure(rig: &Rig, clusters: usize, flips: usize, window: Duration) -> anyhow::Result<Sample> {
    let ads = Ads::start(rig.client.within(|| std::net::TcpListener::bind(("127.0.0.1", XDS_PORT)))?)?;
    let server = rig.server().ip4.to_string();
    let app = |port| assignment(PROBE, [(server.clone(), port)]);
    ads.put(&app(APP_PORT));
    (0..clusters).for_each(|n| ads.put(&change(n, 0)));
    let request: Vec<u8> = http1::request("GET", "/", HOST, "");
    rig.answered(&request)?;
    let load = open_loop::Load { to: rig.target(), rate: REQUESTS, connections: 16, length: window };
    let requests = |busy: bool| {
        rig.client.within(|| {
            drive::block_on(async {
                let load = open_loop::run(load, Rc::from(request.as_slice()));
                if !busy {
                    return load.await;
                }
                tokio::select! {
                    biased;
                    outcome = load => outcome,
                    ended = churn::updates(&ads, UPDATES, |n| updated(n, clusters)) => {
                        Err(ended.err().unwrap_or_else(|| anyhow::anyhow!("the updates ended")))
                    }
                }
            })
        })
    };
    requests(true)?;
    let calm_start = rig.proxies().usage();
    let calm = requests(false)?;
    let (busy_start, acknowledged) = (rig.proxies().usage(), ads.acknowledged());
    let busy = requests(true)?;
    let acknowledged = ads.acknowledged() - acknowledged;
    let busy_end = rig.proxies().usage();
    ensure!(ads.refused().is_none(), "an update was refused: {:?}", ads.refused());
    let failed = calm.failed + busy.failed;
    let mut sample = Sample::default();
    let p99 = |outcome: &open_loop::Outcome| outcome.latency.value_at_quantile(0.99) as f64 / 1e3;
    sample.set("p99_calm", p99(&calm));
    sample.set("p99_churn", p99(&busy));
    sample.set("p99_factor", p99(&busy) / p99(&calm));
    let extra = busy_end.since(&busy_start).cpu() - busy_start.since(&calm_start).cpu();
    sample.set("cpu_update", extra * 1e6 / (UPDATES * window.as_secs_f64()));
    sample.set("acknowledged", acknowledged as f64 / window.as_secs_f64());
    sample.set("failed", failed as f64);
    let flip = Flip { sides: [(b'a', app(APP_PORT)), (b'b', app(OTHER_PORT))], times: flips };
    let used = rig.client.within(|| {
        drive::block_on(async {
            tokio::select! {
                biased;
                used = churn::flips(&ads, rig.target(), Rc::from(request.as_slice()), &flip) => used,
                ended = churn::updates(&ads, UPDATES, |n| updated(n, clusters)) => {
                    Err(ended.err().unwrap_or_else(|| anyhow::anyhow!("the updates ended")))
                }
            }
        })
    })?;
    for (key, quantile) in [("use_p50", 0.5), ("use_p99", 0.99), ("use_max", 1.0)] {
        sample.set(key, used.value_at_quantile(quantile) as f64 / 1e3);
    }
    Ok(sample)
}

/// The n-th update: the next cluster's last endpoint moves.
fn updated(n: u64, clusters: usize) -> outrigger_wire::pb::envoy::config::endpoint::v3::ClusterLoadAssignment {
    let clusters = clusters as u64;
    change((n % clusters) as usize, (n / clusters) % 200 + 1)
}

fn change(cluster: usize, state: u64) -> outrigger_wire::pb::envoy::config::endpoint::v3::ClusterLoadAssignment {
    let endpoints = (0..ENDPOINTS_EACH).map(|n| {
        let last = n + 1 == ENDPOINTS_EACH;
        let port = if last { 10_000 + state as u16 } else { APP_PORT };
        (format!("10.{}.{}.{}", 100 + cluster / 250, cluster % 250, n + 1), port)
    });
    assignment(&service_name(cluster), endpoints)
}
