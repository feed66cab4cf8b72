//! Circuit breakers of whole proxies: exact over the workers, whoever overflows is told and counted.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Condvar, Mutex, atomic::Ordering::Relaxed},
};

use bytes::Bytes;

use super::testing::{Rig, http_listener, server, until};
use crate::live::testing::statics;

/// An upstream that answers nobody before it may.
#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    opened: Condvar,
}

#[derive(Clone, Copy, Default)]
struct State {
    inside: usize,
    most: usize,
    open: bool,
}

impl Gate {
    fn state(&self) -> State {
        *self.state.lock().unwrap()
    }

    fn open(&self) {
        self.state.lock().unwrap().open = true;
        self.opened.notify_all();
    }

    /// One request comes in, and goes once it may.
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.inside += 1;
        state.most = state.most.max(state.inside);
        let mut state = self.opened.wait_while(state, |s| !s.open).unwrap();
        state.inside -= 1;
    }

    fn serve(&self, stream: TcpStream) {
        let mut writer = stream.try_clone().unwrap();
        let mut reader = BufReader::new(stream);
        while read_head(&mut reader) {
            self.pass();
            if writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
                return;
            }
        }
    }
}

/// As [`Gate::serve`], for many requests at once on an HTTP/2 connection.
fn serve_http2(gate: &Arc<Gate>, stream: TcpStream) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let mut server = h2::server::Builder::new();
        let Ok(mut connection) = server.max_concurrent_streams(1000).handshake::<_, Bytes>(stream).await else {
            return;
        };
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let gate = gate.clone();
            tokio::spawn(async move {
                tokio::task::spawn_blocking(move || gate.pass()).await.unwrap();
                let _ = respond.send_response(http::Response::new(()), true);
            });
        }
    });
}

/// Whether there is another request; it has no body.
fn read_head(reader: &mut impl BufRead) -> bool {
    let mut any = false;
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => return false,
            Ok(_) if line == "\r\n" => return any,
            Ok(_) => any = true,
        }
    }
}

fn gate() -> (Arc<Gate>, SocketAddr) {
    let gate = Arc::<Gate>::default();
    let serving = gate.clone();
    (gate, server(move |stream| serving.serve(stream)))
}

fn http2_gate() -> (Arc<Gate>, SocketAddr) {
    let gate = Arc::<Gate>::default();
    let serving = gate.clone();
    (gate, server(move |stream| serve_http2(&serving, stream)))
}

const HTTP2: &str = r#"
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
"#;

fn cluster(address: SocketAddr, thresholds: &str) -> String {
    format!(
        "\n  - name: c\n    circuit_breakers: {{thresholds: [{{{thresholds}}}]}}\n    load_assignment: \
         {{cluster_name: c, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, \
         port_value: {}}}}}}}}}]}}]}}\n",
        address.ip(),
        address.port()
    )
}

/// A listener whose requests wait for as long as it takes. At a timeout a request is over and its permit back, while
/// the upstream that is at work on it knows nothing yet.
fn patient(log: Option<&std::path::Path>) -> String {
    let text = http_listener("l", "c", log);
    let patient = text.replace("route: {cluster: c}", "route: {cluster: c, timeout: 0s}");
    assert_ne!(patient, text);
    patient
}

fn stat(rig: &Rig, metric: &str) -> u64 {
    let live = rig.shared.publisher.current();
    let mut found = None;
    live.cluster("c").unwrap().visit_stats(&mut |name, _, value| {
        if name == metric {
            found = Some(value);
        }
    });
    found.unwrap_or_else(|| panic!("no statistic {metric}"))
}

fn ask(rig: &mut Rig, count: usize) -> Vec<TcpStream> {
    let ask = |mut stream: TcpStream| {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
        stream
    };
    (0..count).map(|_| ask(rig.connect("l"))).collect()
}

/// The status of an answer.
fn status(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text.contains("x-envoy-overloaded: true"), text.contains("reset reason: overflow"), "{text}");
    text.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn two_workers_send_exactly_as_many_requests_as_allowed_and_count_the_rest() {
    exactly_as_many_as_allowed(gate(), "");
}

#[test]
fn two_workers_send_exactly_as_many_requests_over_http2() {
    exactly_as_many_as_allowed(http2_gate(), HTTP2);
}

fn exactly_as_many_as_allowed((gate, address): (Arc<Gate>, SocketAddr), protocol: &str) {
    const ALLOWED: usize = 50;
    const ASKED: usize = 500;
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut rig = Rig::new(2, None);
    let limits = format!("max_requests: {ALLOWED}, track_remaining: true");
    rig.apply(&statics(&[patient(Some(log.path()))], &[cluster(address, &limits) + protocol]));
    let mut clients = ask(&mut rig, ASKED);
    until("all that may are there, and the others were refused", || {
        gate.state().inside == ALLOWED && stat(&rig, "upstream_rq_pending_overflow") == (ASKED - ALLOWED) as u64
    });
    assert_eq!(stat(&rig, "circuit_breakers.default.rq_open"), 1);
    assert_eq!(stat(&rig, "circuit_breakers.default.remaining_rq"), 0);
    assert_eq!(stat(&rig, "circuit_breakers.high.rq_open"), 0);
    gate.open();
    let statuses: Vec<String> = clients.iter_mut().map(status).collect();
    let with = |wanted: &str| statuses.iter().filter(|s| *s == wanted).count();
    assert_eq!((with("200"), with("503")), (ALLOWED, ASKED - ALLOWED), "{statuses:?}");
    assert_eq!(gate.state().most, ALLOWED, "never more in flight");
    until("every permit is back", || {
        let live = rig.shared.publisher.current();
        let [_, pending, requests, ..] = live.cluster("c").unwrap().breaker(false).used();
        (pending, requests, rig.shared.connections.load(Relaxed)) == (0, 0, 0)
    });
    assert_eq!(stat(&rig, "circuit_breakers.default.rq_open"), 0);
    assert_eq!(stat(&rig, "upstream_rq_total"), ALLOWED as u64, "as in Envoy, who overflows was none");
    let lines = || std::fs::read_to_string(log.path()).unwrap();
    until("all are logged", || lines().lines().count() == ASKED);
    assert_eq!(lines().lines().filter(|line| *line == "503 UO").count(), ASKED - ALLOWED);
}

#[test]
fn requests_that_wait_are_bounded_over_the_workers() {
    let (gate, address) = gate();
    let mut rig = Rig::new(2, None);
    let limits = "max_connections: 1, max_pending_requests: 3";
    rig.apply(&statics(&[patient(None)], &[cluster(address, limits)]));
    let mut first = ask(&mut rig, 1);
    until("the first is there", || gate.state().inside == 1);
    let mut clients = ask(&mut rig, 20);
    // A worker whose pool has no connection opens one, as in Envoy: one or two are inside.
    let refused = || stat(&rig, "upstream_rq_pending_overflow");
    until("all wait or were refused", || {
        let waiting = stat(&rig, "upstream_rq_pending_active");
        assert!(waiting <= 3 && gate.state().most <= 2);
        refused() + waiting + gate.state().inside as u64 - 1 == 20
    });
    assert!(refused() >= 16);
    gate.open();
    let served = clients.iter_mut().map(status).filter(|s| s == "200").count();
    assert_eq!(served as u64, 20 - refused());
    assert_eq!(status(&mut first[0]), "200");
}

#[test]
fn requests_under_way_are_bounded_over_the_workers() {
    const ALLOWED: usize = 10;
    const ASKED: usize = 60;
    for (gate, address, protocol) in [gate(), http2_gate()].into_iter().zip(["", HTTP2]).map(|((g, a), p)| (g, a, p)) {
        let mut rig = Rig::bounded(2, None, Some(ALLOWED as u64));
        rig.apply(&statics(&[patient(None)], &[cluster(address, "") + protocol]));
        let mut clients = ask(&mut rig, ASKED);
        let shed = |rig: &Rig| rig.stat("http", "h", "downstream_rq_overload_close");
        until("all that may are there, and the others were refused", || {
            gate.state().inside == ALLOWED && shed(&rig) == (ASKED - ALLOWED) as u64
        });
        gate.open();
        let statuses: Vec<String> = clients
            .iter_mut()
            .map(|stream| {
                let mut text = String::new();
                stream.read_to_string(&mut text).unwrap();
                text.split(' ').nth(1).unwrap_or_default().to_owned()
            })
            .collect();
        let with = |wanted: &str| statuses.iter().filter(|s| *s == wanted).count();
        assert_eq!((with("200"), with("503")), (ALLOWED, ASKED - ALLOWED), "{statuses:?}");
        assert_eq!(gate.state().most, ALLOWED);
        // All the room is there again.
        until("every connection is gone", || rig.shared.connections.load(Relaxed) == 0);
        assert!(ask(&mut rig, ALLOWED).iter_mut().all(|stream| status(stream) == "200"));
    }
}

#[test]
fn two_connections_are_served_by_two_workers() {
    let (gate, address) = gate();
    gate.open();
    // By hash alone one round in two would have both with the same worker.
    for round in 0..8 {
        let mut rig = Rig::new(2, None);
        rig.apply(&statics(&[http_listener("l", "c", None)], &[cluster(address, "")]));
        let mut clients = [rig.connect("l"), rig.connect("l")];
        for client in &mut clients {
            client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
            assert!(read_head(&mut BufReader::new(client)), "an answer");
        }
        // Each worker has connections of its own: one worker would have used the first again.
        assert_eq!(stat(&rig, "upstream_cx_total"), 2, "round {round}");
    }
}
