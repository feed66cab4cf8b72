//! A proxy with a bootstrap file, ours or a real Envoy: the same command line for both.

use std::path::{Path, PathBuf};

use crate::{
    eventually,
    fabric::Pod,
    mesh::{PROXY_UID, bin},
    peers::envoy,
    process::Process,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Outrigger,
    Envoy,
}

impl Kind {
    pub fn program(self) -> PathBuf {
        match self {
            Self::Outrigger => bin("outrigger-proxy"),
            Self::Envoy => envoy(),
        }
    }

    /// Starts it in the Pod with a bootstrap file.
    pub fn start(self, pod: &Pod, file: &Path) -> Process {
        let mut command = pod.command_as(PROXY_UID, self.program());
        // Shared memory of hot restarts would be shared by all tests.
        command.arg("-c").arg(file).args(["--disable-hot-restart", "--concurrency", "2", "-l", "warning"]);
        Process::spawn(&format!("{self:?}-{}", pod.name), command, pod.dir())
    }

    /// Starts it and waits until it is ready.
    pub fn start_ready(self, pod: &Pod, file: &Path) -> Process {
        let mut process = self.start(pod, file);
        eventually(&format!("readiness of {self:?} in {}", pod.name), || {
            assert!(process.is_running(), "{self:?} with {} ended:\n{}", file.display(), process.output());
            let (ok, text) = pod.try_sh("curl -sS -m 2 http://127.0.0.1:15000/ready");
            if ok && text.starts_with("LIVE") { Ok(()) } else { Err(text) }
        });
        process
    }
}

/// Writes a bootstrap file made from a template whose `@NAME@`s are filled in.
pub fn write_bootstrap(pod: &Pod, template: &str, values: &[(&str, &str)]) -> PathBuf {
    let mut text = template.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("@{name}@"), value);
    }
    let file = pod.dir().join(format!("{}-bootstrap.yaml", pod.name));
    std::fs::write(&file, text).expect("own folder");
    file
}
