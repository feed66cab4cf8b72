//! Innocent traffic beside an attack.

use std::path::PathBuf;

use outrigger_tests::{Pair, Process, mesh::bin};

/// Requests of the client, without a pause, from start to end: on kept connections and on new ones.
pub(crate) struct Bystander {
    loads: Vec<Process>,
    stop: PathBuf,
    _application: Process,
}

/// The ports that attacks and bystanders share.
pub(crate) const PORTS: &[(&str, u16, u16)] = &[("http", 80, 9080), ("tcp", 7000, 7000), ("whatever", 7100, 9080)];

impl Bystander {
    pub(crate) fn start(pair: &Pair) -> Self {
        let demo = bin("outrigger-demo-app");
        let application = pair.server.pod.serve("app", 9080, &format!("{} http [::]:9080 app v1", demo.display()));
        let stop = pair.mesh.fabric.dir().join("bystander.stop");
        let loads = ["", "--new-connections"]
            .map(|option| {
                let mut command = pair.client.pod.command(&demo);
                command.args(["load", "http://app/", "--until"]).arg(&stop).args(option.split_whitespace());
                Process::spawn(&format!("bystander{option}"), command, pair.mesh.fabric.dir())
            })
            .into();
        Self { loads, stop, _application: application }
    }

    /// None of its requests has failed.
    pub(crate) fn end(mut self) {
        std::fs::write(&self.stop, "").unwrap();
        for load in &mut self.loads {
            let status = load.wait();
            let report = load.output();
            assert!(status.success() && report.contains(", 0 failed,"), "{}: {report}", load.name());
            println!("bystander: {}", report.trim());
        }
    }
}
