//! `outriggerctl wait`: returns 0 once every connected proxy has applied what the directory holds.
//!
//! A standing refusal of the current generation cannot heal by waiting: it ends the wait at once, with its reason.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::json;

use super::{
    client::{block_on, report},
    output::{Output, emit},
    parse::duration,
    table::one_line,
};
use crate::{status::report::Report, watch::content_hash};

const POLL: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
pub struct Arguments {
    /// The control plane's status port.
    #[arg(long, env = "OUTRIGGER_STATUS_ADDRESS", default_value = "127.0.0.1:15014", value_name = "HOST:PORT")]
    address: String,
    /// Give up after this long.
    #[arg(long, env = "OUTRIGGER_WAIT_TIMEOUT", default_value = "30s", value_parser = duration)]
    timeout: Duration,
    /// Compare with this directory as seen from here, instead of as the control plane sees its own.
    #[arg(long, env = "OUTRIGGER_CONFIG", value_name = "DIR")]
    config: Option<PathBuf>,
    /// Wait until at least this many proxies are connected.
    #[arg(long, default_value_t = 0)]
    proxies: usize,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Where the mesh stands.
enum Stand {
    Reached,
    Behind(Vec<String>),
    Never(Vec<String>),
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    block_on(wait(arguments))
}

async fn wait(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    loop {
        let stand = match report(&arguments.address, true).await {
            Ok(report) => {
                let content = arguments.config.as_deref().map(content_hash);
                judge(&report, content.as_deref(), arguments.proxies)
            }
            Err(error) => Stand::Behind(vec![format!("{error:#}")]),
        };
        let (reasons, verdict) = match stand {
            Stand::Reached => {
                let answer = json!({"reached": true, "seconds": start.elapsed().as_secs_f64(), "reasons": []});
                emit(&answer, arguments.output, String::new)?;
                return Ok(ExitCode::SUCCESS);
            }
            Stand::Never(reasons) => (reasons, "will not get there"),
            Stand::Behind(_) if start.elapsed() < arguments.timeout => {
                tokio::time::sleep(POLL.min(arguments.timeout)).await;
                continue;
            }
            Stand::Behind(reasons) => (reasons, "timed out"),
        };
        if arguments.output != Output::Table {
            let answer = json!({
                "reached": false,
                "verdict": verdict,
                "seconds": start.elapsed().as_secs_f64(),
                "reasons": reasons,
            });
            emit(&answer, arguments.output, String::new)?;
            return Ok(ExitCode::FAILURE);
        }
        eprintln!("{verdict} after {:.1?}:", start.elapsed());
        for reason in reasons {
            eprintln!("  {}", one_line(&reason, 1000));
        }
        return Ok(ExitCode::FAILURE);
    }
}

fn judge(report: &Report, content: Option<&str>, proxies: usize) -> Stand {
    if !report.problems.is_empty() {
        let lines =
            report.problems.iter().map(|p| format!("{}: document {}: {}: {}", p.file, p.document, p.path, p.reason));
        return Stand::Never(lines.collect());
    }
    if report.version == 0 || report.served != report.observed {
        return Stand::Behind(vec!["the control plane has not loaded the directory yet".into()]);
    }
    if let Some(content) = content.filter(|content| *content != report.served) {
        return Stand::Behind(vec![format!(
            "the directory holds {content}, the control plane serves {}",
            report.served
        )]);
    }
    let connected = report.proxies.len();
    if connected < proxies {
        return Stand::Behind(vec![format!("{connected} of {proxies} proxies are connected")]);
    }
    let behind: Vec<String> =
        report.proxies.iter().filter_map(|p| p.behind(report.version).map(|why| format!("{}: {why}", p.id))).collect();
    if behind.is_empty() {
        Stand::Reached
    } else if report.proxies.iter().any(|p| p.refuses() && p.sent >= report.version) {
        Stand::Never(behind)
    } else {
        Stand::Behind(behind)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn base(version: u64, sent: u64, refused: bool) -> Report {
        serde_json::from_value(json!({
            "version": version, "served": "a", "observed": "a", "problems": [], "loaded_at": null, "started_at": "t",
            "proxies": [{
                "id": "x", "kind": "envoy", "namespace": "n", "service_account": "s", "identity": null, "proof": null,
                "peer": "p", "variant": "delta", "connected_since": "t", "sent": sent,
                "types": {"CDS": {"sent": "b", "acked": "b", "waiting": false, "refused": refused, "resources": 1,
                          "pushes": 1, "nacks": 0, "last_nack": null}}
            }]
        }))
        .unwrap()
    }

    #[test]
    fn judgement() {
        assert!(matches!(judge(&base(2, 2, false), None, 1), Stand::Reached));
        assert!(matches!(judge(&base(2, 2, false), Some("a"), 0), Stand::Reached));
        assert!(matches!(judge(&base(2, 2, false), Some("b"), 0), Stand::Behind(_)));
        assert!(matches!(judge(&base(2, 2, false), None, 2), Stand::Behind(_)));
        assert!(matches!(judge(&base(2, 1, false), None, 0), Stand::Behind(_)));
        assert!(matches!(judge(&base(0, 0, false), None, 0), Stand::Behind(_)));
        assert!(matches!(judge(&base(2, 2, true), None, 0), Stand::Never(_)));
        assert!(matches!(judge(&base(2, 1, true), None, 0), Stand::Behind(_)), "the next push may mend it");
        let mut changing = base(2, 2, false);
        changing.observed = "b".into();
        assert!(matches!(judge(&changing, None, 0), Stand::Behind(_)));
    }
}
