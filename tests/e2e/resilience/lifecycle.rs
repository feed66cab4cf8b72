//! How a proxy starts and ends: before its control plane, without it, with the last good configuration, beside an
//! application that ends by itself.

use std::{os::unix::fs::PermissionsExt, path::PathBuf};

use nix::sys::signal::Signal;
use outrigger_tests::{
    Fabric, Kind, Mesh, Process, Workload,
    agent::Agent,
    eventually,
    mesh::{Member, bin},
    need,
    pair::{SERVICE4, STRICT, service},
    pki::Authority,
    proxies::write_bootstrap,
};

use super::PORTS;

/// A folder that the proxy of a Pod may write.
pub(super) fn state_dir(mesh: &Mesh, name: &str) -> String {
    let dir = mesh.dir().join(format!("state-{name}"));
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
    dir.display().to_string()
}

pub(super) fn demo(workload: &Workload, version: &str) -> Process {
    let line = format!("{} http [::]:9080 app {version}", bin("outrigger-demo-app").display());
    workload.pod.serve("app", 9080, &line)
}

/// A client and a server named `app`.
struct Two {
    // The workloads go before the mesh, in whose folder their logs are.
    workloads: Vec<Workload>,
    flags: Vec<Vec<String>>,
    application: Option<Process>,
    agents: Vec<Agent>,
    mesh: Mesh,
}

const NAMES: [&str; 2] = ["client", "server"];

/// With the last good configuration on disk. `agents`: identities come from a SPIFFE agent on the machine.
fn two(agents: bool, mode: &str) -> Two {
    let mesh = Mesh::start(&[(&SERVICE4.to_string(), "app")]);
    mesh.apply("services.yaml", &service("app", "server", PORTS));
    mesh.apply("strict.yaml", &STRICT.replace("STRICT", mode));
    let root = Authority::new("agents");
    let mut two = Two { workloads: Vec::new(), flags: Vec::new(), application: None, agents: Vec::new(), mesh };
    for name in NAMES {
        let mut flags = vec!["--state-dir".to_owned(), state_dir(&two.mesh, name)];
        if agents {
            let agent = Agent::start(two.mesh.dir(), name);
            agent.give(root.svid(&format!("spiffe://cluster.local/ns/default/sa/{name}")));
            flags.extend(["--spiffe-endpoint-socket".to_owned(), agent.endpoint()]);
            two.agents.push(agent);
        }
        let given: Vec<&str> = flags.iter().map(String::as_str).collect();
        let workload = two.mesh.workload_with(name, &[("app", name)], &given);
        two.workloads.push(workload);
        two.flags.push(flags);
    }
    two.application = Some(demo(&two.workloads[1], "v1"));
    two.mesh.settle();
    for workload in &two.workloads {
        // The settled configuration is the one on disk once nothing changed for a moment.
        eventually("a file", || {
            match (workload.stat("control_plane.last_good_written"), workload.stat("control_plane.last_good_pending")) {
                (1.., 0) => Ok(()),
                other => Err(format!("written, pending: {other:?}")),
            }
        });
    }
    two
}

impl Two {
    fn kill_and_restart(&mut self, which: usize) {
        let workload = &mut self.workloads[which];
        workload.proxy.signal(Signal::SIGKILL);
        workload.proxy.wait();
        let flags: Vec<&str> = self.flags[which].iter().map(String::as_str).collect();
        let name = NAMES[which];
        workload.proxy = self.mesh.start_proxy(&workload.pod, name, &[("app", name)], &flags);
    }

    fn asks(&self, times: usize) -> (bool, String) {
        let line =
            format!("{} load http://app/ --requests {times} --new-connections", bin("outrigger-demo-app").display());
        self.workloads[0].pod.try_sh(&line)
    }
}

#[test]
fn killed_proxies_go_on_with_the_last_good_configuration() {
    need!("ip", "curl");
    let mut two = two(true, "STRICT");
    let (ok, text) = two.asks(20);
    assert!(ok, "{text}");
    two.mesh.kill_control();
    for which in [0, 1] {
        two.kill_and_restart(which);
        two.workloads[which].wait_ready();
        let info = two.workloads[which].pod.sh("curl -sS http://127.0.0.1:15000/server_info");
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        assert_eq!(info["last_good_configuration"]["in_force"], true, "{info:#}");
        assert_eq!(two.workloads[which].stat("control_plane.last_good_in_force"), 1);
        // Mutual TLS throughout: plaintext is refused.
        let (ok, text) = two.asks(50);
        assert!(ok, "after the restart of {}: {text}", NAMES[which]);
    }
    let outsider = two.mesh.outsider("outsider");
    let to = format!("curl -sS -m 5 http://{}:9080/", two.workloads[1].pod.ip4);
    assert!(!outsider.try_sh(&to).0, "policy from disk is policy");
    // No key is on disk, whoever asks; and nobody else may read the rest.
    for name in NAMES {
        let file = two.mesh.dir().join(format!("state-{name}/outrigger/last-good.bin"));
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        assert!(text.contains("15006") || text.contains("inbound"), "that is no configuration");
        assert!(!text.contains("PRIVATE KEY"));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // Requests go on while the control plane comes back and takes over.
    let stop = two.mesh.dir().join("load.stop");
    let mut load = two.workloads[0].pod.command(bin("outrigger-demo-app"));
    load.args(["load", "http://app/", "--connections", "4", "--new-connections", "--until"]).arg(&stop);
    let mut load = Process::spawn("load", load, two.mesh.dir());
    two.mesh.start_control();
    for workload in &two.workloads {
        eventually("the control plane's own configuration", || {
            match workload.stat("control_plane.last_good_in_force") {
                0 => Ok(()),
                _ => Err("still from disk".to_owned()),
            }
        });
    }
    let (ok, text) = two.mesh.ctl("wait --timeout 25s --proxies 2");
    assert!(ok, "{text}");
    std::fs::write(&stop, "").unwrap();
    assert!(load.wait().success(), "{}", load.output());
    two.mesh.assert_no_refusals();
    assert!(two.agents.len() == 2 && two.application.as_mut().is_some_and(Process::is_running));
    two.workloads.iter_mut().for_each(Workload::assert_sound);
}

#[test]
fn without_an_identity_plaintext_goes_on_and_mutual_tls_does_not() {
    need!("ip", "curl");
    let mut two = two(false, "PERMISSIVE");
    two.mesh.kill_control();
    two.kill_and_restart(1);
    let outsider = two.mesh.outsider("outsider");
    let to = format!("curl -sSf -m 5 http://{}:9080/", two.workloads[1].pod.ip4);
    eventually("plaintext traffic", || {
        let (ok, text) = outsider.try_sh(&to);
        if ok { Ok(()) } else { Err(text) }
    });
    let (ready, text) = two.workloads[1].pod.try_sh("curl -sSf -m 5 http://127.0.0.1:15000/ready");
    assert!(!ready, "{text}");
    let (_, text) = two.workloads[1].pod.try_sh("curl -sS -m 5 http://127.0.0.1:15000/ready");
    assert!(text.contains("no workload certificate"), "{text}");
    let (ok, text) = two.asks(1);
    assert!(!ok, "without a certificate there is no mutual TLS: {text}");
    two.mesh.start_control();
    two.workloads[1].wait_ready();
    eventually("mutual TLS", || match two.asks(1) {
        (true, _) => Ok(()),
        (false, text) => Err(text),
    });
    two.workloads.iter_mut().for_each(Workload::assert_sound);
}

#[test]
fn a_kept_configuration_that_was_touched_lets_nobody_in() {
    need!("ip", "curl");
    let mut two = two(false, "PERMISSIVE");
    two.mesh.kill_control();
    let file = two.mesh.dir().join("state-server/outrigger/last-good.bin");
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    two.kill_and_restart(1);
    eventually("a reason", || {
        let (_, text) = two.workloads[1].pod.try_sh("curl -sS -m 5 'http://127.0.0.1:15000/ready?verbose'");
        if text.contains("checksum") { Ok(()) } else { Err(text) }
    });
    assert_eq!(two.workloads[1].stat("control_plane.last_good_refused"), 1);
    let outsider = two.mesh.outsider("outsider");
    let to = format!("curl -sSf -m 2 http://{}:9080/", two.workloads[1].pod.ip4);
    assert!(!outsider.try_sh(&to).0);
    two.mesh.start_control();
    two.workloads[1].wait_ready();
    let (ok, text) = outsider.try_sh(&to);
    assert!(ok, "{text}");
}

#[test]
fn an_application_may_start_before_the_control_plane() {
    need!("ip", "curl");
    let mut mesh = Mesh::start(&[(&SERVICE4.to_string(), "app")]);
    mesh.apply("services.yaml", &service("app", "server", PORTS));
    mesh.apply("strict.yaml", STRICT);
    mesh.kill_control();
    let server = mesh.join(&Member::new("server", &[("app", "server")]));
    let _application = demo(&server, "v1");
    let mut client = mesh.join(&Member::new("client", &[("app", "client")]));
    // Whoever asks does so from the first moment on that there is a process at all.
    client.proxy.wait_for("holding connections until there is a configuration address=[::]:15006");
    let stop = mesh.dir().join("load.stop");
    let mut load = client.pod.command(bin("outrigger-demo-app"));
    load.args(["load", "http://app/", "--connections", "50", "--new-connections", "--timeout-s", "40"]);
    load.args(["--pause-ms", "20", "--until"]).arg(&stop);
    let mut load = Process::spawn("load", load, mesh.dir());
    eventually("connections that are held", || match client.stat("listener_manager.held_connections") {
        50.. => Ok(()),
        n => Err(format!("{n} are held")),
    });
    eventually("five seconds", || match client.stat("server.uptime") {
        5.. => Ok(()),
        n => Err(format!("{n} s")),
    });
    assert_eq!(client.stat("listener_manager.held_connections_refused"), 0);
    mesh.start_control();
    eventually("requests that are answered", || match client.stat("listener_manager.held_connections_served") {
        50.. => Ok(()),
        n => Err(format!("{n} were served")),
    });
    client.wait_ready();
    server.wait_ready();
    std::fs::write(&stop, "").unwrap();
    let status = load.wait();
    assert!(status.success() && load.output().contains(", 0 failed,"), "{}", load.output());
    println!("{}", load.output().trim());
}

/// A client's Pod, and a service with one server.
fn served(flags: &[&str]) -> (Mesh, Workload, Workload, Process) {
    let mut mesh = Mesh::start(&[(&SERVICE4.to_string(), "app")]);
    mesh.apply("services.yaml", &service("app", "server", PORTS));
    mesh.apply("strict.yaml", STRICT);
    let server = mesh.workload("server", &[("app", "server")]);
    let application = demo(&server, "v1");
    let client = mesh.workload_with("client", &[("app", "client")], flags);
    mesh.settle();
    (mesh, client, server, application)
}

#[test]
fn a_job_with_the_sidecar_completes() {
    need!("ip", "curl");
    let (_mesh, mut client, _server, _application) = served(&[]);
    // What a Job's container runs: its work, and a word to the sidecar.
    client.pod.sh(
        "curl -sSf --retry 5 --retry-connrefused http://app/ && curl -sSf -X POST http://127.0.0.1:15000/quitquitquit",
    );
    assert_eq!(client.proxy.wait().code(), Some(0), "{}", client.proxy.output());
}

/// Waits until the proxy knows that the application is there: it looks every second.
fn seen(workload: &Workload) {
    eventually("an application that is seen", || match workload.stat("server.application_seen") {
        1 => Ok(()),
        _ => Err("not yet".to_owned()),
    });
}

#[test]
fn a_job_that_says_nothing_completes_when_its_port_is_closed() {
    need!("ip", "curl");
    let (_mesh, mut client, _server, _application) = served(&["--exit-when", "9999"]);
    let line = format!("{} http 127.0.0.1:9999 job v1", bin("outrigger-demo-app").display());
    let mut job = client.pod.serve("job", 9999, &line);
    client.pod.sh("curl -sSf http://app/");
    seen(&client);
    job.stop();
    client.proxy.wait_for("the application has ended");
    assert_eq!(client.proxy.wait().code(), Some(0), "{}", client.proxy.output());
}

#[test]
fn outbound_traffic_is_served_until_the_application_is_gone() {
    need!("ip", "curl");
    let (_mesh, mut client, _server, _application) = served(&["--exit-when", "9999", "--drain-time-s", "600"]);
    let line = format!("{} http 127.0.0.1:9999 main v1", bin("outrigger-demo-app").display());
    let mut application = client.pod.serve("main", 9999, &line);
    seen(&client);
    client.proxy.signal(Signal::SIGTERM);
    client.proxy.wait_for("draining");
    // The last calls of an application that saves its work.
    for _ in 0..20 {
        client.pod.sh("curl -sSf http://app/");
    }
    assert!(client.proxy.is_running());
    application.stop();
    assert_eq!(client.proxy.wait().code(), Some(0), "{}", client.proxy.output());
}

#[test]
fn what_an_end_cuts_is_told() {
    need!("ip", "curl");
    let (_mesh, mut client, server, mut application) = served(&["--drain-time-s", "1"]);
    // One that never answers.
    application.stop();
    let _silent = server.pod.listen(9080);
    let mut request = client.pod.connect((SERVICE4, 80));
    std::io::Write::write_all(&mut request, b"GET / HTTP/1.1\r\nHost: app\r\n\r\n").unwrap();
    eventually("a request under way", || match client.stats_ending(".downstream_rq_active") {
        0 => Err("none".to_owned()),
        _ => Ok(()),
    });
    client.proxy.signal(Signal::SIGTERM);
    assert_eq!(client.proxy.wait().code(), Some(0), "{}", client.proxy.output());
    let output = client.proxy.output();
    let report =
        output.lines().find(|line| line.contains("cutting what is left")).unwrap_or_else(|| panic!("{output}"));
    assert!(report.contains("HTTP requests") && report.contains("listener "), "{report}");
}

pub(super) const STATIC: &str = r#"
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 15000}}}
static_resources:
  listeners:
  - name: @NAME@
    address: {socket_address: {address: 127.0.0.1, port_value: @PORT@}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: @NAME@
          route_config:
            name: all
            virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: "@TEXT@"}}}]}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
"#;

#[test]
fn sighup_reads_the_bootstrap_again_as_a_whole_or_not() {
    need!("ip", "curl");
    let mut fabric = Fabric::new();
    let pod = fabric.pod("static", &[]);
    let write = |port: &str, text: &str| -> PathBuf {
        write_bootstrap(&pod, STATIC, &[("NAME", "front"), ("PORT", port), ("TEXT", text)])
    };
    let file = write("8080", "one");
    let mut proxy = Kind::Outrigger.start_ready(&pod, &file);
    let stat = |name: &str| {
        let text = pod.sh("curl -sS http://127.0.0.1:15000/stats");
        let prefix = format!("{name}: ");
        text.lines().find_map(|l| l.strip_prefix(&prefix)).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0)
    };
    assert_eq!(pod.sh("curl -sSf http://127.0.0.1:8080/"), "one");
    let reload = |stat_name: &str| {
        let before = stat(stat_name);
        proxy.signal(Signal::SIGHUP);
        eventually(stat_name, || if stat(stat_name) > before { Ok(()) } else { Err("not yet".to_owned()) });
    };
    // The path and the reason of what is bad, and what was there goes on.
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap().replace("stat_prefix: front", "no_such_field: 1"))
        .unwrap();
    reload("server.static_reload_rejected");
    let (_, ready) = pod.try_sh("curl -sS 'http://127.0.0.1:15000/ready?verbose'");
    assert!(ready.contains("no_such_field"), "{ready}");
    assert_eq!(pod.sh("curl -sSf http://127.0.0.1:8080/"), "one");
    write("8080", "two");
    reload("server.static_reload_success");
    eventually("the new text", || match pod.sh("curl -sSf http://127.0.0.1:8080/").as_str() {
        "two" => Ok(()),
        other => Err(other.to_owned()),
    });
    write("8081", "three");
    reload("server.static_reload_success");
    eventually("the new port", || match pod.try_sh("curl -sSf http://127.0.0.1:8081/") {
        (true, text) if text == "three" => Ok(()),
        (_, text) => Err(text),
    });
    eventually("the end of the old port", || match pod.try_sh("curl -sSf http://127.0.0.1:8080/") {
        (true, text) => Err(text),
        (false, _) => Ok(()),
    });
    assert_eq!(proxy.stop().code(), Some(0));
}
