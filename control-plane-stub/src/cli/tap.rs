//! `outriggerctl tap`: the requests of a proxy as they end.

use std::{net::IpAddr, process::ExitCode, time::Duration};

use clap::Args;
use serde_json::Value;

use super::{
    client::{block_on, lines, query},
    output::Output,
    table::{offer, one_line},
};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The proxy's admin interface.
    #[arg(long, env = "OUTRIGGER_PROXY_ADDRESS", default_value = "127.0.0.1:15000", value_name = "HOST:PORT")]
    proxy: String,
    /// Name of a route.
    #[arg(long)]
    route: Option<String>,
    /// Authority, or `*.suffix`.
    #[arg(long)]
    host: Option<String>,
    /// What the path begins with.
    #[arg(long)]
    path: Option<String>,
    #[arg(long)]
    method: Option<String>,
    /// Cluster that the request went to.
    #[arg(long)]
    cluster: Option<String>,
    /// Address of the client.
    #[arg(long, value_name = "IP")]
    source: Option<IpAddr>,
    /// 404, 5xx, or 400-499.
    #[arg(long)]
    status: Option<String>,
    /// Only what did not go well.
    #[arg(long)]
    failed: bool,
    /// Lines at most.
    #[arg(long, default_value_t = 100)]
    limit: u64,
    /// Seconds at most.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let query = query([
        ("route", arguments.route.clone()),
        ("host", arguments.host.clone()),
        ("path", arguments.path.clone()),
        ("method", arguments.method.clone()),
        ("cluster", arguments.cluster.clone()),
        ("source", arguments.source.map(|ip| ip.to_string())),
        ("status", arguments.status.clone()),
        ("failed", arguments.failed.then(|| "true".to_owned())),
        ("limit", Some(arguments.limit.to_string())),
        ("seconds", Some(arguments.seconds.to_string())),
    ]);
    let output = arguments.output;
    let mut failed = None;
    let path = format!("/tap?{query}");
    block_on(lines(&arguments.proxy, &path, Duration::from_secs(arguments.seconds), |line| {
        match show(line, output) {
            Ok(wants_more) => wants_more,
            Err(error) => {
                failed = Some(error);
                false
            }
        }
    }))?;
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// `false`: the reader has seen enough.
fn show(line: &str, output: Output) -> anyhow::Result<bool> {
    let text = match output {
        Output::Json => format!("{line}\n"),
        Output::Yaml => format!("---\n{}", serde_saphyr::to_string(&serde_json::from_str::<Value>(line)?)?),
        Output::Table => row(&serde_json::from_str(line)?),
    };
    Ok(offer(&text)?)
}

fn row(line: &Value) -> String {
    let text = |key: &str| match &line[key] {
        Value::Null => "-".to_owned(),
        Value::String(text) => one_line(text, 200),
        other => other.to_string(),
    };
    if !line["end"].is_null() {
        return format!("# {} lines, {} dropped; ended by {}\n", text("lines"), text("dropped"), text("end"));
    }
    format!(
        "{} {:>3} {:>6} ms {:<5} {:<7} {}{} {} -> {} {} {}\n",
        text("start_time"),
        text("status"),
        text("duration_ms"),
        text("flags"),
        text("method"),
        text("authority"),
        text("path"),
        text("source"),
        text("cluster"),
        text("upstream"),
        text("details"),
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn rows_are_tame_whatever_a_client_sent() {
        let line = serde_json::json!({"status": 200, "path": "/\u{1b}[2Jx", "authority": "a", "duration_ms": 3});
        let row = super::row(&line);
        assert!(row.contains(" 200 ") && row.contains("a/ [2Jx") && row.lines().count() == 1, "{row}");
        assert_eq!(
            super::row(&serde_json::json!({"end": "time", "lines": 2, "dropped": 0})),
            "# 2 lines, 0 dropped; ended by time\n"
        );
    }
}
