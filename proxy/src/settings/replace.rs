//! How a process takes the place of a running one.

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use nix::unistd::Pid;

const REPLACE: &str = "Replacement in place";

/// Replacement of the program while it runs.
#[derive(Clone, Debug, Parser)]
pub struct Replace {
    /// Unix socket over which a process takes the listening sockets of the one that runs, and is later asked for them
    /// itself. If nobody is there, this is an ordinary start. Without it nothing changes hands.
    #[arg(long, env = "OUTRIGGER_REPLACE_SOCKET", value_name = "PATH", help_heading = REPLACE)]
    pub replace_socket: Option<PathBuf>,
    /// Other programs than this one's own path that may take over, comma-separated.
    #[arg(
        long,
        env = "OUTRIGGER_REPLACE_ALLOW_EXE",
        value_delimiter = ',',
        value_name = "PATH",
        help_heading = REPLACE
    )]
    pub replace_allow_exe: Vec<PathBuf>,
    /// How long a successor may take to be ready, in seconds; then it gives up, and the running process goes on.
    #[arg(
        long,
        env = "OUTRIGGER_REPLACE_TIMEOUT_S",
        default_value_t = 60,
        value_name = "SECONDS",
        help_heading = REPLACE
    )]
    pub replace_timeout_s: u64,
    /// How long connections of the process that is replaced may go on, in seconds, before they are cut (Envoy's flag).
    #[arg(
        long,
        env = "OUTRIGGER_PARENT_SHUTDOWN_TIME_S",
        default_value_t = 900,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(..=604_800),
        help_heading = REPLACE
    )]
    pub parent_shutdown_time_s: u64,
    /// Run the proxy as a child of this process, which passes signals on, reaps orphans (it may be process 1 of a
    /// container) and starts the program anew on SIGUSR2. Needs --replace-socket.
    #[arg(long, env = "OUTRIGGER_SUPERVISE", requires = "replace_socket", help_heading = REPLACE)]
    pub supervise: bool,
    /// The process that does so, as it tells its children.
    #[arg(long, env = SUPERVISOR, hide = true)]
    supervisor: Option<i32>,
}

/// Variable by which a supervisor is known to its children.
pub const SUPERVISOR: &str = "OUTRIGGER_SUPERVISOR";

impl Replace {
    /// The supervising parent, if there still is one.
    pub fn supervisor(&self) -> Option<Pid> {
        let parent = nix::unistd::getppid();
        self.supervisor.filter(|pid| *pid == parent.as_raw()).map(|_| parent)
    }

    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.replace_timeout_s)
    }

    pub fn parent_shutdown_time(&self) -> Duration {
        Duration::from_secs(self.parent_shutdown_time_s)
    }
}
