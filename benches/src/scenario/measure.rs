//! From a load and the kernel's books to the figures of a sample.

use crate::{
    account::{Memory, Pair, Usage, count_syscalls},
    load::Seen,
    result::Sample,
    rig::Rig,
};

/// Runs a load and accounts for it per request.
pub(super) fn requests(rig: &Rig, load: impl FnOnce(&Rig) -> anyhow::Result<Seen>) -> anyhow::Result<Sample> {
    let proxies = rig.proxies();
    let before = proxies.usage();
    let seen = load(rig).map_err(|error| anyhow::anyhow!("{error:#}; {}", rig.logs()))?;
    let used = proxies.usage().since(&before);
    anyhow::ensure!(seen.completed > 0, "no request succeeded, {} failed; {}", seen.failed, rig.logs());
    let mut sample = Sample::default();
    sample.set("rps", seen.completed as f64 / seen.took.as_secs_f64());
    sample.set("failed", seen.failed as f64);
    latencies(&mut sample, &seen.curve);
    if !proxies.is_empty() {
        per_request(&mut sample, &used, (seen.completed + seen.failed) as f64);
        memory(&mut sample, &rig.memory());
    }
    Ok(sample)
}

/// Percentiles and the curve; `curve` is in microseconds.
pub(super) fn latencies(sample: &mut Sample, curve: &[(f64, f64)]) {
    for (key, percentile) in [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p999", 99.9), ("p9999", 99.99)] {
        if let Some((_, micros)) = curve.iter().find(|(p, _)| *p == percentile) {
            sample.set(key, micros / 1000.0);
        }
    }
    sample.curve = curve.iter().map(|(p, micros)| (*p, micros / 1000.0)).collect();
}

/// CPU and switches; `cpu` is the mean of the two proxies.
pub(super) fn per_request(sample: &mut Sample, used: &Pair<Usage>, requests: f64) {
    let micros = |seconds: f64| seconds * 1e6 / requests;
    let (out, into) = (&used.out, &used.into);
    sample.set("cpu", micros(used.cpu()) / 2.0);
    sample.set("cpu_user", micros(out.user() + into.user()) / 2.0);
    sample.set("cpu_sys", micros(used.cpu() - out.user() - into.user()) / 2.0);
    sample.set("cpu_out", micros(out.cpu()));
    sample.set("cpu_in", micros(into.cpu()));
    sample.set("cpu_out_user", micros(out.user()));
    sample.set("cpu_out_sys", micros(out.cpu() - out.user()));
    sample.set("cpu_in_user", micros(into.user()));
    sample.set("cpu_in_sys", micros(into.cpu() - into.user()));
    let ((v1, i1), (v2, i2)) = (out.switches(), into.switches());
    sample.set("switches", (v1 + v2) as f64 / 2.0 / requests);
    sample.set("preempted", (i1 + i2) as f64 / 2.0 / requests);
    sample.set("busiest_out", out.busiest_share());
    sample.set("busiest_in", into.busiest_share());
}

pub(super) fn memory(sample: &mut Sample, memory: &Memory) {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    sample.set("rss_out", megabytes(memory.rss_out));
    sample.set("rss_in", megabytes(memory.rss_in));
    sample.set("pss_out", megabytes(memory.pss_out));
    sample.set("pss_in", megabytes(memory.pss_in));
}

/// System calls per request, one side after the other: strace slows down what it looks at.
pub(super) fn system_calls(
    sample: &mut Sample,
    rig: &Rig,
    load: impl Fn(&Rig) -> anyhow::Result<Seen>,
) -> anyhow::Result<()> {
    let proxies = rig.proxies();
    for (key, pids) in [("calls_out", &proxies.out), ("calls_in", &proxies.into)] {
        if pids.is_empty() {
            continue;
        }
        let mut requests = 0.0;
        let calls = count_syscalls(pids, || {
            let seen = load(rig)?;
            requests = (seen.completed + seen.failed) as f64;
            Ok(())
        })?;
        sample.set(key, calls.iter().map(|(_, n)| *n as f64).sum::<f64>() / requests);
        let side = key.trim_start_matches("calls_");
        sample.calls.extend(
            calls
                .into_iter()
                .take(10)
                .map(|(name, n)| (format!("{side} {name}"), (n as f64 / requests * 1000.0).round() / 1000.0)),
        );
    }
    Ok(())
}
