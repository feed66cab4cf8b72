//! One of three replicas fails, in one way after another: what clients notice, and what it means for the other two.
//!
//! Every measurement has a mesh of its own, since ejections are remembered, and three phases on one schedule: before, the
//! failure, and after it.

use std::{rc::Rc, sync::mpsc, time::Duration};

use anyhow::ensure;
use serde_json::json;

use super::bench::{Bench, Title};
use crate::{
    drive::{
        self,
        faulty::Mood,
        http1,
        open_loop::{self, Outcome},
    },
    result::Sample,
    rig::{Between, Contender, Extra, HOST, Kind, Origin, Plan, Replica, Rig},
};

/// What is sent from the client's Pod.
const CONNECTIONS: usize = 256;
/// Milliseconds that an answer takes, and that one takes in the slow replica.
const TAKES: (u16, u16) = (30, 300);
/// Before, during, after; in windows.
const PHASES: [u32; 3] = [1, 2, 3];
/// Most rounds.
pub(super) const ROUNDS: u32 = 3;

/// What happens to the first replica.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// SIGKILL for the proxy and the application.
    Killed,
    /// The application only: its proxy says so.
    ApplicationKilled,
    /// Packets to it vanish.
    BlackHole,
    Mood(Mood),
}

const FAULTS: &[(&str, &str, Fault)] = &[
    ("killed", "the Pod's processes are killed (SIGKILL)", Fault::Killed),
    ("app-killed", "the application is gone, its sidecar answers 503", Fault::ApplicationKilled),
    ("black-hole", "packets to the Pod vanish", Fault::BlackHole),
    ("slow", "answers take ten times as long", Fault::Mood(Mood::Slow)),
    ("503", "answers are 503, at once", Fault::Mood(Mood::Unavailable)),
    ("reset", "the connection is reset in the middle of the body", Fault::Mood(Mood::Breaks)),
];

/// Number of cases.
pub(super) const CASES: f64 = FAULTS.len() as f64;
/// Length of a measurement in windows.
pub(super) const WINDOWS: u32 = PHASES[0] + PHASES[1] + PHASES[2];

impl Fault {
    fn strike(self, replica: &mut Replica) -> anyhow::Result<()> {
        match self {
            Self::Killed => replica.kill(),
            Self::ApplicationKilled => replica.kill_application(),
            Self::BlackHole => replica.black_hole(true)?,
            Self::Mood(mood) => replica.controls()?.set(mood),
        }
        Ok(())
    }

    fn heal(self, replica: &mut Replica) -> anyhow::Result<()> {
        match self {
            Self::Killed | Self::ApplicationKilled => replica.revive(),
            Self::BlackHole => replica.black_hole(false),
            Self::Mood(_) => {
                replica.controls()?.set(Mood::Well);
                Ok(())
            }
        }
    }
}

/// Those with Envoy's configuration.
pub(super) fn contenders(bench: &Bench<'_>) -> Vec<Contender> {
    bench.proxies().into_iter().filter(|c| c.kind() != Kind::Haproxy).collect()
}

/// What our control plane makes of a VirtualService with retries and timeouts and of a DestinationRule with outlier
/// detection; ejections are as short as a bench needs them.
pub(super) fn policy() -> Extra {
    let cluster = json!({
        "connect_timeout": "1s",
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "outlier_detection": {
            "consecutive_5xx": 5,
            "enforcing_consecutive_5xx": 100,
            "enforcing_success_rate": 0,
            "interval": "1s",
            "base_ejection_time": "2s",
            "max_ejection_percent": 50,
        },
    });
    let action = json!({
        "timeout": "3s",
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,unavailable,cancelled,reset,retriable-status-codes",
            "num_retries": 2,
            "per_try_timeout": "0.5s",
            "retriable_status_codes": [503],
            "retry_host_predicate": [{
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
            }],
            "host_selection_retry_max_attempts": 5,
        },
    });
    Extra { cluster, action, ..Extra::default() }
}

pub(super) fn run(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let plan =
        Plan { origin: Origin::Faulty(TAKES.0, TAKES.1), replicas: 3, extra: policy(), ..Plan::http(Between::Http2) };
    let contenders = contenders(bench);
    let (rounds, window) = (bench.options.rounds().min(ROUNDS), bench.options.window());
    let rate = bench.options.size(1600, 200) as f64;
    let starter = bench.starter();
    for (name, what, fault) in FAULTS {
        let title = format!("one replica of three: {what}; {rate} requests/s of {} ms", TAKES.0);
        bench.rounds(&Title::new("failures", *name, title), &contenders, rounds, |_, contender| {
            let (_fabric, mut rig) = starter.one(&plan, contender)?;
            let sample = measure(&mut rig, *fault, rate, window)?;
            rig.check()?;
            Ok(sample)
        })?;
    }
    Ok(())
}

/// Runs the schedule; another thread does what happens meanwhile, and reads the counters as each phase begins.
fn measure(rig: &mut Rig, fault: Fault, rate: f64, window: Duration) -> anyhow::Result<Sample> {
    let phases = PHASES.map(|windows| window * windows);
    let cuts = [phases[0], phases[0] + phases[1]];
    let to = rig.target();
    let load = open_loop::Load { to, rate, connections: CONNECTIONS, length: phases.iter().sum() };
    let applications = rig.replicas[1..].iter().map(Replica::controls).collect::<Result<Vec<_>, _>>()?;
    let others = || applications.iter().map(|a| a.requests()).sum::<u64>() as f64;
    let (client, first) = (&rig.client, &mut rig.replicas[0]);
    let (outcomes, counts) = std::thread::scope(|scope| {
        let (enter, entered) = mpsc::channel();
        let conductor = scope.spawn(move || {
            let mut counts = Vec::new();
            while let Ok(phase) = entered.recv() {
                counts.push(others());
                match phase {
                    1 => fault.strike(first)?,
                    2 => fault.heal(first)?,
                    _ => {}
                }
            }
            Ok::<_, anyhow::Error>(counts)
        });
        let outcomes = client.within(move || {
            drive::block_on(open_loop::run_phases(load, request(), &cuts, |phase| {
                let _ = enter.send(phase);
            }))
        });
        let counts = conductor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok::<_, anyhow::Error>((outcomes?, counts?))
    })?;
    ensure!(outcomes.len() == 3 && counts.len() == 4, "the schedule was not kept");
    let mut sample = Sample::default();
    let keys = [
        ["before_ok", "before_p50", "before_p99", "before_others"],
        ["fault_ok", "fault_p50", "fault_p99", "fault_others"],
        ["after_ok", "after_p50", "after_p99", "after_others"],
    ];
    for (phase, [ok, p50, p99, load]) in keys.into_iter().enumerate() {
        let outcome = &outcomes[phase];
        sample.set(ok, success(outcome));
        sample.set(p50, outcome.latency.value_at_quantile(0.5) as f64 / 1e3);
        sample.set(p99, outcome.latency.value_at_quantile(0.99) as f64 / 1e3);
        sample.set(load, (counts[phase + 1] - counts[phase]) / phases[phase].as_secs_f64());
    }
    sample.set("lost", outcomes[1..].iter().map(|o| o.failed as f64).sum());
    sample.set("failed", outcomes.iter().map(|o| o.failed as f64).sum());
    Ok(sample)
}

pub(super) fn request() -> Rc<[u8]> {
    Rc::from(http1::request("GET", "/", HOST, ""))
}

/// Per cent of the requests that were answered well.
pub(super) fn success(outcome: &Outcome) -> f64 {
    100.0 * outcome.completed as f64 / (outcome.completed + outcome.failed).max(1) as f64
}
