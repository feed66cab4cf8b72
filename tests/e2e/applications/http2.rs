//! HTTP/2 without TLS by real clients and servers, its mixture with HTTP/1 between hops, and WebSocket.

use outrigger_tests::{
    need,
    pair::pair,
    peers::{program, python},
};

const PORTS: &[(&str, u16, u16)] =
    &[("http", 80, 9080), ("http2", 81, 9081), ("whatever", 82, 9081), ("http-ws", 83, 9083)];

#[test]
fn http2_between_all_versions() {
    need!("ip", "curl", "nghttpd", "h2load");
    let mut pair = pair(PORTS);
    let dir = pair.server.pod.dir().join("htdocs");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("page"), "a page over HTTP/2\n").unwrap();
    let nghttpd = format!("{} --no-tls --echo-upload -d {} 9081", program("nghttpd").display(), dir.display());
    let h2 = pair.server.pod.serve("nghttpd", 9081, &nghttpd);
    let demo = outrigger_tests::mesh::bin("outrigger-demo-app");
    let h1 = pair.server.pod.serve("demo-app", 9080, &format!("{} http [::]:9080 app v1", demo.display()));
    let curl = |arguments: &str| {
        let line = format!("curl -sS -m 20 -w '\\n%{{http_version}} %{{http_code}}' {arguments}");
        pair.client.pod.sh(&line)
    };

    // Port 82 declares nothing: both proxies find HTTP/2 out from its preface.
    for port in [81, 82] {
        let answer = curl(&format!("--http2-prior-knowledge http://app:{port}/page"));
        assert_eq!(answer, "a page over HTTP/2\n\n2 200", "port {port}");
        let answer = curl(&format!("--http2-prior-knowledge --data-binary hello-{port} http://app:{port}/echo"));
        assert_eq!(answer, format!("hello-{port}\n2 200"));
    }
    let answer = curl("--http2-prior-knowledge http://app:81/absent");
    assert!(answer.ends_with("\n2 404"), "{answer}");
    let answer = curl("--http1.1 http://app:81/page");
    assert_eq!(answer, "a page over HTTP/2\n\n1.1 200", "an HTTP/1 client of an HTTP/2 server");
    for version in ["--http1.0", "--http1.1"] {
        let answer = curl(&format!("{version} http://app/plain"));
        assert!(answer.contains(r#""path":"/plain""#) && answer.ends_with(" 200"), "{version}: {answer}");
    }

    // The operator asks for HTTP/2 between the proxies: neither application notices, whatever it speaks.
    pair.mesh.apply_and_wait(
        "upgrade.yaml",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: app, namespace: default}\nspec:\n  \
         host: app\n  trafficPolicy:\n    portLevelSettings:\n    - port: {number: 80}\n      connectionPool: {http: \
         {h2UpgradePolicy: UPGRADE}}\n",
    );
    for (flag, version) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
        let answer = curl(&format!("{flag} http://app/upgraded?q=1"));
        assert!(answer.ends_with(&format!("\n{version} 200")), "{flag}: {answer}");
        assert!(answer.contains(r#""path":"/upgraded""#), "{flag}: {answer}");
        assert!(answer.contains(r#""host":"app""#), "{flag}, :authority becomes Host: {answer}");
        assert!(answer.contains("spiffe://cluster.local/ns/default/sa/client"), "{flag}, the caller: {answer}");
    }

    for (port, path, further) in [(81, "page", ""), (82, "page", ""), (80, "load", "--h1")] {
        let report = pair.client.pod.sh(&format!("h2load {further} -n 2000 -c 4 -m 16 http://app:{port}/{path}"));
        let summary = "2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout";
        assert!(report.contains(summary), "port {port}: {report}");
        assert!(report.contains("2000 2xx, 0 3xx, 0 4xx, 0 5xx"), "port {port}: {report}");
    }
    drop((h1, h2));
    pair.assert_sound();
}

#[test]
fn websocket() {
    need!("ip", "curl", "python:websockets");
    let mut pair = pair(PORTS);
    let server = pair.server.pod.serve("websocket", 9083, &python("websocket_peer.py", "server 9083"));
    let said = pair.client.pod.sh(&python("websocket_peer.py", "client ws://app:83/chat?room=1"));
    let expected = "path /chat?room=1\nsubprotocol chat.v2\ntext ok\nbinary 1048576 ok\nfragments ok\nping ok\n\
                    messages 1000 ok\nclosed 4001 enough\n";
    assert_eq!(said, expected, "the server said: {}", server.output());
    drop(server);
    pair.assert_sound();
}
