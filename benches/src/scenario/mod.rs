//! The scenarios, and the order in which contenders meet them: every round runs every contender once.

mod bench;
mod binary;
mod bulk;
mod churn;
mod connections;
mod estimate;
mod failures;
mod grpc;
mod hops;
mod http;
mod idle;
mod measure;
mod observability;
mod open_loop;
mod policy;
mod scale;
mod slow_replica;
mod soak;

use anyhow::{bail, ensure};

use self::{bench::Bench, estimate::Work};
use crate::{
    host, html, interrupt,
    options::MeshOptions,
    progress::Progress,
    result::{Run, table},
    rig::Between,
};

struct Scenario {
    name: &'static str,
    about: &'static str,
    run: fn(&mut Bench<'_>) -> anyhow::Result<()>,
    /// Seconds it is expected to take.
    cost: fn(&Work) -> f64,
    /// It only runs when it is asked for.
    by_name: bool,
}

const fn scenario(
    name: &'static str,
    about: &'static str,
    run: fn(&mut Bench<'_>) -> anyhow::Result<()>,
    cost: fn(&Work) -> f64,
) -> Scenario {
    Scenario { name, about, run, cost, by_name: false }
}

const fn by_name(scenario: Scenario) -> Scenario {
    Scenario { by_name: true, ..scenario }
}

/// Neighbours with the same plan share their rigs.
const SCENARIOS: &[Scenario] = &[
    scenario("binary", "size of the programs without symbols", binary::run, |w| w.proxies),
    scenario(
        "http-h2",
        "HTTP/1.1 application, HTTP/2 in mTLS between the proxies; 1, 64, 256 connections; system calls",
        |b| http::run(b, "http-h2", Between::Http2),
        |w| w.rigs(1.0, 1.0) + w.cases(3.0) + w.traces(2.0),
    ),
    scenario(
        "open-loop",
        "fixed rate, latency from the intended moment; 25, 50, 75 % of the slowest contender's capacity",
        open_loop::run,
        Work::open_loop,
    ),
    scenario(
        "http-h1",
        "HTTP/1.1 application, HTTP/1.1 in mTLS between the proxies; 1, 64, 256 connections",
        |b| http::run(b, "http-h1", Between::Http1),
        |w| w.rigs(1.0, 1.0) + w.cases(3.0),
    ),
    scenario("http-logs", "as http-h2 c64 with access logs to files on both sides", http::logged, |w| {
        w.rigs(1.0, 1.0) + w.cases(1.0)
    }),
    scenario("grpc", "gRPC calls: unary, and long streams of messages", grpc::run, |w| w.rigs(1.0, 1.0) + w.cases(2.0)),
    scenario("grpc-one", "100 concurrent calls on a single gRPC connection", grpc::one, |w| w.cases(1.0)),
    scenario(
        "new-conn",
        "a connection for every request: the application's, and between proxies mTLS resumed and full",
        connections::run,
        |w| w.rigs(4.0, 4.0) + w.cases(4.0),
    ),
    scenario("bulk", "download and upload in mTLS, HTTP/2 and TCP", bulk::run, |w| w.rigs(2.0, 4.0) + w.cases(4.0)),
    scenario("tcp-plain", "plaintext TCP relay: bulk and small requests", bulk::plain, |w| {
        w.rigs(2.0, 3.0) + w.cases(3.0)
    }),
    scenario("idle", "memory of a fresh proxy, and of 2000 and 8000 idle connections", idle::run, Work::idle),
    scenario("scale", "memory and time to ready with 1, 1000, 5000 services", scale::run, Work::scale),
    scenario(
        "churn",
        "10000 endpoints, 1000 updates a second over delta ADS: update to use, p99 meanwhile",
        churn::run,
        Work::churn,
    ),
    scenario("soak", "mixed load for minutes: memory over time", soak::run, Work::soak),
    by_name(scenario(
        "slow-replica",
        "one replica of four is slow: p50, p99 and its share with each balancer",
        slow_replica::run,
        Work::slow_replica,
    )),
    by_name(scenario(
        "failures",
        "one replica of three is killed, black-holed, slow, answers 503, resets: success, p99, load on the others",
        failures::run,
        Work::failures,
    )),
    by_name(scenario(
        "hops",
        "three proxies with retries in a row before a service that fails: the load multiplied",
        hops::run,
        Work::hops,
    )),
    by_name(scenario(
        "policy",
        "CPU and p50 that authorization and rate limits add at the inbound proxy",
        policy::run,
        Work::policy,
    )),
    by_name(scenario(
        "observability",
        "CPU and latency that metrics, JSON access logs and 1 % tracing over OTLP add on both sides",
        observability::run,
        Work::observability,
    )),
];

/// Runs what was asked for and leaves table, JSON and HTML.
pub(crate) fn run(options: &MeshOptions) -> anyhow::Result<()> {
    if options.scenario.iter().any(|s| s == "list") {
        let note = |s: &Scenario| if s.by_name { " (only by name)" } else { "" };
        SCENARIOS.iter().for_each(|s| println!("{:12} {}{}", s.name, s.about, note(s)));
        return Ok(());
    }
    if let Some(unknown) = options.scenario.iter().find(|n| SCENARIOS.iter().all(|s| s.name != **n)) {
        bail!("there is no scenario {unknown:?}; `--scenario list` names them");
    }
    ensure!(nix::unistd::geteuid().is_root(), "root is needed for network namespaces");
    interrupt::end_orderly()?;
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
    let named = |s: &Scenario| options.scenario.iter().any(|n| n == s.name);
    let chosen = |s: &&Scenario| if options.scenario.is_empty() { !s.by_name } else { named(s) };
    let mut outcome = Ok(());
    let work = Work::of(options, bench.contenders().len(), bench.proxies().len());
    let parts: Vec<f64> = SCENARIOS.iter().filter(chosen).map(|scenario| (scenario.cost)(&work)).collect();
    let plural = if parts.len() == 1 { "" } else { "s" };
    bench.note(&format!("about {} for {} scenario{plural}", estimate::spoken(parts.iter().sum()), parts.len()));
    bench.expect(parts);
    for scenario in SCENARIOS.iter().filter(chosen) {
        bench.begin();
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
