//! Fresh network namespaces for tests, and the programs to look into them.
//!
//! Owns the namespace's life: it exists as long as the thread inside it, so nothing can be left behind. Tests are
//! skipped, with the reason printed, only without root or without iptables and nft.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use outrigger_init::backend::programs::find;
use outrigger_init::links::Links;
use outrigger_init::{host, plan::Family};

/// A backend's name on our command line.
pub(crate) const BACKENDS: [&str; 3] = ["nft", "iptables", "iptables-legacy"];

/// Runs the body in a network namespace of its own with `lo` up.
pub(crate) fn in_namespace(body: impl FnOnce(&Namespace) + Send) {
    if !host::has_sys_admin() || !host::has_net_admin() {
        eprintln!("SKIPPED: a network namespace needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN)");
        return;
    }
    for program in ["iptables-nft-save", "iptables-legacy-save", "ip6tables-nft-save", "ip6tables-legacy-save", "nft"] {
        if find(program).is_none() {
            eprintln!("SKIPPED: {program} is not installed; apt-get install iptables nftables");
            return;
        }
    }
    let result = std::thread::scope(|scope| {
        let inside = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root makes a network namespace");
            let links = Links::open().unwrap();
            links.set_up(links.loopback().unwrap().index).unwrap();
            body(&Namespace { path: std::env::var("PATH").unwrap_or_default() });
        };
        scope.spawn(inside).join()
    });
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Programs run from the thread inside it are inside it.
pub(crate) struct Namespace {
    path: String,
}

/// How a run of outrigger-init ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("no signal ended it"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Namespace {
    /// Other programs in PATH.
    pub(crate) fn with_path(&self, path: &Path) -> Self {
        Self { path: path.display().to_string() }
    }

    /// The command for outrigger-init, without the caller's own settings.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger-init"));
        command.args(args).env_clear().env("PATH", &self.path).stdin(Stdio::null());
        command
    }

    /// Runs outrigger-init.
    pub(crate) fn init(&self, args: &[&str]) -> Run {
        self.command(args).output().unwrap().into()
    }

    /// Runs outrigger-init, which must succeed.
    pub(crate) fn must(&self, args: &[&str]) -> String {
        let run = self.init(args);
        assert_eq!(run.code, 0, "{args:?}: {run:?}");
        run.stdout
    }

    /// Runs outrigger-init with a backend and more arguments.
    pub(crate) fn with_backend(&self, command: &str, backend: &str, args: &[&str]) -> Run {
        self.init(&[&[command, "--backend", backend], args].concat())
    }

    /// Runs another program, which must succeed.
    pub(crate) fn tool(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The ruleset of every packet filter, counters and comments left out.
    pub(crate) fn snapshot(&self) -> String {
        let mut text = String::new();
        for program in ["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"] {
            text.push_str(&format!("== {program}\n{}", normalized(&self.tool(program))));
        }
        text.push_str(&format!("== nft\n{}", normalized(&self.tool("nft list ruleset"))));
        text
    }

    /// Rules of others, in the tables we use and elsewhere, Docker's DNS chain among them.
    pub(crate) fn seed_foreign(&self, backend: &str) {
        if backend == "nft" {
            self.tool("nft add table inet theirs");
            self.tool("nft add chain inet theirs output { type nat hook output priority -100 ; policy accept ; }");
            self.tool("nft add rule inet theirs output ip daddr 203.0.113.7 tcp dport 81 redirect to :9");
            self.tool("nft add table ip6 filter");
        } else {
            for family in [Family::V4, Family::V6] {
                let (program, net) = match (backend, family) {
                    ("iptables", Family::V4) => ("iptables-nft", "203.0.113.0/24"),
                    ("iptables", Family::V6) => ("ip6tables-nft", "2001:db8:7::/64"),
                    (_, Family::V4) => ("iptables-legacy", "203.0.113.0/24"),
                    (_, Family::V6) => ("ip6tables-legacy", "2001:db8:7::/64"),
                };
                self.tool(&format!("{program} -t nat -A PREROUTING -s {net} -p tcp --dport 81 -j ACCEPT"));
                self.tool(&format!("{program} -t nat -N DOCKER_OUTPUT"));
                self.tool(&format!("{program} -t nat -A OUTPUT -d {net} -j DOCKER_OUTPUT"));
                self.tool(&format!("{program} -t nat -A DOCKER_OUTPUT -p tcp -m tcp --dport 53 -j RETURN"));
                self.tool(&format!("{program} -t mangle -A PREROUTING -s {net} -j MARK --set-mark 7"));
                self.tool(&format!("{program} -t filter -P FORWARD DROP"));
                self.tool(&format!("{program} -t filter -A OUTPUT -d {net} -p tcp --dport 81 -j ACCEPT"));
            }
        }
    }
}

fn normalized(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words: Vec<&str> = Vec::new();
        let mut all = line.split_whitespace();
        while let Some(word) = all.next() {
            if word == "packets" || word == "bytes" {
                all.next();
            } else if !(word.starts_with('[') && word.ends_with(']')) {
                words.push(word);
            }
        }
        out.push_str(&words.join(" "));
        out.push('\n');
    }
    out
}

/// A directory with links to the real programs, of which some are replaced by shell scripts and some left out.
pub(crate) fn programs(broken: &[(&str, &str)], without: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    for base in ["iptables", "ip6tables"] {
        for infix in ["", "-nft", "-legacy"] {
            for verb in ["-save", "-restore"] {
                link(dir.path(), &format!("{base}{infix}{verb}"), without);
            }
        }
    }
    link(dir.path(), "nft", without);
    for (name, script) in broken {
        let path = dir.path().join(name);
        let _ = std::fs::remove_file(&path);
        write_script(&path, script);
    }
    let path = dir.path().to_owned();
    (dir, path)
}

/// By a process of its own: a test forking meanwhile would hold our descriptor, and the file be busy.
fn write_script(path: &Path, script: &str) {
    let mut shell = Command::new("/bin/sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    shell.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success());
}

fn link(dir: &Path, name: &str, without: &[&str]) {
    if let Some(real) = find(name).filter(|_| !without.contains(&name)) {
        std::os::unix::fs::symlink(real, dir.join(name)).unwrap();
    }
}
