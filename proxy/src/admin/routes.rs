//! Path to answer. Reading is `GET`; whatever changes something is `POST`, as in Envoy.

use std::sync::{Arc, atomic::Ordering};

use http::{Method, StatusCode};

use super::{
    Inner, Request, clusters,
    http::{Answer, Call},
    info, prometheus, stats,
};
use crate::xds::DumpQuery;

const HELP: &[(&str, &str)] = &[
    ("/", "this list"),
    ("/certs", "the workload's certificate"),
    ("/clusters", "upstream clusters and their endpoints (?format=json)"),
    ("/config_dump", "configuration in force (?resource=, ?include_eds, ?name_regex=)"),
    ("POST /drain_listeners", "drain, and stop accepting now or, with ?graceful, after the drain time (?inboundonly)"),
    ("POST /healthcheck/fail", "make /ready fail"),
    ("POST /healthcheck/ok", "undo /healthcheck/fail"),
    ("/help", "this list"),
    ("/listeners", "listeners and their addresses (?format=json)"),
    ("POST /logging", "log level (?level=debug, ?paths=outrigger_proxy::xds:debug)"),
    ("POST /quitquitquit", "drain and exit"),
    ("/ready", "200 LIVE, or 503 and the reason (?verbose: JSON)"),
    ("POST /reopen_logs", "reopen access log files"),
    ("/server_info", "version, state, settings"),
    ("/stats", "statistics (?filter=REGEX, ?usedonly, ?format=json|prometheus)"),
    ("/stats/prometheus", "statistics for Prometheus"),
];

/// The admin interface.
pub(super) async fn admin(inner: Arc<Inner>, call: Call) -> Answer {
    let changes = matches!(
        call.path.as_str(),
        "/logging" | "/quitquitquit" | "/drain_listeners" | "/healthcheck/fail" | "/healthcheck/ok" | "/reopen_logs"
    );
    if changes && call.method != Method::POST {
        return Answer::error(StatusCode::METHOD_NOT_ALLOWED, format!("{} needs POST\n", call.path));
    }
    match call.path.as_str() {
        "/" | "/help" => Answer::text(help()),
        "/ready" => ready(&inner, &call, Vec::new()),
        "/server_info" => info::server_info(&inner),
        "/config_dump" => config_dump(&inner, &call).await,
        "/clusters" => rendered(inner, call, |inner, call| clusters::clusters(inner, call.is_json())).await,
        "/listeners" => rendered(inner, call, |inner, call| info::listeners(inner, call.is_json())).await,
        "/certs" => info::certs(&inner),
        "/stats" => rendered(inner, call, stats::stats).await,
        "/stats/prometheus" => rendered(inner, call, |inner, call| prometheus::answer(inner, call, None)).await,
        "/logging" => logging(&inner, &call),
        "/quitquitquit" => request(&inner, Request::Stop),
        "/drain_listeners" => {
            let (inbound_only, graceful) = (call.has("inboundonly"), call.has("graceful"));
            request(&inner, Request::DrainListeners { inbound_only, graceful })
        }
        "/reopen_logs" => request(&inner, Request::ReopenLogs),
        "/healthcheck/fail" | "/healthcheck/ok" => {
            inner.state.failed_health.store(call.path.ends_with("fail"), Ordering::Relaxed);
            Answer::text("OK\n")
        }
        _ => Answer::error(StatusCode::NOT_FOUND, format!("invalid path. admin commands are:\n{}", help())),
    }
}

/// The status port: what kubelet and Prometheus may ask from outside the Pod. It changes nothing.
pub(super) async fn status(inner: Arc<Inner>, call: Call) -> Answer {
    match call.path.as_str() {
        // To kubelet a Pod that accepts nothing is not ready, whatever else the proxy still does. With Envoy the
        // listener that answers it is one of the drained.
        "/healthz/ready" | "/ready" => {
            let drained = inner.state.drained.load(Ordering::Relaxed);
            let reason = drained.then(|| ("drained", "POST /drain_listeners was called".to_owned()));
            ready(&inner, &call, reason.into_iter().collect())
        }
        "/stats/prometheus" | "/metrics" => {
            let application = match &inner.application {
                Some(application) => application.scrape(&call).await,
                None => None,
            };
            rendered(inner, call, move |inner, call| prometheus::answer(inner, call, application.as_ref())).await
        }
        _ => Answer::error(StatusCode::NOT_FOUND, "not found\n"),
    }
}

/// Renders off the control thread, one answer at a time: a scrape of a large mesh takes its while and its memory.
async fn rendered(
    inner: Arc<Inner>,
    call: Call,
    render: impl FnOnce(&Inner, &Call) -> Answer + Send + 'static,
) -> Answer {
    let state = inner.state.clone();
    let Ok(_turn) = state.rendering.acquire().await else { return unavailable() };
    tokio::task::spawn_blocking(move || render(&inner, &call)).await.unwrap_or_else(|_| unavailable())
}

fn unavailable() -> Answer {
    Answer::error(StatusCode::SERVICE_UNAVAILABLE, "the answer could not be made\n")
}

fn help() -> String {
    HELP.iter().map(|(path, what)| format!("  {path}: {what}\n")).collect()
}

fn ready(inner: &Inner, call: &Call, further: Vec<(&'static str, String)>) -> Answer {
    let status = inner.context.subscription.status().borrow().clone();
    let mut reasons = inner.state.not_ready(&status);
    reasons.extend(further);
    let code = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if call.parameter("verbose").is_some() {
        let reasons: Vec<_> =
            reasons.iter().map(|(code, text)| serde_json::json!({"code": code, "reason": text})).collect();
        let body = serde_json::json!({
            "ready": reasons.is_empty(),
            "reasons": reasons,
            "version": inner.state.version(),
            "rejected": inner.state.problems(),
            "last_good_configuration": info::last_good(&status),
            "overload": info::overload(inner),
        });
        return Answer { status: code, ..Answer::json(&body) };
    }
    if reasons.is_empty() {
        return Answer::text("LIVE\n");
    }
    let draining = |(code, _): &(&str, String)| matches!(*code, "draining" | "drained");
    let state = if reasons.iter().any(draining) { "DRAINING" } else { "PRE_INITIALIZING" };
    let lines: String = reasons.iter().map(|(_, reason)| format!("{reason}\n")).collect();
    Answer::error(code, format!("{state}\n{lines}"))
}

async fn config_dump(inner: &Inner, call: &Call) -> Answer {
    if call.parameter("mask").is_some() {
        return Answer::error(StatusCode::NOT_IMPLEMENTED, "?mask= is not supported; use ?resource=\n");
    }
    let query = DumpQuery {
        include_eds: call.has("include_eds"),
        resource: call.parameter("resource").map(str::to_owned),
        name_regex: call.parameter("name_regex").map(str::to_owned),
    };
    Answer::json(&inner.context.subscription.config_dump(query).await)
}

/// Sets the level of everything, or adds levels of single targets to the level of everything.
fn logging(inner: &Inner, call: &Call) -> Answer {
    let mut base = super::lock(&inner.state.log_level);
    let (filter, level) = match (call.parameter("level"), call.parameter("paths"), call.query.first()) {
        (Some(level), ..) => (level.to_owned(), Some(level)),
        (None, Some(paths), _) => {
            (format!("{base},{}", paths.split(',').map(per_target).collect::<Vec<_>>().join(",")), None)
        }
        // Envoy's per-logger form: /logging?xds=debug
        (None, None, Some((name, level))) => (format!("{base},{name}={level}"), None),
        (None, None, None) => return Answer::text(format!("log level: {base}\n")),
    };
    match (inner.context.set_log_level)(&filter) {
        Ok(()) => {
            if let Some(level) = level {
                level.clone_into(&mut base);
            }
            Answer::text(format!("log level: {filter}\n"))
        }
        Err(reason) => Answer::error(StatusCode::BAD_REQUEST, format!("{reason}\n")),
    }
}

/// `target:level` of Envoy's `paths` to `target=level`; the target itself may contain `::`.
fn per_target(path: &str) -> String {
    match path.rsplit_once(':') {
        Some((target, level)) if !target.ends_with(':') => format!("{target}={level}"),
        _ => path.to_owned(),
    }
}

fn request(inner: &Inner, request: Request) -> Answer {
    match inner.context.shutdown.send(request) {
        Ok(()) => Answer::text("OK\n"),
        Err(_) => Answer::error(StatusCode::SERVICE_UNAVAILABLE, "the control loop has ended\n"),
    }
}
