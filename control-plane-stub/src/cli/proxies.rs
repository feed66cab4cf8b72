//! `outriggerctl proxies`: who is connected to the control plane, and how far each is.

use std::process::ExitCode;

use clap::Args;

use super::{
    client::{block_on, report},
    output::{Output, emit},
    table::{one_line, render},
};
use crate::status::report::{ProxyReport, Report};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The control plane's status port.
    #[arg(long, env = "OUTRIGGER_STATUS_ADDRESS", default_value = "127.0.0.1:15014", value_name = "HOST:PORT")]
    address: String,
    /// Only proxies whose id or identity contains this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut report = block_on(report(&arguments.address, false))?;
    if let Some(text) = &arguments.filter {
        let has = |field: &str| field.contains(text.as_str());
        report.proxies.retain(|p| has(&p.id) || p.identity.as_deref().is_some_and(has));
    }
    emit(&report.proxies, arguments.output, || table(&report))?;
    Ok(ExitCode::SUCCESS)
}

fn table(report: &Report) -> String {
    if report.proxies.is_empty() {
        return "no proxy is connected\n".to_owned();
    }
    let types = ["CDS", "EDS", "LDS", "RDS", "SDS"];
    let mut heading = vec!["PROXY", "KIND", "IDENTITY", "PROVEN BY", "PEER", "SINCE", "STATE"];
    heading.extend(types);
    let mut rows = vec![heading.into_iter().map(String::from).collect::<Vec<_>>()];
    for proxy in &report.proxies {
        let mut row = vec![
            one_line(&proxy.id, 80),
            proxy.kind.clone(),
            proxy.identity.clone().unwrap_or_else(|| "-".into()),
            proxy.proof.clone().unwrap_or_else(|| "-".into()),
            proxy.peer.clone(),
            proxy.connected_since.clone(),
            proxy.behind(report.version).map_or("current", |_| "behind").to_owned(),
        ];
        row.extend(types.map(|kind| state(proxy, kind)));
        rows.push(row);
    }
    render(&rows)
}

/// The version in use, and what is wrong with the newest.
fn state(proxy: &ProxyReport, kind: &str) -> String {
    let Some(kind) = proxy.types.get(kind) else { return "-".to_owned() };
    let version = if kind.applied.is_empty() { "none" } else { &kind.applied };
    let more = match (kind.refused, kind.waiting) {
        (true, _) => " refused",
        (false, true) => " waiting",
        (false, false) => "",
    };
    format!("{}{more}", one_line(version, 24))
}
