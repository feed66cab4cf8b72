//! `outriggerctl debug-header`: the header with which a request is told what was decided on it.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, anyhow, ensure};
use clap::Args;

use super::{parse::duration, table::print};
use crate::explain::DebugKey;

/// No proxy takes one that is good for longer.
const LONGEST: Duration = Duration::from_secs(3600);

#[derive(Debug, Args)]
pub struct Arguments {
    /// The key that the proxies have (`--debug-key-file`).
    #[arg(long, env = "OUTRIGGER_DEBUG_KEY_FILE", value_name = "FILE")]
    key_file: PathBuf,
    /// How long the header is good for.
    #[arg(long, default_value = "5m", value_parser = duration, value_name = "TIME")]
    ttl: Duration,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    ensure!(arguments.ttl <= LONGEST, "--ttl: proxies take no header for longer than an hour");
    let name = arguments.key_file.display();
    let key = std::fs::read(&arguments.key_file).with_context(|| format!("{name}"))?;
    let key = DebugKey::new(&key).map_err(|reason| anyhow!("{name}: {reason}"))?;
    let expires = SystemTime::now().duration_since(UNIX_EPOCH)? + arguments.ttl;
    print(&format!("x-outrigger-debug: {}\n", key.sign(expires.as_secs())))?;
    Ok(ExitCode::SUCCESS)
}
