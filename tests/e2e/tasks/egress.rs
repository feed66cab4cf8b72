//! "Accessing External Services": anything first, then only what is registered, then with a rule of its own.
//!
//! `meshConfig.outboundTrafficPolicy` is a `Sidecar` of the root namespace here, which holds for the mesh as well.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use outrigger_tests::{Member, Mesh, Pod, need, pki::Authority, until};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{
    apps::{App, Message, get},
    join,
    kubectl::apply_text,
};

const REGISTRY_ONLY: &str = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata:\n  name: default\nspec:\n  \
                             outboundTrafficPolicy:\n    mode: REGISTRY_ONLY\n  egress:\n  - hosts: [\"*/*\"]\n";

/// The first Pod after the control plane's.
const WORLD: [u8; 4] = [10, 88, 0, 2];

#[test]
fn accessing_external_services() {
    need!("ip", "curl");
    let mut mesh = Mesh::start(&["httpbin.org", "www.google.com", "edition.cnn.com"].map(|name| ("10.88.0.2", name)));
    let world = mesh.outsider("world");
    assert_eq!(world.ip4.octets(), WORLD);
    let [mut sleep] = join(&mut mesh, [Member::new("sleep", &[("app", "sleep")])]);
    let _sites = [
        App::http(&world, 80, |request| {
            if request.path() == "/delay/5" {
                let until = Instant::now() + Duration::from_secs(5);
                while let Some(left) = until.checked_duration_since(Instant::now()) {
                    std::thread::park_timeout(left);
                }
            }
            Message::answer(200, request.header("host"))
        }),
        tls_site(&world),
    ];
    mesh.settle();
    let pod = sleep.pod.clone();
    let http = |host: &str, path: &str| get(&pod, (WORLD, 80), host, path, &[]);
    // What curl says: 200, or 000 when TLS could not even begin. Which of its errors that is, is a matter of timing:
    // the connection is reset.
    let https = |host: &str| {
        let line = format!("curl -s -k -m 20 -o /dev/null -w '%{{http_code}}' https://{host}/");
        let (ok, code) = pod.try_sh(&line);
        assert_eq!(ok, code == "200", "{code}");
        code
    };

    for host in ["www.google.com", "edition.cnn.com"] {
        assert_eq!(https(host), "200", "{host}: ALLOW_ANY");
    }
    assert_eq!(http("httpbin.org", "/").status(), 200);

    apply_text(&mesh, "istio-system", REGISTRY_ONLY);
    for host in ["www.google.com", "edition.cnn.com"] {
        assert_eq!(https(host), "000", "{host}: REGISTRY_ONLY");
    }
    assert_eq!(http("httpbin.org", "/").status(), 0, "nothing registered has this port: not even HTTP is spoken");

    let published = super::kubectl::published("egress-control.yaml");
    let [httpbin, google, timeout] = published.split("---\n").collect::<Vec<_>>()[..] else { panic!("three objects") };
    apply_text(&mesh, "default", httpbin);
    // "Wait for several seconds": the name is resolved first.
    until("an answer of httpbin.org", || http("httpbin.org", "/headers").body == "httpbin.org");
    assert_eq!(sleep.stat("cluster.outbound|80||httpbin.org.upstream_rq_total"), 1, "known by its name");
    assert_eq!(http("example.com", "/").status(), 502, "and nobody else");

    apply_text(&mesh, "default", google);
    until("an answer of www.google.com", || https("www.google.com") == "200");
    assert_eq!(sleep.stat("cluster.outbound|443||www.google.com.upstream_cx_total"), 1);
    assert_eq!(https("edition.cnn.com"), "000");

    let before = Instant::now();
    assert_eq!(http("httpbin.org", "/delay/5").status(), 200);
    assert!(before.elapsed() >= Duration::from_secs(5));
    apply_text(&mesh, "default", timeout);
    let before = Instant::now();
    assert_eq!(http("httpbin.org", "/delay/5").status(), 504);
    assert!(before.elapsed() >= Duration::from_secs(3));
    assert_eq!(sleep.stat("cluster.outbound|80||httpbin.org.upstream_rq_timeout"), 1);
    sleep.assert_sound();
    mesh.assert_no_refusals();
}

/// An HTTPS server whose certificate nobody looks at.
fn tls_site(pod: &Pod) -> App {
    let files = Authority::new("nobody").issue(pod.dir(), "site", "https://www.google.com");
    let chain = vec![CertificateDer::from_pem_file(files.certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(files.key).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let config = Arc::new(config);
    App::raw(pod, 443, move |stream: TcpStream| {
        let session = rustls::ServerConnection::new(config.clone()).unwrap();
        let mut stream = rustls::StreamOwned::new(session, stream);
        if stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    })
}
