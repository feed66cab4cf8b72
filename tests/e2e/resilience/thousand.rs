//! A thousand WebSockets and a hundred gRPC streams: none ends for updates that do not concern it, nor for new
//! certificates of those who carry it.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use bytes::Bytes;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use outrigger_tests::{
    Exchange, Mesh, Workload,
    agent::Agent,
    exchange::{Server, accept},
    need,
    pair::{SERVICE4, STRICT, by4, service},
    pki::Authority,
    until,
};

const PORTS: &[(&str, u16, u16)] = &[("http", 80, 9080), ("grpc", 9090, 9090), ("tcp-echo", 7000, 7000)];
const SOCKETS: usize = 1000;
const CALLS: usize = 100;
const CALLS_PER_CONNECTION: usize = 10;
const PUSHES: usize = 100;
const ROTATIONS: usize = 20;

/// Bidirectional streams of HTTP/2, as gRPC makes them, with both ends in this test.
pub(super) struct Calls {
    runtime: tokio::runtime::Runtime,
    open: Vec<(h2::SendStream<Bytes>, h2::RecvStream)>,
}

impl Calls {
    pub(super) fn open(client: &Workload, server: &Workload) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = server.pod.listen(9090);
        runtime.spawn(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(echo(stream));
            }
        });
        let mut open = Vec::new();
        for _ in 0..CALLS / CALLS_PER_CONNECTION {
            let stream = client.pod.connect(by4(9090));
            open.extend(runtime.block_on(call(stream)));
        }
        Self { runtime, open }
    }

    /// A message there and back on every one.
    pub(super) fn alive(&mut self, after: &str) {
        let message = Bytes::copy_from_slice(format!("{after:16}").as_bytes());
        let open = &mut self.open;
        self.runtime.block_on(async {
            for (n, (send, receive)) in open.iter_mut().enumerate() {
                send.send_data(message.clone(), false).unwrap_or_else(|e| panic!("call {n} after {after}: {e}"));
                let mut heard = Vec::new();
                while heard.len() < message.len() {
                    let data = tokio::time::timeout(Duration::from_secs(30), receive.data()).await;
                    let data = data.unwrap_or_else(|_| panic!("call {n} after {after}: silence"));
                    let data = data.unwrap_or_else(|| panic!("call {n} after {after}: its end"));
                    let data = data.unwrap_or_else(|e| panic!("call {n} after {after}: {e}"));
                    receive.flow_control().release_capacity(data.len()).unwrap();
                    heard.extend(data);
                }
                assert_eq!(heard, message, "call {n} after {after}");
            }
        });
    }
}

async fn echo(stream: tokio::net::TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut send = respond.send_response(head, false).unwrap();
            let mut body = request.into_body();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                if send.send_data(data, false).is_err() {
                    return;
                }
            }
        });
    }
}

async fn call(stream: TcpStream) -> Vec<(h2::SendStream<Bytes>, h2::RecvStream)> {
    stream.set_nonblocking(true).unwrap();
    let stream = tokio::net::TcpStream::from_std(stream).unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut open = Vec::new();
    for _ in 0..CALLS_PER_CONNECTION {
        client = client.ready().await.unwrap();
        let request = http::Request::post("http://app:9090/chat.Chat/Talk")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (response, send) = client.send_request(request, false).unwrap();
        let response = tokio::time::timeout(Duration::from_secs(30), response).await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        open.push((send, response.into_body()));
    }
    open
}

/// WebSockets by their two ends.
struct Sockets(Vec<(TcpStream, TcpStream)>);

impl Sockets {
    fn open(client: &Workload, server: &Workload) -> Self {
        let http = Server::new(server.pod.listen(9080));
        let open = |_| {
            let mut ours = client.pod.connect(by4(80));
            ours.say("GET /chat HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
            let (mut theirs, _) = http.request();
            // The server keeps what it accepted to look for further requests; there are none on this one.
            theirs.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
            assert!(ours.head().starts_with("HTTP/1.1 101 "));
            http.forget();
            (ours, theirs)
        };
        Self((0..SOCKETS).map(open).collect())
    }

    /// A message in both directions of every one.
    fn alive(&mut self, after: &str) {
        let message = format!("{after:16}");
        let message = message.as_bytes();
        let pass = |from: &mut TcpStream| from.write_all(message).unwrap_or_else(|e| panic!("after {after}: {e}"));
        self.0.iter_mut().for_each(|(ours, theirs)| {
            pass(ours);
            pass(theirs);
        });
        for (n, (ours, theirs)) in self.0.iter_mut().enumerate() {
            for end in [theirs, ours] {
                let mut heard = vec![0; message.len()];
                end.read_exact(&mut heard).unwrap_or_else(|e| panic!("socket {n} after {after}: {e}"));
                assert_eq!(heard, message, "socket {n} after {after}");
            }
        }
    }
}

#[test]
fn a_thousand_streams_survive_pushes_and_rotations() {
    need!("ip", "curl");
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard), hard).unwrap();
    let mut mesh = Mesh::start(&[(&SERVICE4.to_string(), "app")]);
    mesh.apply("services.yaml", &service("app", "server", PORTS));
    mesh.apply("strict.yaml", STRICT);
    let root = Authority::new("agents");
    let id = |name: &str| format!("spiffe://cluster.local/ns/default/sa/{name}");
    let names = ["client", "server"];
    let agents = names.map(|name| {
        let agent = Agent::start(mesh.dir(), name);
        agent.give(root.svid(&id(name)));
        agent
    });
    let mut workloads = Vec::new();
    for (name, agent) in names.into_iter().zip(&agents) {
        let flags = ["--spiffe-endpoint-socket", &agent.endpoint()];
        workloads.push(mesh.workload_with(name, &[("app", name)], &flags));
    }
    mesh.settle();
    let (mut sockets, mut calls) =
        (Sockets::open(&workloads[0], &workloads[1]), Calls::open(&workloads[0], &workloads[1]));
    // Raw TCP besides.
    let tcp = workloads[1].pod.listen(7000);
    let mut raw = workloads[0].pod.connect(by4(7000));
    raw.say("hello");
    let mut raw_peer = accept(&tcp);
    assert_eq!(raw_peer.hear(5), b"hello");
    sockets.alive("the start");
    calls.alive("the start");
    for push in 0..PUSHES {
        // A policy for others, a service that others have, and a rule for that.
        let other = service("other", "nobody", &[("http", 80, 1), ("tcp", 7000, 2)])
            .replace(&SERVICE4.to_string(), "10.96.0.99")
            .replace("fd96::10", "fd96::99");
        let policy = format!(
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: others, namespace: default}}\n\
             spec:\n  selector: {{matchLabels: {{app: nobody}}}}\n  action: DENY\n  rules:\n  - to: [{{operation: {{paths: \
             [\"/{push}\"]}}}}]\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: other, \
             namespace: default}}\nspec: {{host: other, trafficPolicy: {{connectionPool: {{http: \
             {{http1MaxPendingRequests: {}}}}}}}}}\n",
            push + 1
        );
        mesh.apply_and_wait("other.yaml", &(other + &policy));
        if push % (PUSHES / ROTATIONS) == 0 {
            let before: Vec<u64> = workloads.iter().map(|w| w.stat("server.cert_renewals")).collect();
            agents.iter().zip(names).for_each(|(agent, name)| agent.give(root.svid(&id(name))));
            for (workload, before) in workloads.iter().zip(before) {
                until("a new identity", || workload.stat("server.cert_renewals") > before);
            }
        }
        if push == PUSHES / 2 {
            sockets.alive("half of it");
            calls.alive("half of it");
        }
    }
    sockets.alive("the end");
    calls.alive("the end");
    raw.say("again");
    assert_eq!(raw_peer.hear(5), b"again");
    mesh.assert_no_refusals();
    for workload in &mut workloads {
        assert!(workload.stat("server.cert_renewals") >= ROTATIONS as u64);
        workload.assert_sound();
    }
}
