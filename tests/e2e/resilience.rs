//! What must not be noticed by applications: control planes that die, edits, renewals, shutdowns.

#![allow(clippy::unwrap_used)]

#[path = "resilience/deaths.rs"]
mod deaths;
#[path = "resilience/lifecycle.rs"]
mod lifecycle;
#[path = "resilience/replacement.rs"]
mod replacement;
#[path = "resilience/replicas.rs"]
mod replicas;
#[path = "resilience/rotation.rs"]
mod rotation;
#[path = "resilience/streams.rs"]
mod streams;
#[path = "resilience/thousand.rs"]
mod thousand;

use std::path::PathBuf;

use outrigger_tests::{
    Exchange, Mesh, Pod, Process, Workload, eventually,
    exchange::Server,
    mesh::bin,
    need,
    pair::{SERVICE4, STRICT, by4, service},
};

const PORTS: &[(&str, u16, u16)] = &[("http", 80, 9080)];

/// A client and a service `app` in two versions.
struct Versions {
    // The workloads go before the mesh, in whose folder their logs are.
    client: Workload,
    servers: Vec<Workload>,
    applications: Vec<Process>,
    mesh: Mesh,
}

fn versions(proxy_flags: &[&str]) -> Versions {
    let mut mesh = Mesh::start(&[(&SERVICE4.to_string(), "app")]);
    mesh.apply("services.yaml", &service("app", "server", PORTS));
    mesh.apply("strict.yaml", STRICT);
    mesh.apply(
        "subsets.yaml",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: app, namespace: default}\nspec:\n  \
         host: app\n  subsets:\n  - {name: v1, labels: {version: v1}}\n  - {name: v2, labels: {version: v2}}\n",
    );
    mesh.apply("split.yaml", &split(50));
    let client = mesh.workload_with("client", &[("app", "client")], proxy_flags);
    let servers: Vec<_> = ["v1", "v2"]
        .map(|v| mesh.workload_with(&format!("server-{v}"), &[("app", "server"), ("version", v)], proxy_flags))
        .into();
    let demo = bin("outrigger-demo-app");
    let applications = servers
        .iter()
        .zip(["v1", "v2"])
        .map(|(server, v)| server.pod.serve("app", 9080, &format!("{} http [::]:9080 app {v}", demo.display())))
        .collect();
    mesh.settle();
    Versions { client, servers, applications, mesh }
}

/// Percent of the requests for v1, the rest for v2.
fn split(v1: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: app, namespace: default}}\nspec:\n  \
         hosts: [app]\n  http:\n  - route:\n    - {{destination: {{host: app, subset: v1}}, weight: {v1}}}\n    \
         - {{destination: {{host: app, subset: v2}}, weight: {}}}\n",
        100 - v1
    )
}

/// A connection for each request. With a pause: a port stays taken for a minute after its connection, and all that one
/// client has for one destination would be used up in seconds.
const FRESH: &str = "--new-connections --pause-ms 10";

/// Requests without a pause until [`Load::end`].
struct Load {
    process: Process,
    stop: PathBuf,
}

impl Load {
    fn start(versions: &Versions, name: &str, options: &str) -> Self {
        let stop = versions.mesh.fabric.dir().join(format!("{name}.stop"));
        let mut command = versions.client.pod.command(bin("outrigger-demo-app"));
        command.args(["load", "http://app/", "--connections", "4", "--until"]).arg(&stop);
        command.args(options.split_whitespace());
        let load = Self { process: Process::spawn(name, command, versions.mesh.fabric.dir()), stop };
        versions.progress(200);
        load
    }

    /// Ends it; every request must have been answered. Prints what it counted.
    fn end(mut self, versions: &Versions) {
        std::fs::write(&self.stop, "").unwrap();
        let status = self.process.wait();
        let report = self.process.output();
        let answered: Vec<&str> = report.lines().take_while(|line| !line.starts_with("Stack")).collect();
        let answered = answered.join("\n");
        if !status.success() || !answered.contains(", 0 failed,") {
            let stats = versions
                .client
                .pod
                .sh("curl -sS http://127.0.0.1:15000/stats | grep -v ': 0$' | grep 'cluster.outbound'");
            panic!("{answered}\n{stats}");
        }
        println!("{answered}");
    }
}

/// What `/certs` says of contexts with the workload's own certificate; others have one of somebody else, or none.
fn own_certificates(pod: &Pod) -> Vec<serde_json::Value> {
    let certs: serde_json::Value = serde_json::from_str(&pod.sh("curl -sS http://127.0.0.1:15000/certs")).unwrap();
    let all = certs["certificates"].as_array().unwrap();
    all.iter().filter(|c| c["cert_chain"][0]["next_renewal"].is_string()).cloned().collect()
}

impl Versions {
    /// Requests that the client's proxy has completed so far.
    fn completed(&self) -> u64 {
        let stats = self.client.pod.sh("curl -sS http://127.0.0.1:15000/stats");
        let counters = stats.lines().filter_map(|line| line.split_once(": "));
        let outbound = counters.filter(|(name, _)| name.starts_with("cluster.outbound|80|"));
        outbound.filter(|(name, _)| name.ends_with(".upstream_rq_total")).map(|(_, n)| n.parse().unwrap_or(0)).sum()
    }

    /// Waits until that many more requests went through.
    fn progress(&self, requests: u64) {
        let goal = self.completed() + requests;
        eventually("requests that go through", || {
            let now = self.completed();
            if now >= goal { Ok(()) } else { Err(format!("{now} of {goal}")) }
        });
    }

    /// The versions that answer, over some requests.
    fn answering(&self) -> Vec<&'static str> {
        let demo = bin("outrigger-demo-app");
        let report =
            self.client.pod.sh(&format!("{} load http://app/ --requests 60 --new-connections", demo.display()));
        ["v1", "v2"].into_iter().filter(|v| report.contains(&format!("\"{v}\""))).collect()
    }

    fn assert_sound(&mut self) {
        self.client.assert_sound();
        self.servers.iter_mut().for_each(Workload::assert_sound);
    }
}

#[test]
fn the_control_plane_may_die() {
    need!("ip", "curl");
    let mut v = versions(&[]);
    assert_eq!(v.answering(), ["v1", "v2"]);
    let load = Load::start(&v, "load", "--new-connections");
    v.mesh.kill_control();
    v.progress(1000);
    let connected = |w: &Workload| w.stat("control_plane.connected_state");
    eventually("the client's proxy notices", || match connected(&v.client) {
        0 => Ok(()),
        n => Err(format!("connected_state {n}")),
    });
    // What is edited meanwhile holds once the control plane is back, and nobody has to be told.
    v.mesh.apply("split.yaml", &split(0));
    v.progress(1000);
    v.mesh.start_control();
    let (ok, text) = v.mesh.ctl("wait --timeout 25s --proxies 3");
    assert!(ok, "not all proxies came back: {text}");
    assert_eq!(v.answering(), ["v2"]);
    v.mesh.assert_no_refusals();
    load.end(&v);
    // An abrupt end, however often, is no different from the first.
    for _ in 0..3 {
        v.mesh.kill_control();
        v.mesh.start_control();
    }
    let (ok, text) = v.mesh.ctl("wait --timeout 25s --proxies 3");
    assert!(ok, "not all proxies came back: {text}");
    v.mesh.apply_and_wait("split.yaml", &split(100));
    assert_eq!(v.answering(), ["v1"]);
    v.assert_sound();
}

#[test]
fn a_thousand_edits_under_load() {
    need!("ip", "curl");
    const EDITS: u64 = 1000;
    /// After these, buffers and caches have their size.
    const WARM: u64 = 150;
    const GROWTH_KB: u64 = 15_000;
    let mut v = versions(&[]);
    let load = Load::start(&v, "load", "");
    let version = || v.mesh.status()["version"].as_u64().unwrap();
    let memory = || v.servers.iter().chain([&v.client]).map(|w| w.proxy.resident_kb()).collect::<Vec<_>>();
    let mut before = Vec::new();
    let mut served = version();
    for edit in 0..EDITS {
        // Consecutive edits always differ.
        v.mesh.apply("split.yaml", &split((edit % 100) as u32));
        served = eventually("an edit that is served", || match version() {
            now if now > served => Ok(now),
            now => Err(format!("generation {now}")),
        });
        if edit == WARM {
            before = memory();
        }
    }
    v.mesh.settle();
    let after = memory();
    load.end(&v);
    println!("RSS after {WARM} edits {before:?} kB, after {EDITS} {after:?} kB");
    for (before, after) in before.iter().zip(&after) {
        assert!(*after < before + GROWTH_KB, "memory grew: {before} kB to {after} kB");
    }
    v.mesh.apply_and_wait("split.yaml", &split(0));
    assert_eq!(v.answering(), ["v2"]);
    v.mesh.assert_no_refusals();
    v.assert_sound();
}

#[test]
fn certificates_are_renewed_under_load() {
    need!("ip", "curl");
    let mut v = versions(&["--cert-ttl-s", "12"]);
    let serial = |w: &Workload| {
        let own = own_certificates(&w.pod);
        own.first().and_then(|c| c["cert_chain"][0]["serial_number"].as_str()).unwrap_or_default().to_owned()
    };
    let first = serial(&v.servers[0]);
    assert!(!first.is_empty(), "no serial number in /certs");
    let keeping = Load::start(&v, "keeping", "");
    let renewing = Load::start(&v, "renewing", FRESH);
    // Once around is luck: both ends get three new certificates while connections are made all the time.
    for renewals in 2..=4 {
        for workload in [&v.client, &v.servers[0]] {
            eventually(&format!("certificate {renewals} of {}", workload.pod.name), || {
                match workload.stat("server.cert_renewals") {
                    n if n >= renewals => Ok(()),
                    n => Err(format!("{n} so far")),
                }
            });
        }
    }
    assert_ne!(serial(&v.servers[0]), first);
    v.progress(200);
    keeping.end(&v);
    renewing.end(&v);
    v.assert_sound();
}

#[test]
fn sigterm_lets_requests_finish() {
    need!("ip", "curl");
    let mut v = versions(&[]);
    v.mesh.apply_and_wait("split.yaml", &split(100));
    // v1's application is a script now: it answers when told.
    v.applications.remove(0).stop();
    let server = Server::new(v.servers[0].pod.listen(9080));
    let mut client = v.client.pod.connect(by4(80));
    client.say("GET /in-flight HTTP/1.1\r\nHost: app\r\n\r\n");
    let (mut answering, _) = server.request();
    answering.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nbefore\r\n");
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    assert_eq!(client.hear_until("before\r\n"), "6\r\nbefore\r\n");

    v.servers[0].proxy.signal(nix::sys::signal::Signal::SIGTERM);
    // Nothing new comes in ...
    eventually("a proxy that no longer accepts", || {
        match v.client.pod.try_sh(&format!("curl -sS -m 2 http://{}:15021/healthz/ready", v.servers[0].pod.ip4)) {
            (true, text) if text.contains("LIVE") => Err(text),
            _ => Ok(()),
        }
    });
    // ... and what is under way ends properly.
    answering.say("5\r\nafter\r\n0\r\n\r\n");
    assert_eq!(client.hear_until("0\r\n\r\n"), "5\r\nafter\r\n0\r\n\r\n");
    drop((client, answering));
    let status = v.servers[0].proxy.wait();
    assert!(status.success(), "{status}: {}", v.servers[0].proxy.output());
}

#[test]
fn a_pod_may_leave_under_load() {
    need!("ip", "curl");
    let mut v = versions(&[]);
    v.mesh.remove("subsets.yaml");
    v.mesh.remove("split.yaml");
    v.mesh.settle();
    let keeping = Load::start(&v, "keeping", "");
    let renewing = Load::start(&v, "renewing", FRESH);
    assert_eq!(v.answering(), ["v1", "v2"]);
    // As Kubernetes does it: the Pod leaves the endpoints, and its processes are told to end.
    v.mesh.remove("pod-server-v1.yaml");
    v.servers[0].proxy.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(v.servers[0].proxy.wait().success());
    v.applications.remove(0).stop();
    v.mesh.settle();
    v.progress(500);
    assert_eq!(v.answering(), ["v2"]);
    keeping.end(&v);
    renewing.end(&v);
    v.servers.remove(0);
    v.assert_sound();
}
