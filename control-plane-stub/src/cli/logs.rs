//! `outriggerctl logs level`: the log levels of a running proxy.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value};

use super::{
    client::{block_on, call, query},
    output::{Output, emit},
    table::render,
};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the levels, or set them: `debug` for all, `router:trace,xds:debug` for parts.
    Level(Level),
}

#[derive(Debug, Args)]
struct Level {
    /// A level, or NAME:LEVEL with commas between.
    levels: Option<String>,
    /// The proxy's admin interface.
    #[arg(long, env = "OUTRIGGER_PROXY_ADDRESS", default_value = "127.0.0.1:15000", value_name = "HOST:PORT")]
    proxy: String,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Command::Level(level) = &arguments.command;
    let path = match &level.levels {
        None => "/logging".to_owned(),
        Some(levels) => {
            let key = if levels.contains(':') { "paths" } else { "level" };
            format!("/logging?{}", query([(key, Some(levels.clone()))]))
        }
    };
    let body = block_on(call(&level.proxy, Method::POST, &path))?;
    let levels = parse(&String::from_utf8_lossy(&body));
    emit(&levels, level.output, || {
        let rows: Vec<Vec<String>> = levels
            .iter()
            .map(|(name, level)| vec![name.clone(), level.as_str().unwrap_or_default().to_owned()])
            .collect();
        render(&rows)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `  NAME: LEVEL` lines below a heading.
fn parse(text: &str) -> Map<String, Value> {
    let pairs = text.lines().skip(1).filter_map(|line| line.trim().rsplit_once(": "));
    pairs.map(|(name, level)| (name.to_owned(), level.into())).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_proxy_lists_is_read() {
        let levels = super::parse("active loggers:\n  admin: info\n  outrigger_proxy::x: debug\n");
        assert_eq!(levels["admin"], "info");
        assert_eq!(levels["outrigger_proxy::x"], "debug");
    }
}
