//! `outriggerctl status`: the control plane's report as a table or as JSON.

use std::process::ExitCode;

use clap::Args;

use super::{
    client::{block_on, report},
    output::{Output, emit},
    table::{one_line, render},
};
use crate::{ratelimit::stats::LimitsReport, status::report::Report};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The control plane's status port.
    #[arg(long, env = "OUTRIGGER_STATUS_ADDRESS", default_value = "127.0.0.1:15014", value_name = "HOST:PORT")]
    address: String,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let report = block_on(report(&arguments.address, false))?;
    emit(&report, arguments.output, || table(&report))?;
    Ok(ExitCode::SUCCESS)
}

fn table(report: &Report) -> String {
    let mut out = match report.version {
        0 => "nothing is served: no valid configuration has been loaded yet\n".to_owned(),
        version => format!(
            "serving generation {version} (content {}) since {}\n",
            report.served,
            report.loaded_at.as_deref().unwrap_or("unknown")
        ),
    };
    if !report.problems.is_empty() {
        out += &format!("the directory now holds {} problem(s) and is not served:\n", report.problems.len());
        for problem in &report.problems {
            let line = format!("{}: document {}: {}: {}", problem.file, problem.document, problem.path, problem.reason);
            out += &format!("  {}\n", one_line(&line, 500));
        }
    }
    if let Some(limits) = &report.rate_limits {
        out += &rate_limits(limits);
    }
    if report.proxies.is_empty() {
        out += "no proxy is connected\n";
        return out;
    }
    let heading = ["PROXY", "KIND", "IDENTITY", "CONNECTED SINCE", "TYPE", "SENT", "ACKED", "APPLIED", "STATE"];
    let mut rows = vec![heading.map(String::from).to_vec()];
    let mut nacks = String::new();
    for proxy in &report.proxies {
        let state = proxy.behind(report.version).map_or("current", |_| "behind");
        let identity = proxy.identity.clone().unwrap_or_else(|| "-".into());
        rows.push(vec![
            one_line(&proxy.id, 80),
            proxy.kind.clone(),
            identity,
            proxy.connected_since.clone(),
            String::new(),
            String::new(),
            String::new(),
            String::new(),
            state.to_owned(),
        ]);
        for (name, kind) in &proxy.types {
            let state = match (kind.refused, kind.waiting) {
                (true, _) => "refused",
                (false, true) => "waiting",
                (false, false) => "",
            };
            let short = |version: &str| if version.is_empty() { "-".to_owned() } else { version.to_owned() };
            let mut row = vec![String::new(); 4];
            row.push(one_line(name, 60));
            row.extend([&kind.sent, &kind.acked, &kind.applied].map(|v| short(v)));
            row.push(state.to_owned());
            rows.push(row);
            if let Some(nack) = &kind.last_nack {
                let text = one_line(&nack.message, 500);
                nacks += &format!("last NACK of {} for {name} at {}: {text}\n", one_line(&proxy.id, 80), nack.at);
            }
        }
    }
    out + &render(&rows) + &nacks
}

/// Nothing, where nothing is limited and nothing is wrong.
fn rate_limits(limits: &LimitsReport) -> String {
    let since = limits.since.as_deref().map(|since| format!(" since {since}")).unwrap_or_default();
    let mut out = String::new();
    if !limits.available {
        let error = one_line(&limits.error, 200);
        out += &format!("rate limits: {} is away{since} ({error}); proxies fall back\n", limits.store);
    } else if let Some(keys) = limits.keys.filter(|_| !limits.rules.is_empty()) {
        out += &format!("rate limits: {keys} counters in {}\n", limits.store);
    } else if limits.keys.is_none() {
        out += &format!("rate limits: counters in {}, connected{since}\n", limits.store);
    }
    if limits.rules.is_empty() {
        return out;
    }
    let mut rows = vec![["RATE LIMIT", "OK", "OVER LIMIT", "WOULD DENY"].map(String::from).to_vec()];
    for (rule, counts) in &limits.rules {
        let numbers = [counts.ok, counts.over_limit, counts.would_deny].map(|n| n.to_string());
        rows.push(std::iter::once(one_line(rule, 80)).chain(numbers).collect());
    }
    out + &render(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_limits_are_told_where_there_are_some_or_something_is_wrong() {
        let memory = LimitsReport { store: "memory".into(), available: true, keys: Some(0), ..Default::default() };
        assert_eq!(rate_limits(&memory), "");
        let counts = crate::ratelimit::stats::Counts { ok: 3, over_limit: 2, would_deny: 1 };
        let rules = [("shop/a".to_owned(), counts)].into();
        let text = rate_limits(&LimitsReport { rules, keys: Some(7), ..memory });
        assert!(text.contains("7 counters in memory") && text.contains("shop/a"), "{text}");
        let redis = LimitsReport {
            store: "cache:6379".into(),
            since: Some("2026-01-01T00:00:00Z".into()),
            error: "did not answer in time".into(),
            ..Default::default()
        };
        let text = rate_limits(&redis);
        assert!(text.contains("cache:6379 is away since 2026") && text.contains("in time"), "{text}");
        let text = rate_limits(&LimitsReport { available: true, error: String::new(), ..redis });
        assert!(text.contains("counters in cache:6379, connected"), "{text}");
    }
}
