//! Path to answer. Reading is `GET`; whatever changes something is `POST`, as in Envoy.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use http::{Method, StatusCode};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Inner, Request, clusters, explain,
    http::{Answer, Call},
    info, logging, process, prometheus, stats, tap,
};
use crate::xds::{DumpError, DumpQuery};

const HELP: &[(&str, &str)] = &[
    ("/", "this list; to a browser a page with the state, traffic, clusters and failures"),
    ("/certs", "the certificates in use"),
    ("/clusters", "upstream clusters and their endpoints (?format=json, ?filter=REGEX)"),
    ("/config_dump", "configuration in force (?resource=, ?mask=, ?include_eds, ?name_regex=)"),
    ("POST /drain_listeners", "drain, and stop accepting now or, with ?graceful, after the drain time (?inboundonly)"),
    (
        "/explain",
        "what a request would come to, and why (?method=, ?host=, ?path=, ?header=NAME:VALUE, ?source=, ?address=, ?port=, \
         ?direction=inbound, ?listener=, ?tls, ?sni=, ?alpn=, ?principal=, ?protocol=tcp, ?connect_protocol=, ?format=text)",
    ),
    ("/failures", "what failed of late, the newest first"),
    ("POST /healthcheck/fail", "make /ready fail"),
    ("POST /healthcheck/ok", "undo /healthcheck/fail"),
    ("/help", "this list"),
    ("/init_dump", "what waits for resources, and for which (?mask=KIND)"),
    ("/listeners", "listeners and their addresses (?format=json)"),
    ("POST /logging", "log levels (?level=debug, ?paths=router:trace,outrigger_proxy::xds:debug)"),
    ("/memory", "memory as the kernel counts it"),
    ("POST /quitquitquit", "drain and exit"),
    ("POST /replace", "have the supervisor start the program anew, to take over from this process"),
    ("/ready", "200 LIVE, or 503 and the reason (?verbose: JSON)"),
    ("POST /reopen_logs", "reopen access log files"),
    ("POST /reset_counters", "counters of /stats begin at 0 again"),
    ("/runtime", "the runtime layers of the bootstrap"),
    ("/server_info", "version, state, settings"),
    ("/stats", "statistics (?filter=REGEX, ?usedonly, ?type=Counters|Gauges|Histograms, ?format=text|json|prometheus)"),
    ("/stats/prometheus", "statistics for Prometheus"),
    (
        "/tap",
        "requests and connections as they end, a line of JSON each (?route=, ?host=, ?path=PREFIX, ?method=, ?cluster=, \
         ?source=IP, ?status=5xx, ?failed, ?limit=LINES, ?seconds=)",
    ),
];

/// What changes something.
const CHANGES: &[&str] = &[
    "/allocprofiler",
    "/cpuprofiler",
    "/drain_listeners",
    "/healthcheck/fail",
    "/healthcheck/ok",
    "/heapprofiler",
    "/logging",
    "/quitquitquit",
    "/replace",
    "/reopen_logs",
    "/reset_counters",
    "/runtime_modify",
];

/// The admin interface.
pub(super) async fn admin(inner: Arc<Inner>, call: Call) -> Answer {
    if CHANGES.contains(&call.path.as_str()) && call.method != Method::POST {
        let reason = format!("Method {} not allowed, POST required.\n", call.method);
        return Answer::error(StatusCode::METHOD_NOT_ALLOWED, reason);
    }
    match call.path.as_str() {
        "/" if call.html => Answer::html(include_str!("page.html")),
        "/" | "/help" => Answer::text(help()),
        "/ready" => ready(&inner, &call, Vec::new()),
        "/server_info" => process::server_info(&inner),
        "/memory" => process::memory(),
        "/runtime" => runtime(inner).await,
        "/init_dump" => process::init_dump(&inner, &call),
        "/config_dump" => config_dump(inner, call).await,
        "/tap" => tap::tap(&call),
        "/failures" => tap::failures(),
        "/explain" => rendered(inner, call, explain::answer).await,
        "/clusters" => rendered(inner, call, clusters::clusters).await,
        "/listeners" => rendered(inner, call, |inner, call| info::listeners(inner, call.is_json())).await,
        "/certs" => rendered(inner, call, |inner, _| info::certs(inner)).await,
        "/stats" if call.parameter("format") == Some("prometheus") => scraped(inner, call, Vec::new(), false).await,
        "/stats" => rendered(inner, call, stats::stats).await,
        "/stats/prometheus" => scraped(inner, call, Vec::new(), false).await,
        "/reset_counters" => rendered(inner, call, stats::reset).await,
        "/logging" => logging::logging(&inner, &call),
        "/quitquitquit" => request(&inner, Request::Stop),
        "/replace" => match inner.context.settings.replace.supervisor() {
            Some(_) => request(&inner, Request::Replace),
            None => Answer::error(StatusCode::BAD_REQUEST, "this process runs without --supervise\n"),
        },
        "/drain_listeners" if call.has("skip_exit") => Answer::error(
            StatusCode::NOT_IMPLEMENTED,
            "?skip_exit is not supported: what drains here also stops accepting\n",
        ),
        "/drain_listeners" => {
            let (inbound_only, graceful) = (call.has("inboundonly"), call.has("graceful"));
            request(&inner, Request::DrainListeners { inbound_only, graceful })
        }
        "/reopen_logs" => request(&inner, Request::ReopenLogs),
        "/healthcheck/fail" | "/healthcheck/ok" => {
            inner.state.failed_health.store(call.path.ends_with("fail"), Ordering::Relaxed);
            Answer::text("OK\n")
        }
        other => process::absent(other).unwrap_or_else(|| {
            Answer::error(StatusCode::NOT_FOUND, format!("invalid path. admin commands are:\n{}", help()))
        }),
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
        // For a startup probe: Kubernetes kills what does not answer it, and the certificate authority may be away.
        "/healthz/started" if inner.state.has_started(&inner.context.subscription.status().borrow()) => {
            Answer::text("STARTED\n")
        }
        "/healthz/started" => ready(&inner, &call, vec![("starting", "listeners are not open yet".to_owned())]),
        "/stats/prometheus" | "/metrics" => {
            let Ok(place) = inner.state.scrapes.clone().try_acquire_owned() else {
                return Answer::error(StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at a time\n");
            };
            scraped(inner, call, vec![place], true).await
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
    let Ok(turn) = inner.state.rendering.clone().acquire_owned().await else { return unavailable() };
    let answer = tokio::task::spawn_blocking(move || render(&inner, &call)).await.unwrap_or_else(|_| unavailable());
    answer.delivered(turn)
}

/// Metrics, in a turn like all that takes much; with the application's, which is asked once for all who wait.
async fn scraped(inner: Arc<Inner>, call: Call, mut turn: Vec<OwnedSemaphorePermit>, whole_pod: bool) -> Answer {
    let came = Instant::now();
    let Ok(permit) = inner.state.rendering.clone().acquire_owned().await else { return unavailable() };
    turn.push(permit);
    let application = match &inner.application {
        Some(application) if whole_pod => application.scrape(&call, came).await,
        _ => None,
    };
    prometheus::answer(inner, &call, application, turn)
}

async fn runtime(inner: Arc<Inner>) -> Answer {
    let Ok(turn) = inner.state.rendering.clone().acquire_owned().await else { return unavailable() };
    process::runtime(&inner).await.delivered(turn)
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
        return Answer::json(&body).with(code);
    }
    if reasons.is_empty() {
        return Answer::text("LIVE\n");
    }
    let draining = |(code, _): &(&str, String)| matches!(*code, "draining" | "drained");
    let state = if reasons.iter().any(draining) { "DRAINING" } else { "PRE_INITIALIZING" };
    let lines: String = reasons.iter().map(|(_, reason)| format!("{reason}\n")).collect();
    Answer::error(code, format!("{state}\n{lines}"))
}

async fn config_dump(inner: Arc<Inner>, call: Call) -> Answer {
    let Ok(turn) = inner.state.rendering.clone().acquire_owned().await else { return unavailable() };
    let query = DumpQuery {
        include_eds: call.has("include_eds"),
        resource: call.parameter("resource").map(str::to_owned),
        name_regex: call.parameter("name_regex").map(str::to_owned),
        mask: call.parameter("mask").map(str::to_owned),
    };
    match inner.context.subscription.config_dump(query).await {
        Ok(dump) => {
            let answer = tokio::task::spawn_blocking(move || Answer::json(&dump)).await;
            answer.unwrap_or_else(|_| unavailable()).delivered(turn)
        }
        Err(error @ DumpError::NotFound(_)) => Answer::error(StatusCode::NOT_FOUND, format!("{error}\n")),
        Err(error @ DumpError::Bad(_)) => Answer::error(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

fn request(inner: &Inner, request: Request) -> Answer {
    match inner.context.shutdown.send(request) {
        Ok(()) => Answer::text("OK\n"),
        Err(_) => Answer::error(StatusCode::SERVICE_UNAVAILABLE, "the control loop has ended\n"),
    }
}
