//! The catalogue of figures: what each key means, its unit, and which direction is better.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Lower,
    Higher,
    Neither,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) key: &'static str,
    pub(crate) label: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
    /// In the terminal's table; the others are in the JSON and the HTML page.
    pub(crate) headline: bool,
}

const fn figure(key: &'static str, label: &'static str, unit: &'static str, better: Better, headline: bool) -> Figure {
    Figure { key, label, unit, better, headline }
}

use Better::{Higher, Lower, Neither};

/// In the order they are shown.
pub(crate) const FIGURES: &[Figure] = &[
    figure("rps", "requests", "/s", Higher, true),
    figure("p50", "p50", "ms", Lower, true),
    figure("p90", "p90", "ms", Lower, false),
    figure("p99", "p99", "ms", Lower, true),
    figure("p999", "p99.9", "ms", Lower, false),
    figure("p9999", "p99.99", "ms", Lower, false),
    figure("cpu", "CPU", "us/req", Lower, true),
    figure("cpu_user", "CPU user", "us/req", Lower, false),
    figure("cpu_sys", "CPU system", "us/req", Lower, false),
    figure("cpu_out", "CPU outbound", "us/req", Lower, true),
    figure("cpu_in", "CPU inbound", "us/req", Lower, true),
    figure("cpu_out_user", "CPU outbound user", "us/req", Lower, false),
    figure("cpu_out_sys", "CPU outbound system", "us/req", Lower, false),
    figure("cpu_in_user", "CPU inbound user", "us/req", Lower, false),
    figure("cpu_in_sys", "CPU inbound system", "us/req", Lower, false),
    figure("switches", "context switches", "/req", Lower, false),
    figure("preempted", "preemptions", "/req", Lower, false),
    figure("calls_out", "system calls outbound", "/req", Lower, true),
    figure("calls_in", "system calls inbound", "/req", Lower, true),
    figure("busiest_out", "busiest thread outbound", "of CPU", Lower, false),
    figure("busiest_in", "busiest thread inbound", "of CPU", Lower, false),
    figure("rate", "asked rate", "/s", Neither, true),
    figure("lateness", "generator lateness p99", "ms", Neither, false),
    figure("mb_s", "throughput", "MB/s", Higher, true),
    figure("cpu_gb", "CPU of both", "s/GB", Lower, true),
    figure("cpu_gb_user", "CPU user", "s/GB", Lower, false),
    figure("cpu_gb_sys", "CPU system", "s/GB", Lower, false),
    figure("cpu_gb_out", "CPU outbound", "s/GB", Lower, true),
    figure("cpu_gb_in", "CPU inbound", "s/GB", Lower, true),
    figure("rss_out", "RSS outbound", "MB", Lower, true),
    figure("rss_in", "RSS inbound", "MB", Lower, true),
    figure("pss_out", "PSS outbound", "MB", Lower, false),
    figure("pss_in", "PSS inbound", "MB", Lower, false),
    figure("kb_conn_out", "per connection outbound", "kB", Lower, true),
    figure("kb_conn_in", "per connection inbound", "kB", Lower, true),
    figure("rss_closed_out", "RSS outbound after closing", "MB", Lower, true),
    figure("kb_service", "per service", "kB", Lower, true),
    figure("ready_ms", "ready after", "ms", Lower, true),
    figure("use_p50", "update in use p50", "ms", Lower, true),
    figure("use_p99", "update in use p99", "ms", Lower, true),
    figure("use_max", "update in use max", "ms", Lower, false),
    figure("p99_calm", "p99 without updates", "ms", Lower, true),
    figure("p99_churn", "p99 under updates", "ms", Lower, true),
    figure("p99_factor", "p99 under updates / without", "", Lower, true),
    figure("cpu_update", "CPU per update", "us", Lower, true),
    figure("acknowledged", "acknowledged", "/s", Higher, false),
    figure("cpu_added", "CPU added, inbound", "us/req", Lower, true),
    figure("cpu_more", "CPU added", "us/req", Lower, true),
    figure("cpu_percent", "CPU added", "%", Lower, true),
    figure("cpu_out_more", "CPU added, outbound", "us/req", Lower, false),
    figure("cpu_out_percent", "CPU added, outbound", "%", Lower, false),
    figure("cpu_in_more", "CPU added, inbound", "us/req", Lower, false),
    figure("cpu_in_percent", "CPU added, inbound", "%", Lower, false),
    figure("p50_added", "p50 added", "us", Lower, true),
    figure("p99_added", "p99 added", "us", Lower, true),
    figure("slow_share", "share of the slow replica", "%", Lower, true),
    figure("before_ok", "success before", "%", Higher, false),
    figure("before_p50", "p50 before", "ms", Lower, false),
    figure("before_p99", "p99 before", "ms", Lower, true),
    figure("before_others", "load on the others before", "/s", Neither, true),
    figure("fault_ok", "success during", "%", Higher, true),
    figure("fault_p50", "p50 during", "ms", Lower, true),
    figure("fault_p99", "p99 during", "ms", Lower, true),
    figure("fault_others", "load on the others during", "/s", Neither, true),
    figure("after_ok", "success after", "%", Higher, true),
    figure("after_p50", "p50 after", "ms", Lower, false),
    figure("after_p99", "p99 after", "ms", Lower, true),
    figure("after_others", "load on the others after", "/s", Neither, true),
    figure("lost", "lost by the failure", "requests", Lower, true),
    figure("multiplier", "calls at the bottom", "per request", Lower, true),
    figure("growth", "growth", "kB/min", Lower, true),
    figure("binary_mb", "program, stripped", "MB", Lower, true),
    figure("failed", "failed", "", Lower, false),
];

/// Figures that are the same every time: one round tells all.
pub(crate) fn is_exact(key: &str) -> bool {
    key == "binary_mb"
}

pub(crate) fn find(key: &str) -> Option<&'static Figure> {
    FIGURES.iter().find(|f| f.key == key)
}

/// A number with three significant digits, without an exponent.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    let digits = match size {
        0.0 => 0,
        _ if size >= 100.0 => 0,
        _ if size >= 10.0 => 1,
        _ if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unique() {
        for (n, figure) in FIGURES.iter().enumerate() {
            assert!(FIGURES[..n].iter().all(|f| f.key != figure.key), "{}", figure.key);
        }
    }

    #[test]
    fn three_digits_are_enough() {
        assert_eq!([20_301.4, 10.52, 2.344, 0.0421, 0.0].map(number), ["20301", "10.5", "2.34", "0.042", "0"]);
    }
}
