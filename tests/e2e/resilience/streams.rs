//! Connections that live long: a raw TCP stream, an upgraded one and a response without end go on through edits that do
//! not concern them, and through renewals of the certificates they were made with.

use std::net::TcpStream;

use outrigger_tests::{
    Exchange, Mesh, Workload, eventually,
    exchange::{Server, accept},
    need,
    pair::{SERVICE4, STRICT, by4, service},
};

const PORTS: &[(&str, u16, u16)] = &[("http", 80, 9080), ("tcp-echo", 7000, 7000), ("spare", 8500, 8500)];

struct Streams {
    // The workloads go before the mesh, in whose folder their logs are.
    client: Workload,
    server: Workload,
    mesh: Mesh,
    /// Both ends of each stream, and how a message looks in either direction.
    open: Vec<(&'static str, TcpStream, TcpStream)>,
    response: (TcpStream, TcpStream),
    said: usize,
}

fn streams(flags: &[&str]) -> Streams {
    let mut mesh = Mesh::start(&[(&SERVICE4.to_string(), "app")]);
    mesh.apply("services.yaml", &service("app", "server", PORTS));
    mesh.apply("strict.yaml", STRICT);
    let client = mesh.workload_with("client", &[("app", "client")], flags);
    let server = mesh.workload_with("server", &[("app", "server")], flags);
    mesh.settle();
    let http = Server::new(server.pod.listen(9080));
    let tcp = server.pod.listen(7000);

    let mut raw = client.pod.connect(by4(7000));
    raw.say("hello");
    let mut raw_peer = accept(&tcp);
    assert_eq!(raw_peer.hear(5), b"hello");

    let mut upgraded = client.pod.connect(by4(80));
    upgraded.say("GET /chat HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let (mut upgraded_peer, _) = http.request();
    upgraded_peer.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(upgraded.head().starts_with("HTTP/1.1 101 "));

    let mut endless = client.pod.connect(by4(80));
    endless.say("GET /events HTTP/1.1\r\nHost: app\r\n\r\n");
    let (mut endless_peer, _) = http.request();
    endless_peer.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert!(endless.head().starts_with("HTTP/1.1 200 "));

    let open = vec![("raw TCP", raw, raw_peer), ("an upgraded connection", upgraded, upgraded_peer)];
    Streams { client, server, mesh, open, response: (endless, endless_peer), said: 0 }
}

impl Streams {
    /// A message in each direction of each stream.
    fn alive(&mut self, after: &str) {
        self.said += 1;
        let message = format!("{:08}", self.said);
        for (what, client, server) in &mut self.open {
            client.say(&message);
            assert_eq!(server.hear(8), message.as_bytes(), "{what} after {after}");
            server.say(&message);
            assert_eq!(client.hear(8), message.as_bytes(), "{what} after {after}");
        }
        let (client, server) = &mut self.response;
        server.say(format!("8\r\n{message}\r\n"));
        assert_eq!(client.hear(13), format!("8\r\n{message}\r\n").as_bytes(), "a long response after {after}");
    }

    /// They also end as they should.
    fn end(mut self) {
        for (what, mut client, mut server) in std::mem::take(&mut self.open) {
            client.finish();
            assert!(server.hear_end().is_empty(), "{what}");
            server.finish();
            assert!(client.hear_end().is_empty(), "{what}");
        }
        let (mut client, mut server) = self.response;
        server.say("0\r\n\r\n");
        assert_eq!(client.hear(5), b"0\r\n\r\n");
        self.client.assert_sound();
        self.server.assert_sound();
    }
}

fn peer_authentication(name: &str, selector: &str, mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{{selector}mtls: {{mode: {mode}}}}}\n"
    )
}

#[test]
fn streams_survive_edits_that_do_not_concern_them() {
    need!("ip", "curl");
    let mut s = streams(&[]);
    s.alive("the beginning");
    for n in 0..20 {
        let mode = ["STRICT", "PERMISSIVE"][n % 2];
        // Another service comes and goes, with routes and a rule of its own.
        if n % 4 == 3 {
            s.mesh.remove("other.yaml");
        } else {
            let other = service("other", "nobody", &[("http", 80, 1), ("tcp", 7000, 2)])
                .replace(&SERVICE4.to_string(), "10.96.0.99")
                .replace("fd96::10", "fd96::99");
            let rule = format!(
                "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: other, namespace: \
                 default}}\nspec: {{host: other, trafficPolicy: {{connectionPool: {{http: {{http1MaxPendingRequests: \
                 {}}}}}}}}}\n",
                n + 1
            );
            s.mesh.apply("other.yaml", &(other + &rule));
        }
        // A policy for other workloads; then one that lets in more than these streams need.
        s.mesh.apply("others.yaml", &peer_authentication("others", "selector: {matchLabels: {app: others}}, ", mode));
        s.mesh.apply_and_wait("strict.yaml", &peer_authentication("default", "", mode));
        s.alive(&format!("edit {n}, {mode}"));
        // A rule for the service the streams go to, which changes nothing for what is established.
        let weights = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: app, namespace: default}}\n\
             spec:\n  hosts: [app]\n  http:\n  - timeout: {}s\n    route: [{{destination: {{host: app}}}}]\n",
            100 + n
        );
        s.mesh.apply_and_wait("routes.yaml", &weights);
        s.alive(&format!("edit {n} of routes"));
    }
    s.mesh.assert_no_refusals();
    s.end();
}

#[test]
fn streams_survive_renewals_of_their_certificates() {
    need!("ip", "curl");
    let mut s = streams(&["--cert-ttl-s", "8"]);
    for renewals in 2..=4 {
        for workload in [&s.client, &s.server] {
            eventually(&format!("certificate {renewals} of {}", workload.pod.name), || {
                match workload.stat("server.cert_renewals") {
                    n if n >= renewals => Ok(()),
                    n => Err(format!("{n} so far")),
                }
            });
        }
        s.alive(&format!("{renewals} certificates"));
    }
    s.end();
}

#[test]
fn streams_survive_the_control_plane() {
    need!("ip", "curl");
    let mut s = streams(&[]);
    s.mesh.kill_control();
    s.alive("its death");
    s.mesh.start_control();
    let (ok, text) = s.mesh.ctl("wait --timeout 25s --proxies 2");
    assert!(ok, "{text}");
    s.alive("its return");
    s.end();
}
