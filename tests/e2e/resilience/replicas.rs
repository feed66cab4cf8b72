//! A replica that goes without a word, and a service that fails altogether: what retries mend, and what they must not
//! make worse.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use nix::sys::signal::Signal;
use outrigger_tests::{
    Exchange, Fabric, Kind, Mesh, Pod, eventually,
    exchange::patient,
    mesh::bin,
    need,
    pair::{SERVICE4, STRICT, service},
    proxies::write_bootstrap,
};

use super::{Load, PORTS, Versions};

const POLICY: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: app, namespace: default}\n\
                      spec:\n  hosts: [app]\n  http:\n  - route: [{destination: {host: app}}]\n    \
                      retries: {attempts: 2, retryOn: \"connect-failure,refused-stream,reset,503\"}\n\
                      ---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: app, namespace: default}\n\
                      spec:\n  host: app\n  trafficPolicy:\n    outlierDetection: {consecutive5xxErrors: 5, interval: 1s, \
                      baseEjectionTime: 30s, maxEjectionPercent: @PERCENT@}\n";

/// A client and three replicas of `app`, with retries and outlier detection that may eject so many of them; 10 % is
/// Istio's default, and none of three.
fn replicas(percent: u32) -> Versions {
    let mut mesh = Mesh::start(&[(&SERVICE4.to_string(), "app")]);
    mesh.apply("services.yaml", &service("app", "server", PORTS));
    mesh.apply("strict.yaml", STRICT);
    mesh.apply("policy.yaml", &POLICY.replace("@PERCENT@", &percent.to_string()));
    let client = mesh.workload("client", &[("app", "client")]);
    let names = ["v1", "v2", "v3"];
    let servers: Vec<_> = names.map(|v| mesh.workload(&format!("server-{v}"), &[("app", "server")])).into();
    let demo = bin("outrigger-demo-app");
    let start = |(server, v): (&outrigger_tests::Workload, _)| {
        server.pod.serve("app", 9080, &format!("{} http [::]:9080 app {v}", demo.display()))
    };
    let applications = servers.iter().zip(names).map(start).collect();
    mesh.settle();
    Versions { client, servers, applications, mesh }
}

#[test]
fn one_replica_of_three_may_be_killed() {
    need!("ip", "curl");
    let mut v = replicas(10);
    // So many in flight that a third of them is more than the floor of the retry budget.
    let load = Load::start(&v, "load", "--connections 60");
    v.progress(400);
    v.servers[0].proxy.signal(Signal::SIGKILL);
    drop(v.applications.remove(0));
    v.servers[0].proxy.wait();
    v.progress(400);
    load.end(&v);
    let stat = |name: &str| v.client.stat(&format!("cluster.outbound|80||app.default.svc.cluster.local.{name}"));
    assert!(stat("upstream_rq_retry_success") + stat("upstream_rq_replayed") > 0, "nobody noticed");
    v.servers.remove(0);
    v.assert_sound();
}

#[test]
fn one_application_of_three_may_be_killed() {
    need!("ip", "curl");
    let mut v = replicas(10);
    let load = Load::start(&v, "load", "--connections 60");
    v.progress(400);
    // Its sidecar answers 503.
    drop(v.applications.remove(0));
    v.progress(400);
    load.end(&v);
    v.assert_sound();
}

#[test]
fn a_replica_that_breaks_its_answers_off_is_ejected() {
    need!("ip", "curl");
    let mut v = replicas(50);
    v.applications.remove(0).stop();
    let listener = v.servers[0].pod.listen(9080);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut stream = patient(stream);
                if stream.peek(&mut [0]).is_ok_and(|count| count > 0) {
                    stream.head();
                    stream.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it");
                }
            });
        }
    });
    let name =
        "cluster.outbound|80||app.default.svc.cluster.local.outlier_detection.ejections_enforced_consecutive_5xx";
    eventually("an ejection", || {
        v.client.pod.try_sh("for n in 1 2 3 4 5 6; do curl -sS -m 5 -o /dev/null http://app/; done");
        if v.client.stat(name) > 0 { Ok(()) } else { Err("nobody is ejected".to_owned()) }
    });
    // Fails when a single request does.
    v.client
        .pod
        .sh(&format!("{} load http://app/ --requests 60 --new-connections", bin("outrigger-demo-app").display()));
    v.assert_sound();
}

#[test]
fn three_replicas_are_replaced_one_by_one_under_load() {
    need!("ip", "curl");
    let mut v = replicas(10);
    let keeping = Load::start(&v, "keeping", "");
    let renewing = Load::start(&v, "renewing", "--new-connections");
    let demo = bin("outrigger-demo-app");
    for n in 1..=3 {
        // The new Pod is an endpoint once it is ready, the old one none any more when it is told to end.
        let name = format!("server-v{n}-next");
        let next = v.mesh.workload(&name, &[("app", "late")]);
        let application = next.pod.serve("app", 9080, &format!("{} http [::]:9080 app next", demo.display()));
        v.mesh.register(&next.pod, &name, &[("app", "server")]);
        v.mesh.settle();
        v.mesh.remove(&format!("pod-server-v{n}.yaml"));
        let mut old = v.servers.remove(0);
        old.proxy.signal(Signal::SIGTERM);
        assert_eq!(old.proxy.wait().code(), Some(0), "{}", old.proxy.output());
        v.applications.remove(0).stop();
        v.servers.push(next);
        v.applications.push(application);
        v.progress(200);
    }
    keeping.end(&v);
    renewing.end(&v);
    v.assert_sound();
}

const HOPS: usize = 3;

const HOP: &str = r#"
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 15000}}}
static_resources:
  listeners:
  - name: hop
    address: {socket_address: {address: 0.0.0.0, port_value: 8080}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: hop
          route_config:
            virtual_hosts:
            - name: next
              domains: ["*"]
              routes:
              - match: {prefix: /}
                route:
                  cluster: next
                  retry_policy: {retry_on: "5xx", num_retries: 3, retry_back_off: {base_interval: 0.001s, max_interval: 0.005s}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: next
    type: STATIC
    circuit_breakers: {thresholds: [{max_retries: 4294967295}]}
    load_assignment:
      cluster_name: next
      endpoints: [{lb_endpoints: [@HOSTS@]}]
"#;

/// Answers every request with the same status until the listener's process ends, and counts them.
fn answer_all(listener: TcpListener, status: &'static str, count: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let count = count.clone();
            std::thread::spawn(move || answer(stream, status, &count));
        }
    });
}

fn answer(mut stream: TcpStream, status: &str, count: &AtomicU64) {
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        head.extend_from_slice(&buffer[..n]);
        while let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") {
            head.drain(..end + 4);
            count.fetch_add(1, Relaxed);
            let _ = stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes());
        }
    }
}

/// Sends requests one after the other; how many were answered with 200.
fn ask(pod: &Pod, to: SocketAddr, requests: u64) -> u64 {
    let mut stream = patient(pod.connect(to));
    (0..requests)
        .filter(|_| {
            stream.say("GET / HTTP/1.1\r\nHost: app\r\n\r\n");
            let head = stream.head();
            let length =
                outrigger_tests::exchange::values(&head, "content-length").first().map_or(0, |l| l.parse().unwrap());
            stream.hear(length);
            head.starts_with("HTTP/1.1 200 ")
        })
        .count() as u64
}

#[test]
fn retries_of_three_hops_do_not_multiply() {
    need!("ip", "curl");
    const CLIENTS: u64 = 4;
    const EACH: u64 = 300;
    let mut fabric = Fabric::new();
    let client = fabric.pod("client", &[]);
    let bottom = fabric.pod("bottom", &[]);
    let count = Arc::new(AtomicU64::new(0));
    let host = |ip: &dyn std::fmt::Display, port: u16| {
        format!("{{endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}}}")
    };
    let ports = [9001, 9002, 9003];
    ports.iter().for_each(|port| answer_all(bottom.listen(*port), "503 Service Unavailable", count.clone()));
    let mut next = ports.map(|port| host(&bottom.ip4, port)).join(", ");
    let mut hops = Vec::new();
    for number in 0..HOPS {
        let pod = fabric.pod(&format!("hop-{number}"), &[]);
        let file = write_bootstrap(&pod, HOP, &[("HOSTS", &next)]);
        let proxy = Kind::Outrigger.start_ready(&pod, &file);
        next = host(&pod.ip4, 8080);
        hops.push((proxy, pod));
    }
    let to: SocketAddr = (hops[HOPS - 1].1.ip4, 8080).into();
    eventually("a listener", || client.try_connect(to).map(drop).map_err(|e| e.to_string()));
    let answered: u64 = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| ask(&client, to, EACH))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    let calls = count.load(Relaxed);
    assert_eq!(answered, 0, "the service fails altogether");
    println!("{calls} calls for {} requests", CLIENTS * EACH);
    assert!(calls >= CLIENTS * EACH, "every request gets there: {calls}");
    assert!(calls * 10 <= CLIENTS * EACH * 12, "{calls} calls for {} requests", CLIENTS * EACH);
}
