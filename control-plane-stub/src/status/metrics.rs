//! Counters and their Prometheus text form.
//!
//! Labels are closed sets (`as_str`), never text a peer sent.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::server::types::TypeUrl;

/// Upper bounds of the translation histogram, in microseconds.
const BOUNDS: [u64; 8] = [100, 500, 1_000, 5_000, 20_000, 100_000, 500_000, 2_000_000];

#[derive(Default)]
struct PerType {
    pushes: AtomicU64,
    nacks: AtomicU64,
    stale: AtomicU64,
}

/// Process-wide counters.
#[derive(Default)]
pub struct Metrics {
    types: [PerType; TypeUrl::SHORT_NAMES.len()],
    loads_ok: AtomicU64,
    loads_failed: AtomicU64,
    certificates_issued: AtomicU64,
    certificates_refused: AtomicU64,
    streams_refused: AtomicU64,
    handshakes_failed: AtomicU64,
    translate_buckets: [AtomicU64; BOUNDS.len() + 1],
    translate_micros: AtomicU64,
}

impl Metrics {
    pub fn pushed(&self, kind: &TypeUrl) {
        self.types[kind.index()].pushes.fetch_add(1, Relaxed);
    }

    pub fn nacked(&self, kind: &TypeUrl) {
        self.types[kind.index()].nacks.fetch_add(1, Relaxed);
    }

    pub fn stale_nonce(&self, kind: &TypeUrl) {
        self.types[kind.index()].stale.fetch_add(1, Relaxed);
    }

    pub fn loaded(&self, ok: bool) {
        if ok { &self.loads_ok } else { &self.loads_failed }.fetch_add(1, Relaxed);
    }

    pub fn certificate(&self, ok: bool) {
        if ok { &self.certificates_issued } else { &self.certificates_refused }.fetch_add(1, Relaxed);
    }

    pub fn stream_refused(&self) {
        self.streams_refused.fetch_add(1, Relaxed);
    }

    pub fn handshake_failed(&self) {
        self.handshakes_failed.fetch_add(1, Relaxed);
    }

    pub fn translated(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len());
        self.translate_buckets[bucket].fetch_add(1, Relaxed);
        self.translate_micros.fetch_add(micros, Relaxed);
    }

    /// Writes all counters in Prometheus' text format.
    pub fn render(&self, out: &mut String) {
        let mut per_type = |name: &str, help: &str, read: fn(&PerType) -> &AtomicU64| {
            header(out, name, help, "counter");
            for (short, counters) in TypeUrl::SHORT_NAMES.iter().zip(&self.types) {
                line(out, name, &format!("{{type=\"{short}\"}}"), read(counters).load(Relaxed));
            }
        };
        per_type("outrigger_control_pushes_total", "Responses sent to clients", |t| &t.pushes);
        per_type("outrigger_control_nacks_total", "Responses refused by clients", |t| &t.nacks);
        per_type("outrigger_control_stale_nonces_total", "Requests with a nonce no longer current", |t| &t.stale);

        let mut pair = |name: &str, help: &str, ok: (&str, &AtomicU64), bad: (&str, &AtomicU64)| {
            header(out, name, help, "counter");
            for (result, counter) in [ok, bad] {
                line(out, name, &format!("{{result=\"{result}\"}}"), counter.load(Relaxed));
            }
        };
        let loads = "Loads of the configuration directory";
        pair("outrigger_control_config_loads_total", loads, ("ok", &self.loads_ok), ("refused", &self.loads_failed));
        pair(
            "outrigger_control_certificates_total",
            "Certificate requests",
            ("issued", &self.certificates_issued),
            ("refused", &self.certificates_refused),
        );

        let refused = "outrigger_control_streams_refused_total";
        header(out, refused, "ADS streams refused before the first response", "counter");
        line(out, refused, "", self.streams_refused.load(Relaxed));
        let handshakes = "outrigger_control_tls_handshakes_failed_total";
        header(out, handshakes, "TLS handshakes that did not complete", "counter");
        line(out, handshakes, "", self.handshakes_failed.load(Relaxed));

        let translate = "outrigger_control_translate_seconds";
        header(out, translate, "Time to generate one client's resources", "histogram");
        let mut total = 0;
        for (bound, bucket) in BOUNDS.iter().zip(&self.translate_buckets) {
            total += bucket.load(Relaxed);
            let seconds = Duration::from_micros(*bound).as_secs_f64();
            line(out, &format!("{translate}_bucket"), &format!("{{le=\"{seconds}\"}}"), total);
        }
        total += self.translate_buckets[BOUNDS.len()].load(Relaxed);
        line(out, &format!("{translate}_bucket"), "{le=\"+Inf\"}", total);
        let seconds = Duration::from_micros(self.translate_micros.load(Relaxed)).as_secs_f64();
        line(out, &format!("{translate}_sum"), "", seconds);
        line(out, &format!("{translate}_count"), "", total);
    }
}

/// Writes `# HELP` and `# TYPE`.
pub(crate) fn header(out: &mut String, name: &str, help: &str, kind: &str) {
    write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n").expect("writing to a String cannot fail");
}

/// Writes one sample.
pub(crate) fn line(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    writeln!(out, "{name}{labels} {value}").expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_histogram_are_cumulative() {
        let metrics = Metrics::default();
        metrics.pushed(&TypeUrl::Cluster);
        metrics.nacked(&TypeUrl::Other("x".into()));
        metrics.translated(Duration::from_micros(400));
        metrics.translated(Duration::from_secs(9));
        let mut text = String::new();
        metrics.render(&mut text);
        for expected in [
            "outrigger_control_pushes_total{type=\"CDS\"} 1\n",
            "outrigger_control_pushes_total{type=\"EDS\"} 0\n",
            "outrigger_control_nacks_total{type=\"other\"} 1\n",
            "outrigger_control_translate_seconds_bucket{le=\"0.0001\"} 0\n",
            "outrigger_control_translate_seconds_bucket{le=\"0.0005\"} 1\n",
            "outrigger_control_translate_seconds_bucket{le=\"2\"} 1\n",
            "outrigger_control_translate_seconds_bucket{le=\"+Inf\"} 2\n",
            "outrigger_control_translate_seconds_count 2\n",
        ] {
            assert!(text.contains(expected), "{expected} not in\n{text}");
        }
    }
}
