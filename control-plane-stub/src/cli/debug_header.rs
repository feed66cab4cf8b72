//! `outriggerctl debug-header`: the header with which a request is told what was decided on it.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, anyhow, ensure};
use clap::Args;
use serde_json::json;

use super::{
    output::{Output, emit},
    parse::duration,
};
use crate::explain::{DebugKeys, LONGEST, Signed};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The keys that the proxies have (`--debug-key-file`); the first one signs.
    #[arg(long, env = "OUTRIGGER_DEBUG_KEY_FILE", value_name = "FILE")]
    key_file: PathBuf,
    /// `Host` (or authority) of the request; the port does not count.
    #[arg(long)]
    host: String,
    /// Path of the request; the query does not count.
    #[arg(long, default_value = "/")]
    path: String,
    #[arg(long, default_value = "GET")]
    method: http::Method,
    /// How long the header is good for.
    #[arg(long, default_value = "5m", value_parser = duration, value_name = "TIME")]
    ttl: Duration,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let header = header(arguments, SystemTime::now().duration_since(UNIX_EPOCH)?)?;
    let answer = json!({"name": "x-outrigger-debug", "value": header});
    emit(&answer, arguments.output, || format!("x-outrigger-debug: {header}\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn header(arguments: &Arguments, now: Duration) -> anyhow::Result<String> {
    let ttl = arguments.ttl.as_secs();
    ensure!((1..=LONGEST).contains(&ttl), "--ttl: proxies take headers that are good for 1 to {LONGEST} seconds");
    ensure!(arguments.path.starts_with('/') || arguments.path == "*", "--path must start with /");
    let name = arguments.key_file.display();
    let keys = std::fs::read(&arguments.key_file).with_context(|| format!("{name}"))?;
    let keys = DebugKeys::new(&keys).map_err(|reason| anyhow!("{name}: {reason}"))?;
    let signed = Signed { method: arguments.method.as_str(), host: &arguments.host, path: &arguments.path };
    Ok(keys.sign(now.as_secs() + ttl, &signed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_for_one_request_and_a_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a key of enough bytes\n").unwrap();
        let mut arguments = Arguments {
            key_file: file.path().to_owned(),
            host: "shop:80".to_owned(),
            path: "/a?b".to_owned(),
            method: http::Method::GET,
            ttl: Duration::from_secs(60),
            output: Output::Table,
        };
        let now = Duration::from_secs(1000);
        let made = header(&arguments, now).unwrap();
        let keys = DebugKeys::new(b"a key of enough bytes").unwrap();
        let signed = Signed { method: "GET", host: "shop", path: "/a" };
        assert_eq!(keys.accepts(made.as_bytes(), &signed, 1000), Some(1060));
        for ttl in [0, LONGEST + 1] {
            arguments.ttl = Duration::from_secs(ttl);
            assert!(header(&arguments, now).is_err(), "{ttl}");
        }
    }
}
