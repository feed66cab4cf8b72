//! One pair of bootstrap files in the four combinations of our proxy and Envoy: the applications must see no difference.

use outrigger_tests::{
    Exchange, Fabric, Kind, Pod, Process, exchange::accept, mesh::bin, need, peers::python, pki::Authority,
    process::run, proxies::write_bootstrap,
};

const OUTBOUND: &str = include_str!("outbound.yaml");
const INBOUND: &str = include_str!("inbound.yaml");

#[test]
fn outrigger_to_outrigger() {
    need!("ip", "curl", "python:grpc", "python:websockets", "openssl");
    exchange_everything(Kind::Outrigger, Kind::Outrigger);
}

#[test]
fn outrigger_to_envoy() {
    need!("ip", "curl", "envoy", "python:grpc", "python:websockets", "openssl");
    exchange_everything(Kind::Outrigger, Kind::Envoy);
}

#[test]
fn envoy_to_outrigger() {
    need!("ip", "curl", "envoy", "python:grpc", "python:websockets", "openssl");
    exchange_everything(Kind::Envoy, Kind::Outrigger);
}

/// Proves the test rather than the product.
#[test]
fn envoy_to_envoy() {
    need!("ip", "curl", "envoy", "python:grpc", "python:websockets", "openssl");
    exchange_everything(Kind::Envoy, Kind::Envoy);
}

fn exchange_everything(outbound: Kind, inbound: Kind) {
    let mut fabric = Fabric::new();
    let (client, server) = (fabric.pod("client", &[]), fabric.pod("server", &[]));
    let dir = fabric.dir();
    let authority = Authority::new("interop");
    authority.write_root(dir, "root");
    for name in ["client", "server"] {
        let files = authority.issue(dir, name, &format!("spiffe://interop/ns/default/sa/{name}"));
        run(std::process::Command::new("chmod").arg("644").args([files.certificate, files.key]));
    }
    let folder = dir.display().to_string();
    let _applications = [
        server.serve("app", 9080, &format!("{} http 127.0.0.1:9080 app v1", bin("outrigger-demo-app").display())),
        server.serve("bulk", 9082, &python("bulk_server.py", "9082")),
        server.serve("chat", 9083, &python("websocket_peer.py", "server 9083")),
        server.serve("grpc", 50051, &python("grpc_server.py", "50051")),
    ];
    let mut proxies = [
        outbound.start_ready(
            &client,
            &write_bootstrap(&client, OUTBOUND, &[("DIR", &folder), ("SERVER", &server.ip4.to_string())]),
        ),
        inbound.start_ready(&server, &write_bootstrap(&server, INBOUND, &[("DIR", &folder)])),
    ];
    http(&client);
    bulk(&client);
    tcp(&client, &server);
    only_the_right_peers(&client, &server, &folder);
    for proxy in &mut proxies {
        assert!(proxy.is_running(), "{}: {}", proxy.name(), proxy.output());
        assert!(!proxy.output().contains("panicked"), "{}: {}", proxy.name(), proxy.output());
    }
    stop(proxies);
}

fn http(client: &Pod) {
    for (flag, version) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
        let curl = |arguments: &str| {
            client.sh(&format!("curl -sS -m 20 {flag} -w '\\n%{{http_version}} %{{http_code}}' {arguments}"))
        };
        let answer = curl("-H 'X-Forwarded-Client-Cert: URI=spiffe://forged' 'http://localhost:8080/a/b?c=d'");
        assert!(answer.ends_with(&format!("\n{version} 200")), "{answer}");
        assert!(answer.contains(r#""path":"/a/b""#), "{answer}");
        assert!(answer.contains(r#"URI=spiffe://interop/ns/default/sa/client"#), "{answer}");
        assert!(!answer.contains("forged"), "{answer}");
        let answer = curl("http://localhost:8080/direct");
        assert_eq!(answer, format!("from the outbound proxy\n{version} 203"));
        // A server whose application is away says so, and names no success.
        let head = client.sh(&format!("curl -sS -m 20 {flag} -I http://localhost:8080/head"));
        assert!(
            head.contains(" 200") && head.to_ascii_lowercase().contains("content-type: application/json"),
            "{head}"
        );
    }
    let said = client.sh(&python("grpc_client.py", "localhost:8080"));
    assert_eq!(said.lines().count(), 11, "{said}");
    let said = client.sh(&python("websocket_peer.py", "client ws://localhost:8080/chat"));
    assert!(said.ends_with("closed 4001 enough\n"), "{said}");
}

fn bulk(client: &Pod) {
    const SIZE: u32 = 64 << 20;
    for flag in ["--http1.1", "--http2-prior-knowledge"] {
        let url = "http://localhost:8080/bulk";
        let curl = format!("curl -sSf -m 60 {flag}");
        let downloaded = client.sh(&format!("{curl} {url}/{SIZE} | sha256sum"));
        let expected = client.sh(&format!("{curl} {url}/sha256/{SIZE}"));
        assert_eq!(downloaded.split(' ').next().unwrap(), expected.trim(), "{flag}");
        let source = format!("yes outrigger | head -c {SIZE}");
        let uploaded = client.sh(&format!("{source} | {curl} -T - {url}/up"));
        let sent = client.sh(&format!("{source} | sha256sum"));
        assert_eq!(uploaded.trim(), format!("{SIZE} {}", sent.split(' ').next().unwrap()), "{flag}");
    }
}

fn tcp(client: &Pod, server: &Pod) {
    let listener = server.listen(7001);
    for address in [std::net::SocketAddr::from(([127, 0, 0, 1], 7000)), (std::net::Ipv6Addr::LOCALHOST, 7000).into()] {
        let mut application = client.connect(address);
        application.say("question");
        application.finish();
        let mut peer = accept(&listener);
        assert_eq!(peer.hear_end(), b"question");
        peer.say(vec![7; 1 << 20]);
        peer.finish();
        assert_eq!(application.hear_end(), vec![7; 1 << 20]);

        let mut application = client.connect(address);
        let mut peer = accept(&listener);
        peer.say("220 server first\r\n");
        assert_eq!(application.hear_until("\r\n"), "220 server first\r\n");
        peer.finish();
        assert!(application.hear_end().is_empty());
        application.say("later");
        application.finish();
        assert_eq!(peer.hear_end(), b"later");
    }
}

/// The server's side lets nobody in whom its file does not name.
fn only_the_right_peers(client: &Pod, server: &Pod, folder: &str) {
    let stranger = Authority::new("interop");
    let dir = std::path::Path::new(folder);
    let wrong_ca = stranger.issue(dir, "wrong-ca", "spiffe://interop/ns/default/sa/client");
    for (what, certificate) in [
        ("no certificate", String::new()),
        ("wrong CA", format!("-cert {} -key {}", wrong_ca.certificate.display(), wrong_ca.key.display())),
    ] {
        let (_, output) = client.try_sh(&format!(
            "printf 'GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' | timeout 20 openssl s_client -quiet \
             -connect {}:8443 -servername server.interop -CAfile {folder}/root.pem {certificate}",
            server.ip4
        ));
        assert!(!output.contains("HTTP/1.1"), "{what}: {output}");
        assert!(output.contains("alert"), "{what} was not refused by an alert: {output}");
    }
    let (ok, output) = client.try_sh(&format!("curl -sS -m 20 http://{}:8443/", server.ip4));
    assert!(!ok, "plaintext was answered: {output}");
    // The right one goes on.
    assert!(client.sh("curl -sS -m 20 http://localhost:8080/").contains("\"version\":\"v1\""));
}

fn stop(proxies: [Process; 2]) {
    for mut proxy in proxies {
        proxy.stop();
    }
}
