//! Runs a group: one bootstrap file, on Envoy and then on our proxy, all cases at once; then compares.
//!
//! `OUTRIGGER_DIFFERENTIAL_CASE=TEXT` runs only the cases whose names contain it, `OUTRIGGER_DIFFERENTIAL=envoy` shows
//! what Envoy does without comparing, `=self` compares Envoy with itself.

use std::{fmt::Write, path::Path, process::Command};

use outrigger_tests::{Kind, Process, eventually};

use super::{
    bootstrap::{bootstrap, fragments},
    case::{Case, Group},
    compare::{compare, differing},
    explained::{self, Agreement},
    observe::Observation,
    stage::Stage,
};

fn asked(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

/// Runs the group and fails with everything that differs.
pub(crate) fn run(group: Group) {
    let wanted = asked("OUTRIGGER_DIFFERENTIAL_CASE").unwrap_or_default();
    let cases: Vec<Case> = group.cases.into_iter().filter(|c| c.name.contains(&wanted)).collect();
    if cases.is_empty() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut stage = runtime.block_on(async { Stage::build(cases, dir.path()) });
    let mode = asked("OUTRIGGER_DIFFERENTIAL").unwrap_or_default();
    let mut failures = Vec::new();
    if mode.is_empty() {
        failures.extend(stage.refused(|text| accepts(Kind::Outrigger, dir.path(), text).err()));
    }
    let envoy = side(&runtime, &stage, Kind::Envoy, dir.path());
    match mode.as_str() {
        "envoy" => {
            for (case, seen) in stage.cases().zip(&envoy) {
                eprintln!("=== {}\n{}", case.name, show(seen));
            }
            return;
        }
        "self" => {
            let again = side(&runtime, &stage, Kind::Envoy, dir.path());
            for (case, (one, two)) in stage.cases().zip(envoy.iter().zip(&again)) {
                let apart = differing(case, one, two).join("\n");
                failures.extend((!apart.is_empty()).then(|| format!("=== {} differs from itself\n{apart}", case.name)));
            }
        }
        _ => judge(&stage, dir.path(), &envoy, &side(&runtime, &stage, Kind::Outrigger, dir.path()), &mut failures),
    }
    assert!(failures.is_empty(), "{}: {} cases differ\n{}", group.name, failures.len(), failures.join("\n"));
}

fn judge(stage: &Stage, dir: &Path, envoy: &[Observation], ours: &[Observation], failures: &mut Vec<String>) {
    for ((case, ports), (envoy, ours)) in stage.parts().zip(envoy.iter().zip(ours)) {
        if let Err(apart) = compare(case, envoy, ours) {
            let (listener, clusters) = fragments(case, ports, dir);
            let (envoy, ours) = (show(envoy), show(ours));
            failures.push(format!(
                "=== {} differs (-Envoy +ours)\n{apart}\n--- Envoy\n{envoy}--- ours\n{ours}--- configuration\n{listener}{clusters}",
                case.name
            ));
        }
    }
}

fn show(observation: &Observation) -> String {
    let mut text = observation.lines.join("\n") + "\n";
    for shares in &observation.shares {
        let _ = writeln!(text, "{shares:?}");
    }
    text
}

/// Whether a proxy takes the file, else what it says.
fn accepts(kind: Kind, dir: &Path, text: &str) -> Result<(), String> {
    let file = dir.join("validate.yaml");
    std::fs::write(&file, text).expect("own folder");
    let output = Command::new(kind.program()).arg("-c").arg(&file).args(["--mode", "validate"]).output();
    let output = output.expect("the proxy can be run");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// Has our proxy explain every request of a group before it gets it.
pub(crate) fn explained(group: Group) -> Agreement {
    let wanted = asked("OUTRIGGER_DIFFERENTIAL_CASE").unwrap_or_default();
    let cases: Vec<Case> = group.cases.into_iter().filter(|c| c.name.contains(&wanted)).collect();
    if cases.is_empty() {
        return Agreement::default();
    }
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let stage = runtime.block_on(async { Stage::administrated(cases, dir.path(), true) });
    let mut process = start(&runtime, &stage, Kind::Outrigger, dir.path());
    let agreement = runtime.block_on(explained::check(&stage));
    assert!(process.is_running(), "it ended:\n{}", process.output());
    process.stop();
    assert!(!process.output().contains("panicked"), "{}", process.output());
    agreement
}

/// Runs all scripts against one proxy.
fn side(runtime: &tokio::runtime::Runtime, stage: &Stage, kind: Kind, dir: &Path) -> Vec<Observation> {
    let log = dir.join("access.log");
    let _ = std::fs::remove_file(&log);
    let mut process = start(runtime, stage, kind, dir);
    let mut observations = runtime.block_on(stage.play());
    assert!(process.is_running(), "{kind:?} ended:\n{}", process.output());
    process.stop();
    assert!(!process.output().contains("panicked"), "{}", process.output());
    let log = std::fs::read_to_string(&log).unwrap_or_default();
    stage.add_logs(&log, &mut observations);
    runtime.block_on(stage.settle_and_restart());
    observations
}

/// Starts a proxy and waits until it serves.
fn start(runtime: &tokio::runtime::Runtime, stage: &Stage, kind: Kind, dir: &Path) -> Process {
    let file = dir.join("bootstrap.yaml");
    std::fs::write(&file, bootstrap(&stage.parts().collect::<Vec<_>>(), stage.ready_port(), stage.admin(), dir))
        .expect("own folder");
    let mut command = Command::new(kind.program());
    command.arg("-c").arg(&file).args(["--disable-hot-restart", "--concurrency", "1", "-l", "warning"]);
    // No endpoint has to learn that this proxy goes.
    command.env("OUTRIGGER_MIN_DRAIN_TIME_S", "0");
    let mut process = Process::spawn(&format!("{kind:?}"), command, dir);
    eventually(&format!("readiness of {kind:?}"), || {
        assert!(process.is_running(), "{kind:?} ended:\n{}", process.output());
        runtime.block_on(stage.ready()).then_some(()).ok_or_else(|| process.output())
    });
    process
}
