//! A small parent of the proxy, for where a process must not end when it is replaced: process 1 of a container, or a
//! service manager's main process.
//!
//! Starts the program, again on SIGUSR2; the new process takes over from the running one by itself, or ends without
//! having changed anything. Signals are passed on, orphans reaped. The supervisor ends with its last child, or at once
//! when the child that serves fails: whoever watches the supervisor sees what it would see of the proxy.

use std::{
    ffi::OsString,
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        socket::{getsockopt, sockopt::PeerCredentials},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::settings::SUPERVISOR;

/// Children at once; one serves, others drain.
const MOST: usize = 16;

/// A signal's number is added to it where a shell would do so.
const KILLED: i32 = 128;

/// Runs until nothing is left to supervise.
pub(super) fn run(socket: &Path) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let code = runtime.and_then(|runtime| runtime.block_on(supervise(socket)));
    code.unwrap_or_else(|error| {
        tracing::error!(%error, "cannot supervise");
        ExitCode::FAILURE
    })
}

struct Supervisor {
    program: PathBuf,
    arguments: Vec<OsString>,
    children: Vec<Pid>,
    socket: PathBuf,
}

async fn supervise(socket: &Path) -> io::Result<ExitCode> {
    // Before the first child: none of its signals may be missed.
    let mut ended = signal(SignalKind::child())?;
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut hup = signal(SignalKind::hangup())?;
    let mut replace = signal(SignalKind::user_defined2())?;
    let (program, arguments) = command_line()?;
    let mut supervisor = Supervisor { program, arguments, children: Vec::new(), socket: socket.to_owned() };
    supervisor.start()?;
    loop {
        tokio::select! {
            _ = ended.recv() => {
                if let Some(code) = supervisor.reap() {
                    return Ok(code);
                }
            }
            _ = term.recv() => supervisor.pass_on(Signal::SIGTERM),
            _ = int.recv() => supervisor.pass_on(Signal::SIGINT),
            _ = hup.recv() => supervisor.pass_on(Signal::SIGHUP),
            _ = replace.recv() => {
                if let Err(error) = supervisor.start() {
                    tracing::error!(%error, "cannot start a successor; the running process goes on");
                }
            }
        }
    }
}

/// The program as it is found again later, and what it is told: the same without the word that it is to supervise.
fn command_line() -> io::Result<(PathBuf, Vec<OsString>)> {
    let mut arguments = std::env::args_os();
    let name = arguments.next().map(PathBuf::from).filter(|name| name.components().count() > 1);
    // A link is followed anew each time, so that it may be set to another version.
    let program = match name {
        Some(name) => std::path::absolute(name)?,
        None => std::env::current_exe()?,
    };
    Ok((program, arguments.filter(|argument| argument != "--supervise").collect()))
}

impl Supervisor {
    #[allow(clippy::zombie_processes, reason = "all children are waited for in `reap`")]
    fn start(&mut self) -> io::Result<()> {
        if self.children.len() >= MOST {
            return Err(io::Error::other("too many processes are still draining"));
        }
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_remove("OUTRIGGER_SUPERVISE");
        let child = command.env(SUPERVISOR, std::process::id().to_string()).spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        tracing::info!(%pid, program = %self.program.display(), "started");
        self.children.push(pid);
        Ok(())
    }

    fn pass_on(&self, signal: Signal) {
        for child in &self.children {
            // It may have ended this moment.
            let _ = kill(*child, signal);
        }
    }

    /// Takes note of processes that ended; the exit code when that is the end.
    fn reap(&mut self) -> Option<ExitCode> {
        loop {
            let (pid, code) = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, KILLED + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return None,
                Ok(_) => continue,
                Err(Errno::EINTR) => continue,
                Err(error) => {
                    tracing::error!(%error, "cannot wait for children");
                    return None;
                }
            };
            let before = self.children.len();
            self.children.retain(|child| *child != pid);
            if self.children.len() == before {
                // Somebody's orphan.
                continue;
            }
            tracing::info!(%pid, code, "ended");
            let exit = ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1));
            if self.children.is_empty() {
                return Some(exit);
            }
            if code != 0 && !self.is_served() {
                tracing::error!(%pid, code, "the process that served failed");
                self.pass_on(Signal::SIGTERM);
                return Some(exit);
            }
        }
    }

    /// Whether one of the children is where successors come to, which is the one that serves.
    fn is_served(&self) -> bool {
        let owner = UnixStream::connect(&self.socket).and_then(|s| Ok(getsockopt(&s, PeerCredentials)?.pid()));
        owner.is_ok_and(|owner| self.children.contains(&Pid::from_raw(owner)))
    }
}
