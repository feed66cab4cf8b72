//! Traces as a collector gets them, from real proxies in a row.

#![allow(clippy::unwrap_used)]

mod away;
mod hops;

use std::{
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use outrigger_tests::{
    Fabric, Kind, Pod, Process,
    exchange::{Exchange, try_accept, values},
    proxies::write_bootstrap,
};

const HOP: &str = include_str!("hop.yaml");

const GRPC: &str = "grpc_service: {envoy_grpc: {cluster_name: otel}, timeout: 5s}";
const HTTP: &str = "http_service: {http_uri: {uri: 'http://otel/v1/traces', cluster: otel, timeout: 5s}}";
const HTTP2: &str = "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: \
                     {\"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
                     explicit_http_config: {http2_protocol_options: {}}}}";

/// A Pod with a proxy and an application that calls the next one, if there is one.
struct Hop {
    pod: Pod,
    _app: App,
    proxy: Option<Process>,
}

impl Hop {
    fn new(fabric: &mut Fabric, name: &str, calls: bool) -> Self {
        let pod = fabric.pod(name, &[]);
        let app = App::start(&pod, calls);
        Self { pod, _app: app, proxy: None }
    }

    fn start(&mut self, values: &[(&str, &str)]) {
        let name = self.pod.name.clone();
        let file = write_bootstrap(&self.pod, HOP, &[&[("NAME", &*name)], values].concat());
        self.proxy = Some(Kind::Outrigger.start_ready(&self.pod, &file));
    }

    fn stat(&self, name: &str) -> u64 {
        let text = self.pod.sh("curl -sS http://127.0.0.1:15000/stats");
        text.lines().find_map(|l| l.strip_prefix(&format!("{name}: "))).and_then(|v| v.parse().ok()).unwrap_or(0)
    }
}

/// Answers requests, after it has asked the next application through its own proxy. As applications are to do it hands
/// on the context of the trace.
struct App(Arc<AtomicBool>);

impl App {
    fn start(pod: &Pod, calls: bool) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let listener = pod.listen(8080);
        let (pod, theirs) = (pod.clone(), over.clone());
        std::thread::spawn(move || {
            while !theirs.load(Ordering::Relaxed) {
                serve(&listener, &pod, calls);
            }
        });
        Self(over)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn serve(listener: &TcpListener, pod: &Pod, calls: bool) {
    let Some(mut stream) = try_accept(listener) else { return };
    let head = stream.head();
    let status = if calls {
        let mut call = pod.connect(([127, 0, 0, 1], 9001));
        let mut request = "GET /next?q=1 HTTP/1.1\r\nhost: next.example\r\nconnection: close\r\n".to_owned();
        for name in ["traceparent", "tracestate", "b3", "x-request-id"] {
            values(&head, name).iter().for_each(|value| request.push_str(&format!("{name}: {value}\r\n")));
        }
        call.say(request + "\r\n");
        String::from_utf8_lossy(&call.hear_out()).split(' ').nth(1).unwrap_or("502").to_owned()
    } else {
        "200".to_owned()
    };
    stream.say(format!("HTTP/1.1 {status} OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"));
    stream.finish();
}
