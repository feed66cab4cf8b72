//! Where the real programs that the tests use are, and the small scripts around them.

use std::path::{Path, PathBuf};

use crate::{fabric::Pod, process::Process};

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is in the workspace")
}

/// The Python environment that `deploy/prepare tests` makes.
pub fn venv() -> PathBuf {
    root().join("target/venv")
}

/// Where that environment keeps its modules.
pub fn site_packages() -> Option<PathBuf> {
    let versions = std::fs::read_dir(venv().join("lib")).ok()?;
    versions.flatten().map(|entry| entry.path().join("site-packages")).find(|dir| dir.is_dir())
}

/// Debian keeps PostgreSQL's programs by version, outside `PATH`.
pub fn postgresql_dir() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    versions.flatten().map(|entry| entry.path().join("bin")).max()
}

/// A program that `need!` has already asked for.
pub fn program(name: &str) -> PathBuf {
    crate::find(name).unwrap_or_else(|| panic!("`{name}` is needed but was not asked for with need!"))
}

/// The Envoy binary itself: the command of that name is a Python script around it.
pub fn envoy() -> PathBuf {
    let packaged = site_packages().map(|dir| dir.join("envoy/_bin/envoy")).filter(|file| file.is_file());
    packaged.unwrap_or_else(|| program("envoy"))
}

/// A script of `tests/python` with its arguments, as a line for a shell.
pub fn python(script: &str, arguments: &str) -> String {
    let file = root().join("tests/python").join(script);
    assert!(file.is_file(), "{} is missing", file.display());
    format!("{} -u {} {arguments}", venv().join("bin/python3").display(), file.display())
}

impl Pod {
    /// Starts a shell line as a server of the Pod and waits until it listens on `port`.
    pub fn serve(&self, name: &str, port: u16, line: &str) -> Process {
        let mut command = self.command("sh");
        command.args(["-c", &format!("exec {line}")]);
        let mut process = Process::spawn(&format!("{}-{name}", self.name), command, self.dir());
        crate::eventually(&format!("{name} on port {port}"), || {
            assert!(process.is_running(), "{name} ended:\n{}", process.output());
            let listening = self.sh("cat /proc/self/net/tcp /proc/self/net/tcp6");
            // 0A is LISTEN; the local address is the second column.
            let found = listening.lines().any(|line| {
                let columns: Vec<&str> = line.split_whitespace().collect();
                columns.len() > 3 && columns[1].ends_with(&format!(":{port:04X}")) && columns[3] == "0A"
            });
            if found { Ok(()) } else { Err(process.output()) }
        });
        process
    }
}
