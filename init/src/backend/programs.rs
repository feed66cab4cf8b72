//! Finding and running the packet filter's programs.
//!
//! Owns the search in PATH, the time limit and the wording of a failed run. It does not know what the programs do.
//! Invariant: no program runs longer than the limit, and no output is kept beyond a bound.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::error::Error;

/// Used when the environment has no PATH at all.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// A ruleset larger than this is not a Pod's.
const MAX_OUTPUT: u64 = 64 << 20;

/// The directories searched.
pub fn search_path() -> String {
    std::env::var("PATH").ok().filter(|path| !path.is_empty()).unwrap_or_else(|| DEFAULT_PATH.to_owned())
}

/// The first executable of that name in PATH.
pub fn find(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path()).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name)).find(|candidate| {
        candidate.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

/// What a program left behind.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a program to its end with this input, whatever its exit status.
pub fn run_any(program: &Path, args: &[&str], input: &str) -> Result<Output, Error> {
    let shown = shown(program, args);
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Messages are matched and shown: one language.
        .env("LC_ALL", "C")
        .spawn()
        .map_err(Error::io(format!("cannot start `{shown}`")))?;
    let mut stdin = child.stdin.take();
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let result = std::thread::scope(|scope| {
        scope.spawn(move || {
            // A program that stops reading reports its reason itself.
            if let Some(mut pipe) = stdin.take() {
                let _ = pipe.write_all(input.as_bytes());
            }
        });
        let stdout = scope.spawn(move || drain(stdout));
        let stderr = scope.spawn(move || drain(stderr));
        let status = wait(&mut child);
        (status, stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default())
    });
    match result {
        (Ok(Some(status)), stdout, stderr) => Ok(Output { status, stdout, stderr }),
        (Ok(None), _, stderr) => Err(Error::Program {
            command: shown,
            status: format!("killed after {} s", TIME_LIMIT.as_secs()),
            stderr: stderr.trim().to_owned(),
            hint: None,
        }),
        (Err(error), ..) => Err(Error::io(format!("waiting for `{shown}`"))(error)),
    }
}

/// Runs a program that must succeed and returns its standard output.
pub fn run(program: &Path, args: &[&str], input: &str) -> Result<String, Error> {
    let output = run_any(program, args, input)?;
    if output.status.success() { Ok(output.stdout) } else { Err(failure(program, args, &output)) }
}

/// The error for a run that ended badly.
pub fn failure(program: &Path, args: &[&str], output: &Output) -> Error {
    let stderr = output.stderr.lines().filter(|line| !line.starts_with("# Warning")).collect::<Vec<_>>().join("; ");
    Error::Program {
        command: shown(program, args),
        status: output.status.to_string(),
        hint: hint(&stderr),
        stderr: if stderr.is_empty() { "it said nothing".into() } else { stderr },
    }
}

fn shown(program: &Path, args: &[&str]) -> String {
    std::iter::once(program.display().to_string())
        .chain(args.iter().map(|arg| (*arg).to_owned()))
        .collect::<Vec<_>>()
        .join(" ")
}

fn hint(stderr: &str) -> Option<&'static str> {
    let says = |needle: &str| stderr.contains(needle);
    if says("xtables.lock") && (says("Read-only") || says("Permission denied")) {
        Some("mount a writable /run, set XTABLES_LOCKFILE to a writable path, or use --backend nft")
    } else if says("Permission denied") || says("Operation not permitted") {
        Some("the process needs CAP_NET_ADMIN in the user namespace that owns this network namespace")
    } else if says("Table does not exist") || says("can't initialize") || says("does not exist (do you need to insmod")
    {
        Some(
            "the kernel lacks this table; load ip_tables, iptable_nat and ip6table_nat on the node, or use --backend nft",
        )
    } else if says("Could not process rule: No such file") || says("No chain/target/match by that name") {
        Some(
            "the kernel lacks a match or target; load xt_REDIRECT, xt_owner, xt_multiport (nft: nft_redir, nft_chain_nat)",
        )
    } else {
        None
    }
}

fn drain(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let mut limited = pipe.take(MAX_OUTPUT);
        let _ = limited.read_to_end(&mut bytes);
        // Past the bound the rest is read and forgotten, so that the program is not blocked for ever.
        let _ = std::io::copy(&mut limited.into_inner(), &mut std::io::sink());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `None` if the limit passed and the program was killed.
fn wait(child: &mut Child) -> std::io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + TIME_LIMIT;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
