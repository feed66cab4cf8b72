//! `outriggerctl top`: what a proxy sends where, how much of it fails, and how long it takes.
//!
//! Rates are differences of counters. Latencies are of the requests that `/tap` showed in the meantime: all, or as many as
//! it shows to one who watches.

use std::{collections::BTreeMap, io::IsTerminal, process::ExitCode, time::Duration};

use clap::Args;
use http::Method;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    client::{block_on, call, lines},
    output::{Output, show},
    parse::duration,
    table::{one_line, print, render},
};

/// Requests looked at for latencies, each time.
const SAMPLE: u64 = 20_000;
/// Clears the screen and goes to its corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

#[derive(Debug, Args)]
pub struct Arguments {
    /// The proxy's admin interface.
    #[arg(long, env = "OUTRIGGER_PROXY_ADDRESS", default_value = "127.0.0.1:15000", value_name = "HOST:PORT")]
    proxy: String,
    /// Time from one table to the next, in whole seconds.
    #[arg(long, default_value = "2s", value_parser = duration, value_name = "TIME")]
    interval: Duration,
    /// Tables to print; without it as many as there is time for on a terminal, else one.
    #[arg(long)]
    count: Option<u64>,
    /// Destinations at most.
    #[arg(long, default_value_t = 30)]
    rows: usize,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// One destination over one interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Row {
    destination: String,
    requests_per_second: f64,
    errors_per_second: f64,
    error_percent: f64,
    active_requests: u64,
    active_connections: u64,
    p50_ms: Option<u64>,
    p99_ms: Option<u64>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let live = arguments.output == Output::Table && std::io::stdout().is_terminal();
    let count = arguments.count.unwrap_or(if live { u64::MAX } else { 1 });
    block_on(async {
        let mut before = counters(&arguments.proxy).await?;
        let mut since = Instant::now();
        let mut names = Names::new();
        for _ in 0..count {
            let latencies = latencies(&arguments.proxy, arguments.interval, &mut names).await?;
            let (after, now) = (counters(&arguments.proxy).await?, Instant::now());
            let rows = rows(&before, &after, now.duration_since(since), latencies, arguments.rows);
            let wants_more = show(&rows, arguments.output, || {
                format!("{}{}", if live { CLEAR } else { "" }, table(&arguments.proxy, &rows))
            })?;
            if !wants_more {
                break;
            }
            (before, since) = (after, now);
        }
        if live {
            print("\n")?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// By name.
type Counters = BTreeMap<String, u64>;

async fn counters(proxy: &str) -> anyhow::Result<Counters> {
    let body = call(
        proxy,
        Method::GET,
        "/stats?format=json&filter=%5Ecluster%5C..%2B%5C.upstream_(rq_(total%7C5xx%7Cactive)%7Ccx_active)%24",
    )
    .await?;
    let stats: Value = serde_json::from_slice(&body)?;
    let all = stats["stats"].as_array().into_iter().flatten();
    Ok(all.filter_map(|s| Some((s["name"].as_str()?.to_owned(), s["value"].as_u64()?))).collect())
}

/// Clusters that statistics know by other names than their own, by their own.
type Names = BTreeMap<String, String>;

async fn names(proxy: &str) -> anyhow::Result<Names> {
    let clusters: Value = serde_json::from_slice(&call(proxy, Method::GET, "/clusters?format=json").await?)?;
    let all = clusters["cluster_statuses"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Ok(all.filter_map(|c| Some((text(&c["name"])?, text(&c["observability_name"])?))).collect())
}

/// Durations by the cluster's name in statistics, of what ended in the interval; none where too many watch already.
async fn latencies(proxy: &str, interval: Duration, known: &mut Names) -> anyhow::Result<BTreeMap<String, Vec<u64>>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let started = Instant::now();
    let path = format!("/tap?limit={SAMPLE}&seconds={}", interval.as_secs().max(1));
    let watched = lines(proxy, &path, interval, |line| {
        if let Ok(line) = serde_json::from_str::<Value>(line)
            && let (Some(cluster), Some(took)) = (line["cluster"].as_str(), line["duration_ms"].as_u64())
        {
            found.entry(cluster.to_owned()).or_default().push(took);
        }
        true
    })
    .await;
    if let Err(error) = watched {
        eprintln!("no latencies: {error:#}");
    }
    if found.keys().any(|name| !known.contains_key(name)) {
        *known = names(proxy).await?;
    }
    tokio::time::sleep_until(started + interval).await;
    Ok(renamed(found, known))
}

fn renamed(found: BTreeMap<String, Vec<u64>>, known: &Names) -> BTreeMap<String, Vec<u64>> {
    let mut all: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (name, times) in found {
        let name = known.get(&name).cloned().unwrap_or(name);
        all.entry(name).or_default().extend(times);
    }
    all
}

fn rows(
    before: &Counters,
    after: &Counters,
    time: Duration,
    mut latencies: BTreeMap<String, Vec<u64>>,
    most: usize,
) -> Vec<Row> {
    let seconds = time.as_secs_f64().max(0.001);
    let mut rows = Vec::new();
    for name in after.keys() {
        let Some(cluster) = name.strip_prefix("cluster.").and_then(|n| n.strip_suffix(".upstream_cx_active")) else {
            continue;
        };
        let of = |counters: &Counters, metric: &str| counters.get(&format!("cluster.{cluster}.{metric}")).copied();
        let rate = |metric: &str| {
            let (before, after) = (of(before, metric).unwrap_or(0), of(after, metric).unwrap_or(0));
            after.saturating_sub(before) as f64 / seconds
        };
        let (requests, errors) = (rate("upstream_rq_total"), rate("upstream_rq_5xx"));
        let mut times = latencies.remove(cluster).unwrap_or_default();
        times.sort_unstable();
        let quantile = |share: f64| {
            let place = ((times.len() as f64 * share).ceil() as usize).clamp(1, times.len().max(1)) - 1;
            times.get(place).copied()
        };
        rows.push(Row {
            destination: cluster.to_owned(),
            requests_per_second: requests,
            errors_per_second: errors,
            error_percent: if requests > 0.0 { 100.0 * errors / requests } else { 0.0 },
            active_requests: of(after, "upstream_rq_active").unwrap_or(0),
            active_connections: of(after, "upstream_cx_active").unwrap_or(0),
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
        });
    }
    rows.sort_by(|a, b| {
        b.requests_per_second.total_cmp(&a.requests_per_second).then_with(|| a.destination.cmp(&b.destination))
    });
    rows.truncate(most);
    rows
}

fn table(proxy: &str, rows: &[Row]) -> String {
    let heading = ["DESTINATION", "REQ/S", "ERR/S", "ERR %", "ACTIVE", "CONNS", "P50 MS", "P99 MS"];
    let mut all = vec![heading.map(String::from).to_vec()];
    let time = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), |ms| ms.to_string());
    all.extend(rows.iter().map(|row| {
        vec![
            one_line(&row.destination, 70),
            format!("{:.1}", row.requests_per_second),
            format!("{:.1}", row.errors_per_second),
            format!("{:.2}", row.error_percent),
            row.active_requests.to_string(),
            row.active_connections.to_string(),
            time(row.p50_ms),
            time(row.p99_ms),
        ]
    }));
    format!("{proxy}\n{}", render(&all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_told_by_the_name_in_statistics() {
        let found =
            BTreeMap::from([("a|1".to_owned(), vec![1]), ("a|2".to_owned(), vec![2]), ("b".to_owned(), vec![3])]);
        let known = Names::from([("a|1".to_owned(), "a".to_owned()), ("a|2".to_owned(), "a".to_owned())]);
        let all = renamed(found, &known);
        assert_eq!(all, BTreeMap::from([("a".to_owned(), vec![1, 2]), ("b".to_owned(), vec![3])]));
    }

    #[test]
    fn the_busiest_destination_is_first() {
        let counters = |a: u64, b: u64, errors: u64| {
            Counters::from([
                ("cluster.a.upstream_rq_total".to_owned(), a),
                ("cluster.a.upstream_cx_active".to_owned(), 1),
                ("cluster.b.x.upstream_rq_total".to_owned(), b),
                ("cluster.b.x.upstream_rq_5xx".to_owned(), errors),
                ("cluster.b.x.upstream_cx_active".to_owned(), 2),
            ])
        };
        let latencies = BTreeMap::from([("b.x".to_owned(), (1..=100).rev().collect())]);
        let rows = rows(&counters(10, 0, 0), &counters(20, 100, 50), Duration::from_secs(10), latencies, 5);
        assert_eq!(rows.iter().map(|r| r.destination.as_str()).collect::<Vec<_>>(), ["b.x", "a"]);
        assert_eq!((rows[0].requests_per_second, rows[0].error_percent), (10.0, 50.0));
        assert_eq!((rows[0].p50_ms, rows[0].p99_ms, rows[1].p99_ms), (Some(50), Some(99), None));
        assert!(table("p", &rows).contains("b.x"));
    }
}
