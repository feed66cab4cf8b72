//! Applications and proxies that end without a word: who can be served still is, and nobody gets half of something for
//! the whole.

use std::{net::Shutdown, process::Stdio};

use outrigger_tests::{
    Exchange, Workload, eventually,
    exchange::Server,
    mesh::bin,
    need,
    pair::{by4, pair},
    process::run,
};

use super::{FRESH, Load, split, versions};

#[test]
fn an_application_that_restarts() {
    need!("ip", "curl");
    let mut v = versions(&[]);
    // The sidecar answers 503 for an application that is away; the client asks another version.
    v.mesh.apply_and_wait(
        "split.yaml",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: app, namespace: default}\nspec:\n  \
         hosts: [app]\n  http:\n  - route: [{destination: {host: app}}]\n    \
         retries: {attempts: 3, retryOn: \"connect-failure,refused-stream,reset,503\"}\n",
    );
    let load = Load::start(&v, "load", "");
    assert_eq!(v.answering(), ["v1", "v2"]);
    for _ in 0..3 {
        // SIGKILL: whoever asks is refused, or sees the connection break.
        drop(v.applications.remove(0));
        v.progress(300);
        assert_eq!(v.answering(), ["v2"]);
        let line = format!("{} http [::]:9080 app v1", bin("outrigger-demo-app").display());
        v.applications.insert(0, v.servers[0].pod.serve("app", 9080, &line));
        eventually("v1 answers again", || if v.answering().contains(&"v1") { Ok(()) } else { Err("not yet".into()) });
    }
    load.end(&v);
    v.assert_sound();
}

#[test]
fn a_pod_may_join_and_leave() {
    need!("ip", "curl");
    let mut v = versions(&[]);
    v.mesh.remove("subsets.yaml");
    v.mesh.remove("split.yaml");
    v.mesh.settle();
    let load = Load::start(&v, "load", FRESH);
    // Its application listens before anybody hears of the Pod: a Pod that is not ready is no endpoint.
    let third = v.mesh.workload("server-v3", &[("app", "late"), ("version", "v3")]);
    let line = format!("{} http [::]:9080 app v2", bin("outrigger-demo-app").display());
    let application = third.pod.serve("app", 9080, &line);
    v.mesh.register(&third.pod, "server-v3", &[("app", "server"), ("version", "v3")]);
    v.mesh.settle();
    let requests = || inbound_requests(&third);
    eventually("requests at the new Pod", || if requests() > 50 { Ok(()) } else { Err(format!("{}", requests())) });
    // Gone from the endpoints first, told to end only when everybody knows.
    v.mesh.remove("pod-server-v3.yaml");
    v.mesh.settle();
    let settled = requests();
    v.progress(200);
    assert!(requests() <= settled + 8, "{} requests after the Pod had left, from {settled}", requests());
    drop((third, application));
    v.progress(300);
    load.end(&v);
    v.assert_sound();
}

/// Requests that came in, by whatever prefix they are counted.
fn inbound_requests(workload: &Workload) -> u64 {
    let stats = workload.pod.sh("curl -sS http://127.0.0.1:15000/stats");
    let counters = stats.lines().filter_map(|line| line.split_once(": "));
    let inbound =
        counters.filter(|(name, _)| name.starts_with("http.inbound") && name.ends_with(".downstream_rq_total"));
    inbound.filter_map(|(_, n)| n.parse::<u64>().ok()).sum()
}

/// How a response is cut, by who dies.
#[test]
fn half_a_response_is_never_a_whole_one() {
    need!("ip", "curl");
    let mut pair = pair(&[("http", 80, 9080)]);
    let server = Server::new(pair.server.pod.listen(9080));
    let heads = ["Content-Length: 1000", "Transfer-Encoding: chunked"];
    for head in heads {
        let mut client = pair.client.pod.connect(by4(80));
        client.say("GET /cut HTTP/1.1\r\nHost: app\r\n\r\n");
        let (mut application, _) = server.request();
        application.say(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello\r\n"));
        assert!(client.head().starts_with("HTTP/1.1 200 "));
        assert_eq!(client.hear(10), b"5\r\nhello\r\n");
        application.shutdown(Shutdown::Both).unwrap();
        let rest = client.hear_out();
        assert!(rest.is_empty(), "{head}: after the application's death came {:?}", String::from_utf8_lossy(&rest));
    }
    // curl's judgement.
    let mut curl = pair
        .client
        .pod
        .command("curl")
        .args(["-sS", "-m", "20", "http://app/cut"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut application, _) = server.request();
    application.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    application.shutdown(Shutdown::Both).unwrap();
    let status = curl.wait().unwrap();
    assert!([18, 56].contains(&status.code().unwrap()), "curl took half a response for a whole: {status}");
    // The server's proxy dies, the application knows nothing.
    for head in heads {
        let mut client = pair.client.pod.connect(by4(80));
        client.say("GET /cut HTTP/1.1\r\nHost: app\r\n\r\n");
        let (mut application, _) = server.request();
        application.say(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello\r\n"));
        client.head();
        assert_eq!(client.hear(10), b"5\r\nhello\r\n");
        pair.server.proxy.signal(nix::sys::signal::Signal::SIGKILL);
        pair.server.proxy.wait();
        let rest = client.hear_out();
        assert!(rest.is_empty(), "{head}: after the proxy's death came {:?}", String::from_utf8_lossy(&rest));
        // A new proxy takes over as if it had always been there.
        pair.server.proxy = pair.mesh.start_proxy(&pair.server.pod, "server", &[("app", "server")], &[]);
        pair.server.wait_ready();
    }
    pair.assert_sound();
}

#[test]
fn a_proxy_that_restarts_is_current_at_once() {
    need!("ip", "curl");
    let mut v = versions(&[]);
    for (share, version) in [(100, "v1"), (0, "v2"), (100, "v1")] {
        v.client.proxy.signal(nix::sys::signal::Signal::SIGKILL);
        v.client.proxy.wait();
        // Edited while it is away.
        v.mesh.apply("split.yaml", &split(share));
        v.client.proxy = v.mesh.start_proxy(&v.client.pod, "client", &[("app", "client")], &[]);
        // Redirection stays: an application that asks in between waits or is refused, but never goes around the mesh.
        v.client.wait_ready();
        let (ok, text) = v.mesh.ctl("wait --timeout 25s --proxies 3");
        assert!(ok, "{text}");
        assert_eq!(v.answering(), [version]);
    }
    // And what init promises still holds in both kinds of Pods.
    for pod in [&v.client.pod, &v.servers[0].pod] {
        let mut check = pod.command(bin("outrigger-init"));
        let said = run(check.arg("check"));
        assert!(said.contains(" 0 failed"), "{said}");
    }
    v.assert_sound();
}

#[test]
fn the_clients_proxy_lets_requests_finish() {
    need!("ip", "curl");
    let mut pair = pair(&[("http", 80, 9080)]);
    let server = Server::new(pair.server.pod.listen(9080));
    let mut client = pair.client.pod.connect(by4(80));
    client.say("GET /slow HTTP/1.1\r\nHost: app\r\n\r\n");
    let (mut application, _) = server.request();
    pair.client.proxy.signal(nix::sys::signal::Signal::SIGTERM);
    let ip = pair.client.pod.ip4;
    eventually("readiness that is gone", || {
        let url = format!("http://{ip}:15021/healthz/ready");
        let (_, code) = pair.server.pod.try_sh(&format!("curl -sS -m 2 -o /dev/null -w '%{{http_code}}' {url}"));
        if code == "503" { Ok(()) } else { Err(code) }
    });
    application.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow");
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    assert_eq!(client.hear(4), b"slow");
    drop((client, application));
    let status = pair.client.proxy.wait();
    assert_eq!(status.code(), Some(0), "{}", pair.client.proxy.output());
    assert!(!pair.client.proxy.output().contains("panicked"), "{}", pair.client.proxy.output());
}
