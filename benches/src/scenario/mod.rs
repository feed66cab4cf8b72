//! The scenarios, and the order in which contenders meet them: every round runs every contender once.

mod bench;
mod bulk;
mod churn;
mod connections;
mod grpc;
mod http;
mod idle;
mod measure;
mod open_loop;
mod scale;
mod soak;

use anyhow::{bail, ensure};

use self::bench::Bench;
use crate::{
    host, html,
    options::MeshOptions,
    progress::Progress,
    result::{Run, table},
    rig::Between,
};

struct Scenario {
    name: &'static str,
    about: &'static str,
    run: fn(&mut Bench<'_>) -> anyhow::Result<()>,
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "http-h2",
        about: "HTTP/1.1 application, HTTP/2 in mTLS between the proxies; 1, 64, 256 connections",
        run: |b| http::run(b, "http-h2", Between::Http2),
    },
    Scenario {
        name: "http-h1",
        about: "HTTP/1.1 application, HTTP/1.1 in mTLS between the proxies; 1, 64, 256 connections",
        run: |b| http::run(b, "http-h1", Between::Http1),
    },
    Scenario { name: "http-full", about: "as http-h2 c64 with RBAC inbound and access logs to files", run: http::full },
    Scenario {
        name: "open-loop",
        about: "fixed rate, latency from the intended moment; 25, 50, 75 % of the slowest contender's capacity",
        run: open_loop::run,
    },
    Scenario { name: "grpc", about: "gRPC calls: unary, and long streams of messages", run: grpc::run },
    Scenario { name: "grpc-one", about: "100 concurrent calls on a single gRPC connection", run: grpc::one },
    Scenario {
        name: "new-conn",
        about: "a connection for every request: the application's, and between proxies mTLS resumed and full",
        run: connections::run,
    },
    Scenario { name: "bulk", about: "download and upload in mTLS, HTTP/2 and TCP", run: bulk::run },
    Scenario { name: "tcp-plain", about: "plaintext TCP relay: bulk and small requests", run: bulk::plain },
    Scenario { name: "idle", about: "memory of a fresh proxy, and of 2000 and 8000 idle connections", run: idle::run },
    Scenario { name: "scale", about: "memory and time to ready with 1, 1000, 5000 services", run: scale::run },
    Scenario {
        name: "churn",
        about: "10000 endpoints, 1000 updates a second over delta ADS: update to use, p99 meanwhile",
        run: churn::run,
    },
    Scenario { name: "soak", about: "mixed load for minutes: memory over time", run: soak::run },
];

/// Runs what was asked for and leaves table, JSON and HTML.
pub(crate) fn run(options: &MeshOptions) -> anyhow::Result<()> {
    if options.scenario.iter().any(|s| s == "list") {
        SCENARIOS.iter().for_each(|s| println!("{:10} {}", s.name, s.about));
        return Ok(());
    }
    if let Some(unknown) = options.scenario.iter().find(|n| SCENARIOS.iter().all(|s| s.name != **n)) {
        bail!("there is no scenario {unknown:?}; `--scenario list` names them");
    }
    ensure!(nix::unistd::geteuid().is_root(), "root is needed for network namespaces");
    bench::end_orderly_on_interrupt()?;
    let progress = Progress::new();
    let mut run = Run { facts: host::facts(), ..Run::default() };
    run.facts.insert("rounds".into(), format!("{} of {:?}", options.rounds(), options.window()));
    run.facts.insert("workers".into(), options.concurrency.to_string());
    if options.quick {
        run.facts.insert("quick".into(), "yes: whether it works, not how fast".into());
    }
    if host::load_average() > 0.5 {
        progress.note(&format!("the machine is not quiet (load {:.1}): ratios will be noisy", host::load_average()));
    }
    let mut bench = Bench::new(options, progress, &mut run);
    let chosen = |s: &&Scenario| options.scenario.is_empty() || options.scenario.iter().any(|n| n == s.name);
    let mut outcome = Ok(());
    for scenario in SCENARIOS.iter().filter(chosen) {
        outcome = (scenario.run)(&mut bench);
        bench.save()?;
        if outcome.is_err() {
            break;
        }
    }
    let progress = bench.finish();
    run.facts.insert("load after".into(), format!("{:.2}", host::load_average()));
    run.save(&options.output)?;
    let page = options.output.join("result.html");
    std::fs::write(&page, html::page(&run, &options.reference))?;
    progress.print(&format!("\n{}", table::summary(&run)));
    progress.note(&format!("{} and result.json beside it", page.display()));
    outcome
}
