use std::{
    io::{Read, Write},
    sync::Mutex as StdMutex,
};

use serde_json::Value;

use super::*;
use crate::{
    live::{Live, Resolved, testing},
    settings::Settings,
    worker::Shared,
};

pub(super) struct Rig {
    pub(super) admin: Admin,
    requests: mpsc::UnboundedReceiver<Request>,
    levels: Arc<StdMutex<Vec<String>>>,
    registry: Arc<Registry>,
}

pub(super) async fn start() -> Rig {
    start_with(&[testing::tcp_listener("l", "127.0.0.1", 0, "a", "")]).await
}

pub(super) async fn start_with(listeners: &[String]) -> Rig {
    start_beside(listeners, &[]).await
}

/// With further clusters beside `a`.
pub(super) async fn start_beside(listeners: &[String], further: &[String]) -> Rig {
    let builder = testing::builder();
    let mut clusters = vec![testing::cluster("a", "127.0.0.1:1".parse().unwrap())];
    clusters.extend_from_slice(further);
    let snapshot = testing::snapshot(3, &testing::statics(listeners, &clusters));
    let (live, problems) = builder.build(&snapshot, &Resolved::default(), &Live::default());
    assert!(problems.is_empty(), "{problems:?}");
    live.cluster("a").unwrap().stats.local().upstream_rq_2xx.add(7);
    let publisher = Arc::new(Publisher::default());
    publisher.publish(Arc::new(live));
    let (shutdown, requests) = mpsc::unbounded_channel();
    let levels = Arc::<StdMutex<Vec<String>>>::default();
    let set = levels.clone();
    let settings = <Settings as clap::Parser>::parse_from([
        "outrigger-proxy",
        "-c",
        "x",
        "--config-yaml",
        "private: key",
        "--status-address",
        "127.0.0.1:0",
    ]);
    let context = Context {
        settings,
        address: Some(AdminAddress::Tcp("127.0.0.1:0".parse().unwrap())),
        node: Node { id: "me".into(), ..Node::default() },
        shared: Arc::new(Shared::new(publisher.clone(), None)),
        publisher,
        registry: builder.registry.clone(),
        secrets: builder.secrets.clone(),
        sinks: builder.sinks.clone(),
        subscription: xds::start(xds::StartConfig::default(), Arc::new(Nowhere)),
        set_log_level: Box::new(move |level| {
            if level.contains("wrong") {
                return Err("no such level".into());
            }
            set.lock().unwrap().push(level.to_owned());
            Ok(())
        }),
        shutdown,
        workers: 2,
    };
    let admin = super::prepare(context, Vec::new()).unwrap();
    admin.serve().unwrap();
    Rig { admin, requests, levels, registry: builder.registry }
}

/// xDS that never connects.
#[derive(Debug)]
struct Nowhere;

impl xds::Transport for Nowhere {
    fn connect(
        self: Arc<Self>,
        _: &str,
    ) -> futures_util::future::BoxFuture<'static, Result<Box<dyn xds::Connection>, String>> {
        Box::pin(async { Err("nowhere".to_owned()) })
    }
}

/// A body that came in chunks.
fn whole(mut chunked: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = chunked.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        body += &rest[..size];
        chunked = rest[size..].strip_prefix("\r\n").unwrap();
    }
    body
}

impl Rig {
    /// Status, head and body of one request; `port` 0 is the admin interface, 1 the status port.
    pub(super) async fn send(&self, port: usize, request: &str) -> (u16, String, String) {
        let address = lock(&self.admin.servers)[port].address().unwrap();
        let request = request.to_owned();
        let text = tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        })
        .await
        .unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let head = head.to_ascii_lowercase();
        let body = if head.contains("transfer-encoding: chunked") { whole(body) } else { body.to_owned() };
        (status, head, body)
    }

    pub(super) fn overload(&self) {
        self.admin.state().set_overload(Overload { sheds: true, ..Overload::default() });
    }

    async fn call(&self, method: &str, path: &str) -> (u16, String) {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let (status, _, body) = self.send(0, &request).await;
        (status, body)
    }

    pub(super) async fn get(&self, path: &str) -> (u16, String) {
        self.call("GET", path).await
    }

    pub(super) async fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"))
    }
}

#[tokio::test]
async fn readiness_names_every_reason() {
    let rig = start().await;
    let (status, body) = rig.get("/ready").await;
    assert_eq!((status, &*body), (503, "PRE_INITIALIZING\nno configuration in force yet\n"));
    let state = rig.admin.state();
    state.applied(3);
    assert_eq!(rig.get("/ready").await, (200, "LIVE\n".to_owned()));
    state.set_sockets(Default::default(), vec!["listener l: cannot bind 0.0.0.0:80: in use".into()]);
    let (status, body) = rig.get("/ready?verbose").await;
    let verbose: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &verbose["reasons"][0]["code"]), (503, &Value::from("cannot_bind")));
    state.set_sockets(Default::default(), Vec::new());
    state.set_awaits_checks(true);
    assert_eq!(
        rig.get("/ready").await,
        (503, "PRE_INITIALIZING\nhosts of some clusters were not checked yet\n".to_owned())
    );
    state.set_awaits_checks(false);
    assert_eq!(rig.call("POST", "/healthcheck/fail").await.0, 200);
    assert_eq!(rig.get("/ready").await.0, 503);
    assert_eq!(rig.call("POST", "/healthcheck/ok").await.0, 200);
    state.set_draining();
    assert_eq!(rig.get("/ready").await.1, "DRAINING\nthe proxy is shutting down\n");
    assert_eq!(rig.json("/server_info").await["state"], "DRAINING");
}

#[tokio::test]
async fn statistics_in_every_format() {
    let rig = start().await;
    let listener = rig.registry.listener(&"x".into());
    listener.local().no_filter_chain_match.add(2);
    let (_, text) = rig.get("/stats?usedonly").await;
    assert!(
        text.contains("cluster.a.upstream_rq_2xx: 7\n") && text.contains("listener.x.no_filter_chain_match: 2\n"),
        "{text}"
    );
    assert!(!text.contains(": 0\n"), "{text}");
    let (_, text) = rig.get("/stats?filter=^cluster.*rq_2xx$").await;
    assert_eq!(text, "cluster.a.upstream_rq_2xx: 7\n");
    let json = rig.json("/stats?format=json&filter=%5Ecluster%5C.a%5C.upstream_rq_2xx$").await;
    assert_eq!(json["stats"][0]["value"], 7);
    for path in ["/stats/prometheus", "/stats?format=prometheus"] {
        let (_, text) = rig.get(path).await;
        assert!(
            text.contains(
                "\nenvoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"a\"} 7\n"
            ),
            "{text}"
        );
        assert_eq!(text.matches("# TYPE envoy_cluster_upstream_rq_xx counter").count(), 1);
        assert!(text.contains("envoy_server_panics"), "{text}");
    }
    let accept = "accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let request = format!("GET /stats/prometheus HTTP/1.1\r\nhost: a\r\n{accept}\r\nconnection: close\r\n\r\n");
    let (_, head, body) = rig.send(0, &request).await;
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(body.contains("# TYPE outrigger_metric_series gauge\n") && body.ends_with("\n# EOF\n"), "{body}");
    let http = rig.registry.http(&"h".into());
    http.local().downstream_rq_time.time(std::time::Duration::from_millis(3));
    let (_, text) = rig.get("/stats?filter=^http.h.downstream_rq_time$").await;
    assert!(text.starts_with("http.h.downstream_rq_time: P0(nan,1) ") && text.ends_with(" P100(nan,5)\n"), "{text}");
    let json = rig.json("/stats?format=json&type=Histograms&usedonly").await;
    let computed = &json["stats"][0]["histograms"]["computed_quantiles"];
    assert_eq!(
        (&computed[0]["name"], &computed[0]["values"][9]["cumulative"]),
        (&"http.h.downstream_rq_time".into(), &5.0.into())
    );
    let (_, text) = rig.get("/stats/prometheus?filter=^http%5C.h").await;
    assert!(text.contains("envoy_http_downstream_rq_total{") && !text.contains("envoy_server_live"), "{text}");
    let (_, text) = rig.get("/stats/prometheus?usedonly").await;
    let bucket = "envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix=\"h\",le=\"5.0\"} 1\n";
    assert!(text.contains(bucket) && !text.contains("downstream_cx_length_ms"), "{text}");
    assert!(!rig.get("/stats?type=Gauges").await.1.contains("upstream_rq_2xx"));
    assert!(rig.get("/stats?type=Counters").await.1.contains("upstream_rq_2xx: 7"));
    assert!(rig.get("/stats?type=Histograms&filter=upstream").await.1.contains(": No recorded values\n"));
    assert_eq!(rig.call("POST", "/reset_counters").await.0, 200);
    assert_eq!(rig.get("/stats?filter=^cluster.*rq_2xx$").await.1, "cluster.a.upstream_rq_2xx: 0\n");
    assert!(rig.get("/stats/prometheus").await.1.contains("envoy_cluster_name=\"a\"} 7\n"), "to Prometheus the total");
    assert_eq!(rig.get("/stats?type=x").await.0, 400);
    assert_eq!(rig.get("/stats?filter=(").await.0, 400);
    assert_eq!(rig.get("/stats?format=xml").await.0, 400);
}

#[tokio::test]
async fn clusters_listeners_and_information() {
    let rig = start().await;
    let bound = "127.0.0.1:4321".parse().unwrap();
    rig.admin.state().set_sockets(BTreeMap::from([("l".into(), vec![bound])]), Vec::new());
    let (_, text) = rig.get("/clusters").await;
    assert!(text.contains("a::127.0.0.1:1::health_flags::healthy\n"), "{text}");
    let clusters = rig.json("/clusters?format=json").await;
    let host = &clusters["cluster_statuses"][0]["host_statuses"][0];
    assert_eq!(host["address"]["socket_address"]["port_value"], 1);
    assert_eq!(rig.get("/listeners").await.1, "l::127.0.0.1:4321\n", "the port the kernel chose");
    let listeners = rig.json("/listeners?format=json").await;
    assert_eq!(listeners["listener_statuses"][0]["local_address"]["socket_address"]["port_value"], 4321);
    let info = rig.json("/server_info").await;
    assert_eq!((&info["node"]["id"], &info["command_line_options"]["concurrency"]), (&"me".into(), &2.into()));
    assert_eq!(info["command_line_options"]["config_yaml"], "[redacted]");
    assert!(rig.json("/config_dump").await["configs"].is_array());
    assert_eq!(rig.get("/config_dump?mask=nope").await.0, 400);
    assert_eq!(rig.get("/config_dump?resource=nope").await.0, 404);
    assert!(rig.json("/certs").await["certificates"].is_array());
    assert_eq!(clusters["cluster_statuses"][0]["circuit_breakers"]["thresholds"][1]["priority"], "HIGH");
    assert_eq!(rig.json("/clusters?format=json&filter=nothing").await["cluster_statuses"].as_array().unwrap().len(), 0);
    assert_eq!(rig.get("/clusters?filter=(").await.0, 400);
    assert_eq!(rig.json("/runtime").await, serde_json::json!({"layers": [], "entries": {}}));
    assert_ne!(rig.json("/memory").await["total_physical_bytes"], "0");
    assert_eq!(rig.json("/init_dump").await, serde_json::json!({}));
    assert_eq!(rig.get("/contention").await.0, 200);
    assert_eq!(rig.get("/hot_restart_version").await.1, "disabled\n");
    assert_eq!(rig.get("/heap_dump").await.0, 501);
    assert_eq!(rig.call("POST", "/cpuprofiler?enable=y").await.0, 501);
    assert!(rig.get("/help").await.1.contains("/quitquitquit"));
    assert_eq!(rig.get("/nothing").await.0, 404);
}

#[tokio::test]
async fn what_changes_something_is_posted_and_reaches_the_control_loop() {
    let mut rig = start().await;
    assert_eq!(rig.call("POST", "/replace").await.0, 400, "nobody supervises a test");
    for path in
        ["/replace", "/quitquitquit", "/drain_listeners", "/logging?level=debug", "/reopen_logs", "/healthcheck/fail"]
    {
        assert_eq!(rig.get(path).await.0, 405, "{path}");
    }
    assert_eq!(rig.call("DELETE", "/stats").await.0, 405);
    assert!(rig.requests.try_recv().is_err(), "nothing was asked for");
    for (path, expected) in [
        ("/quitquitquit", Request::Stop),
        ("/drain_listeners?inboundonly&graceful", Request::DrainListeners { inbound_only: true, graceful: true }),
        ("/drain_listeners", Request::DrainListeners { inbound_only: false, graceful: false }),
        ("/reopen_logs", Request::ReopenLogs),
    ] {
        assert_eq!(rig.call("POST", path).await, (200, "OK\n".to_owned()));
        assert_eq!(rig.requests.try_recv(), Ok(expected));
    }
}

#[tokio::test]
async fn log_levels_of_targets_leave_the_rest_as_it_is() {
    let rig = start().await;
    let log = async |path: &str| rig.call("POST", path).await.0;
    assert_eq!(log("/logging?paths=outrigger_proxy::xds:debug").await, 200);
    assert_eq!(log("/logging?level=warning").await, 200);
    assert_eq!(log("/logging?hyper=trace").await, 200);
    assert_eq!(log("/logging?level=wrong").await, 400);
    assert!(rig.call("POST", "/logging").await.1.contains("  http: warning\n"), "a level that failed changes nothing");
    assert_eq!(*rig.levels.lock().unwrap(), ["info,outrigger_proxy::xds=debug", "warning", "warning,hyper=trace"]);
}

#[tokio::test]
async fn who_watches_is_bounded_in_lines_time_and_number() {
    let rig = start().await;
    for wrong in ["limit=0", "limit=x", "seconds=100000", "status=9xx", "source=x", "nonsense=1"] {
        assert_eq!(rig.get(&format!("/tap?{wrong}")).await.0, 400, "{wrong}");
    }
    let (status, body) = rig.get("/tap?seconds=1&path=/nothing-has-this-path").await;
    assert_eq!(status, 200);
    assert!(body.contains("{\"end\":\"time\",\"lines\":0,\"dropped\":0}\n"), "{body}");
    assert!(rig.json("/failures").await["failures"].is_array());
}

#[tokio::test]
async fn browsers_get_a_page_that_asks_nobody_else() {
    let rig = start().await;
    let request = "GET / HTTP/1.1\r\nhost: a\r\naccept: text/html,application/xhtml+xml\r\nconnection: close\r\n\r\n";
    let (status, head, page) = rig.send(0, request).await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/html") && head.contains("connect-src 'self'"), "{head}");
    for outside in ["http://", "https://", "src=", "@import", "innerHTML"] {
        assert!(!page.contains(outside), "{outside}");
    }
    // Whatever the page asks for is answered.
    for path in page.split("get(\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!([200, 503].contains(&rig.get(path).await.0), "{path}");
    }
    assert!(rig.get("/").await.1.contains("/config_dump: "), "curl gets the list");
}

#[tokio::test]
async fn hostile_and_unusual_requests() {
    let rig = start().await;
    let (status, head, body) = rig.send(0, "HEAD /help HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert_eq!((status, &*body), (200, ""));
    assert!(head.contains("content-length: ") && !head.contains("content-length: 0"), "{head}");
    assert_eq!(rig.send(0, "\u{0}\u{1}garbage\r\n\r\n").await.0, 400);
    let large = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100 << 10));
    assert!(matches!(rig.send(0, &large).await.0, 414 | 431), "bounded");
    assert_eq!(rig.get("/stats?filter=%FF%00&&=&usedonly=off").await.0, 200);
    let posted = "POST /healthcheck/ok HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc";
    assert_eq!(rig.send(0, posted).await.0, 200, "a body is not read, and not held against anybody");
}

#[tokio::test]
async fn the_status_port_changes_and_tells_nothing_more_than_it_must() {
    let mut rig = start().await;
    rig.admin.state().applied(3);
    let ask = async |rig: &Rig, request: &str| rig.send(1, &format!("{request} HTTP/1.0\r\n\r\n")).await;
    assert_eq!(ask(&rig, "GET /healthz/ready").await.0, 200);
    assert!(ask(&rig, "GET /metrics").await.2.contains("envoy_server_live"));
    for path in ["GET /config_dump", "GET /clusters", "POST /quitquitquit", "POST /drain_listeners", "GET /"] {
        assert_eq!(ask(&rig, path).await.0, 404, "{path}");
    }
    assert!(rig.requests.try_recv().is_err());
    rig.admin.state().set_drained();
    let (status, _, body) = ask(&rig, "GET /healthz/ready").await;
    assert_eq!((status, &*body), (503, "DRAINING\nPOST /drain_listeners was called\n"));
    assert_eq!(rig.get("/ready").await.0, 200, "as with Envoy, the admin interface does not count that");
}

#[tokio::test]
async fn an_answer_under_way_is_still_given_when_the_interface_stops() {
    let rig = start().await;
    let address = lock(&rig.admin.servers)[0].address().unwrap();
    let mut idle = std::net::TcpStream::connect(address).unwrap();
    idle.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    assert_eq!(rig.call("POST", "/quitquitquit").await.0, 200);
    rig.admin.stop().await;
    let read = tokio::task::spawn_blocking(move || idle.read(&mut [0; 1]));
    assert!(matches!(read.await.unwrap(), Ok(0) | Err(_)), "idle connections are closed");
    assert!(std::net::TcpStream::connect(address).is_err(), "and nobody is let in any more");
}
