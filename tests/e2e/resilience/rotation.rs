//! New certificates and new roots while requests run: nobody notices, and no connection ends for it.

use std::path::PathBuf;

use outrigger_tests::{
    Exchange, Fabric, Kind, Pod, Process, agent::Agent, eventually, mesh::bin, need, pki::Authority,
    proxies::write_bootstrap, until,
};

use crate::{FRESH, Load, own_certificates, versions};

const ROTATIONS: u64 = 100;

/// A Pod with a proxy whose identity an agent gives.
struct Side {
    pod: Pod,
    agent: Agent,
    proxy: Process,
    id: String,
}

impl Side {
    fn start(pod: Pod, root: &Authority, server: &str) -> Self {
        let agent = Agent::start(pod.dir(), &pod.name);
        let id = format!("spiffe://example.org/{}", pod.name);
        let file = write_bootstrap(&pod, include_str!("spiffe.yaml"), &[("SERVER", server)]);
        let mut command = pod.command_as(outrigger_tests::mesh::PROXY_UID, Kind::Outrigger.program());
        command.arg("-c").arg(file).args(["--concurrency", "2", "-l", "info"]);
        command.env("SPIFFE_ENDPOINT_SOCKET", agent.endpoint());
        let proxy = Process::spawn(&format!("proxy-{}", pod.name), command, pod.dir());
        let side = Self { pod, agent, proxy, id };
        // Until there is an identity, readiness says what is missing.
        eventually("readiness that names the agent's refusal", || {
            let (_, text) = side.pod.try_sh("curl -sS -m 2 http://127.0.0.1:15000/ready");
            if text.contains("no identity issued") { Ok(()) } else { Err(text) }
        });
        side.agent.give(root.svid(&side.id));
        eventually("readiness with an identity", || {
            let (ok, text) = side.pod.try_sh("curl -sS -m 2 http://127.0.0.1:15000/ready");
            if ok && text.starts_with("LIVE") { Ok(()) } else { Err(text) }
        });
        side
    }

    fn stat(&self, name: &str) -> u64 {
        let text = self.pod.sh("curl -sS http://127.0.0.1:15000/stats");
        let prefix = format!("{name}: ");
        text.lines().find_map(|l| l.strip_prefix(&prefix)).and_then(|v| v.parse().ok()).unwrap_or(0)
    }

    fn assert_sound(&mut self) {
        assert!(self.proxy.is_running(), "{}", self.proxy.output());
        assert!(!self.proxy.output().contains("panicked"), "{}", self.proxy.output());
    }
}

/// Requests until the file is there; every one must be answered.
struct Requests {
    process: Process,
    stop: PathBuf,
}

impl Requests {
    fn start(pod: &Pod, name: &str, options: &str) -> Self {
        let stop = pod.dir().join(format!("{name}.stop"));
        let mut command = pod.command(bin("outrigger-demo-app"));
        command.arg("load").args(options.split_whitespace()).arg("--until").arg(&stop);
        Self { process: Process::spawn(name, command, pod.dir()), stop }
    }

    fn end(mut self) {
        std::fs::write(&self.stop, "").unwrap();
        let status = self.process.wait();
        let report = self.process.output();
        assert!(status.success() && report.contains(", 0 failed,"), "{report}");
        println!("{}", report.trim());
    }
}

#[test]
fn a_hundred_svids_and_a_new_root_under_load() {
    need!("ip", "curl");
    let mut fabric = Fabric::new();
    let (client, server) = (fabric.pod("client", &[]), fabric.pod("server", &[]));
    let address = server.ip4.to_string();
    let (former, next) = (Authority::new("former"), Authority::new("next"));
    let demo = bin("outrigger-demo-app");
    let _application = server.serve("app", 9080, &format!("{} http 127.0.0.1:9080 app v1", demo.display()));
    let mut sides = [server, client].map(|pod| Side::start(pod, &former, &address));

    // Kept connections, through which requests go on, and one handshake after the other.
    let kept = Requests::start(&sides[1].pod, "kept", "http://127.0.0.1:8080/ --connections 4");
    let fresh = Requests::start(
        &sides[1].pod,
        "fresh",
        "http://127.0.0.1:7000/ --connections 2 --new-connections --pause-ms 2",
    );
    let mut held = sides[1].pod.connect(([127, 0, 0, 1], 7000));
    let mut asks = |when: &str| {
        held.say("HEAD /held HTTP/1.1\r\nHost: app\r\n\r\n");
        assert!(held.head().starts_with("HTTP/1.1 200 "), "{when}");
    };
    asks("before");
    let progress = |sides: &[Side; 2], more: u64| {
        for counter in ["cluster.kept.upstream_rq_total", "cluster.fresh.ssl_handshake"] {
            let goal = sides[1].stat(counter) + more;
            until(&format!("{counter} goes on"), || sides[1].stat(counter) >= goal);
        }
    };
    progress(&sides, 50);
    let rotate = |sides: &[Side; 2], what: &str, svid: &dyn Fn(&str) -> outrigger_wire::workload::X509Svid| {
        let before: Vec<_> = sides.iter().map(|side| side.stat("server.cert_renewals")).collect();
        sides.iter().for_each(|side| side.agent.give(svid(&side.id)));
        for (side, before) in sides.iter().zip(before) {
            until(&format!("{what} at {}", side.id), || side.stat("server.cert_renewals") > before);
        }
    };
    for n in 1..=ROTATIONS {
        rotate(&sides, &format!("identity {n}"), &|id| former.svid(id));
    }
    progress(&sides, 50);
    asks("after the hundredth identity");

    let both = [former.der(), next.der()].concat();
    let with = |authority: &Authority, id: &str, bundle: &[u8]| {
        let mut svid = authority.svid(id);
        svid.bundle = bundle.to_vec();
        svid
    };
    rotate(&sides, "the next root beside the former", &|id| with(&former, id, &both));
    progress(&sides, 50);
    rotate(&sides, "identities of the next root", &|id| with(&next, id, &both));
    progress(&sides, 50);
    rotate(&sides, "the next root alone", &|id| with(&next, id, next.der()));
    progress(&sides, 50);

    asks("after the former root is gone");
    for (side, counter) in [
        (1, "cluster.kept.upstream_cx_connect_fail"),
        (1, "http.http.downstream_cx_destroy"),
        (1, "cluster.fresh.upstream_cx_connect_fail"),
        (1, "cluster.fresh.ssl_connection_error"),
        (0, "listener.in.ssl_connection_error"),
        (0, "listener.in.downstream_cx_revoked"),
    ] {
        assert_eq!(sides[side].stat(counter), 0, "{counter}");
    }
    kept.end();
    fresh.end();
    sides.iter_mut().for_each(Side::assert_sound);
}

/// The control plane's own root, by the operator's three steps.
#[test]
fn the_control_planes_root_is_replaced_step_by_step() {
    need!("ip", "curl");
    let mut v = versions(&["--cert-ttl-s", "20"]);
    let kept = Load::start(&v, "kept", "");
    let fresh = Load::start(&v, "fresh", FRESH);
    let step = |v: &mut crate::Versions, name: &str| {
        let state = v.mesh.dir().join("state");
        let (ok, text) = v.mesh.ctl(&format!("root {name} --state {}", state.display()));
        assert!(ok, "{name}: {text}");
        v.mesh.kill_control();
        v.mesh.start_control();
        // What an operator distributes.
        v.mesh.root_cert();
    };
    let pods = |v: &crate::Versions| {
        let sides = v.servers.iter().chain([&v.client]);
        sides.map(|w| (w.pod.name.clone(), w.stat("server.cert_renewals"))).collect::<Vec<_>>()
    };
    let roots = |v: &crate::Versions, count: usize| {
        for workload in v.servers.iter().chain([&v.client]) {
            eventually(&format!("{count} roots trusted by {}", workload.pod.name), || {
                // All of them: one that lags behind would refuse those that are ahead.
                let own = own_certificates(&workload.pod);
                let as_many = |c: &serde_json::Value| c["ca_cert"].as_array().is_some_and(|r| r.len() == count);
                if !own.is_empty() && own.iter().all(as_many) { Ok(()) } else { Err(format!("{own:?}")) }
            });
        }
    };
    let renewed = |v: &crate::Versions, before: &[(String, u64)]| {
        for (workload, (name, before)) in v.servers.iter().chain([&v.client]).zip(before) {
            until(&format!("a new certificate of {name}"), || workload.stat("server.cert_renewals") > *before);
        }
    };
    roots(&v, 1);
    step(&mut v, "prepare");
    roots(&v, 2);
    v.progress(200);
    let before = pods(&v);
    step(&mut v, "switch");
    renewed(&v, &before);
    v.progress(200);
    let before = pods(&v);
    step(&mut v, "finish");
    renewed(&v, &before);
    roots(&v, 1);
    v.progress(200);
    kept.end(&v);
    fresh.end(&v);
    v.assert_sound();
}
