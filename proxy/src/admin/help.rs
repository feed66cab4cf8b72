//! What metrics mean, in a line each: words of our own for what is ours, for Envoy's the name it is documented by.

use std::borrow::Cow;

/// The help text of a metric; `metric` without a response code's class.
pub(super) fn of(scope: &str, metric: &str) -> Cow<'static, str> {
    let ours = OURS.iter().find(|(of, name, _)| *of == scope && *name == metric);
    if let Some((.., text)) = ours {
        return (*text).into();
    }
    match scope {
        "" => format!("Envoy statistic {metric}.").into(),
        scope => format!("Envoy statistic {scope}.<name>.{metric}.").into(),
    }
}

/// What Envoy does not have.
const OURS: &[(&str, &str, &str)] = &[
    ("outrigger", "metric_series", "Series of Istio's standard metrics that are kept."),
    ("outrigger", "metric_series_refused_total", "How often a further series of Istio's metrics had no room."),
    ("outrigger", "metric_series_expired_total", "Series of Istio's metrics that were dropped because they were idle."),
    ("outrigger", "application_scrapes_total", "Scrapes of the application's metrics."),
    ("outrigger", "application_scrape_failures_total", "Scrapes of the application's metrics that brought nothing."),
    ("", "server.panics", "Tasks that ended by a panic; each is a bug and has cost a connection."),
    ("", "server.config_problems", "Resources that kept their former version."),
    ("", "server.config_version", "Version of the configuration in force."),
    ("", "server.cert_seconds_to_expiry", "Lifetime left of the workload certificate, in seconds."),
    ("", "server.cert_renewals", "Renewals of the workload certificate."),
    ("", "server.cert_renewal_failures", "Renewals of the workload certificate that failed."),
    ("", "server.cert_renewal_failing", "Whether the last renewal of the workload certificate failed."),
    ("", "server.clock_skewed", "Whether this machine's clock disagrees with the workload certificate."),
    ("", "access_log.written", "Access log lines written."),
    ("", "access_log.dropped", "Access log lines dropped because the buffer was full."),
    ("", "access_log.failed", "Access log lines that could not be written."),
    ("certificate", "expiration_unix_time_seconds", "When a certificate ends."),
    ("listener", "downstream_cx_loop", "Connections refused because they would have come back here."),
    ("listener", "downstream_cx_revoked", "Connections cut because policy no longer allows them."),
    ("listener", "strict_mtls_would_deny", "Plaintext connections that STRICT mutual TLS would refuse."),
    ("cluster", "upstream_rq_replayed", "Requests sent again because no byte of them can have been processed."),
    (
        "tcp",
        "downstream_cx_overload_close",
        "Connections that idled and were closed for want of memory or descriptors.",
    ),
    ("tcp", "downstream_cx_spliced", "Connections whose bytes the kernel moved."),
    ("http", "rq_mirrored", "Copies of requests sent to mirrors."),
];
