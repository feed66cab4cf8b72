//! The well-kept load generators, run inside a Pod, and what they say.

pub(crate) mod h2load;
pub(crate) mod wrk;

use std::{process::Command, time::Duration};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;

/// What a generator saw. Latencies in microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) took: Duration,
    /// (percentile, microseconds)
    pub(crate) curve: Vec<(f64, f64)>,
}

/// Where latency curves are sampled.
pub(crate) const PERCENTILES: [f64; 16] =
    [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.75, 99.9, 99.95, 99.99, 99.999, 100.0];

/// A histogram as a curve, without the percentiles its number of values cannot support.
pub(crate) fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let supported = |p: &f64| *p >= 100.0 || histogram.len() as f64 * (100.0 - p) / 100.0 >= 1.0;
    PERCENTILES.into_iter().filter(supported).map(|p| (p, histogram.value_at_percentile(p) as f64)).collect()
}

fn output(mut command: Command, name: &str) -> anyhow::Result<String> {
    let output =
        command.output().with_context(|| format!("cannot run {name} (`deploy/prepare benches` installs it)"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{name}: {}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}
