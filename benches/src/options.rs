//! The settings of a `mesh` run.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use crate::rig::Contender;

/// What `mesh` runs, for how long, and where the results go.
#[derive(Clone, Debug, Args)]
pub(crate) struct MeshOptions {
    /// Scenarios, comma separated; all of them by default. `--scenario list` names them
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    pub(crate) scenario: Vec<String>,
    /// Contenders, comma separated: none, outrigger, envoy, haproxy; `LABEL=PATH` adds another build of
    /// outrigger-proxy under a name of its own
    #[arg(long, value_delimiter = ',', value_name = "NAME,...", default_value = "none,outrigger,envoy,haproxy")]
    pub(crate) contender: Vec<Contender>,
    /// Rounds; in each every contender runs once
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Length of one measurement, in seconds
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seconds: u32,
    /// Length of the soak, in seconds
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u32).range(5..))]
    pub(crate) soak_seconds: u32,
    /// One short round with small sizes: whether everything works, not a measurement
    #[arg(long)]
    pub(crate) quick: bool,
    /// Count system calls per request in every closed loop, with strace, in runs of their own; `http-h2` always does
    #[arg(long)]
    pub(crate) syscalls: bool,
    /// Contender whose figures divide the others'
    #[arg(long, default_value = "envoy", value_name = "NAME")]
    pub(crate) reference: String,
    /// Worker threads of each proxy
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) concurrency: u32,
    /// Folder for result.json and result.html
    #[arg(long, default_value = "target/mesh-bench", value_name = "DIR")]
    pub(crate) output: PathBuf,
}

impl MeshOptions {
    pub(crate) fn rounds(&self) -> u32 {
        if self.quick { 1 } else { self.rounds }
    }

    /// Length of one measurement.
    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs(if self.quick { self.seconds.min(2) } else { self.seconds }.into())
    }

    /// Length of what is thrown away before the first measurement of a rig.
    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs(1)
    }

    pub(crate) fn soak(&self) -> Duration {
        Duration::from_secs(if self.quick { self.soak_seconds.min(10) } else { self.soak_seconds }.into())
    }

    /// `full`, or `small` in a quick run.
    pub(crate) fn size(&self, full: usize, small: usize) -> usize {
        if self.quick { small } else { full }
    }
}
