//! What passes between the Pods, and who may take part.

use std::{io::Read, net::Ipv4Addr};

use outrigger_tests::{
    Exchange, Process, eventually,
    exchange::{Server, accept, values},
    need,
    pair::{by4, pair},
};

const MARKER: &str = "the-application-said-this-in-the-clear";

#[test]
fn only_tls_between_the_pods_and_nobody_else_gets_in() {
    need!("ip", "curl", "tcpdump");
    let mut pair = pair(&[("http", 80, 9080), ("tcp", 7000, 7000)]);
    let (server, tcp) = (Server::new(pair.server.pod.listen(9080)), pair.server.pod.listen(7000));
    let capture = pair.mesh.dir().join("wire.pcap");
    let mut command = pair.client.pod.command("tcpdump");
    command.args(["-i", "eth0", "-s", "0", "-U", "-Z", "root", "-w"]).arg(&capture);
    command.arg(format!("tcp and not host {}", pair.mesh.control_pod().ip4));
    let mut tcpdump = Process::spawn("tcpdump", command, pair.mesh.dir());
    tcpdump.wait_for("listening on eth0");

    for _ in 0..3 {
        let mut client = pair.client.pod.connect(by4(80));
        client.say(format!("GET /{MARKER} HTTP/1.1\r\nHost: app\r\n\r\n"));
        let (mut answering, head) = server.request();
        assert!(head.contains(MARKER), "{head}");
        // The server learns who called from its proxy, which has it from the certificate.
        let identity = values(&head, "x-forwarded-client-cert").concat();
        assert!(identity.contains("URI=spiffe://cluster.local/ns/default/sa/client"), "{head}");
        answering.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{MARKER}", MARKER.len()));
        client.head();
        assert_eq!(client.hear(MARKER.len()), MARKER.as_bytes());
        let mut client = pair.client.pod.connect(by4(7000));
        client.say(MARKER);
        assert_eq!(accept(&tcp).hear(MARKER.len()), MARKER.as_bytes());
    }
    let contains = |needle: &[u8]| std::fs::read(&capture).unwrap().windows(needle.len()).any(|w| w == needle);
    // 17 03 03: TLS application data.
    eventually("captured TLS records", || if contains(b"\x17\x03\x03") { Ok(()) } else { Err(String::new()) });
    assert_eq!(tcpdump.stop().code(), Some(0), "{}", tcpdump.output());
    assert!(!contains(MARKER.as_bytes()), "what the application said was captured in the clear");
    assert!(!contains(b"HTTP/1.1 200"), "an HTTP answer was captured in the clear");

    // PeerAuthentication STRICT: plaintext from a Pod without a proxy reaches no application.
    let outsider = pair.mesh.outsider("outsider");
    for port in [9080, 7000] {
        let mut stranger = outsider.connect((pair.server.pod.ip4, port));
        let _ = std::io::Write::write_all(&mut stranger, b"GET /stranger HTTP/1.1\r\nHost: app\r\n\r\n");
        let mut answer = Vec::new();
        let _ = stranger.read_to_end(&mut answer);
        assert!(answer.is_empty(), "port {port}: {}", String::from_utf8_lossy(&answer));
    }
    tcp.set_nonblocking(true).unwrap();
    assert!(tcp.accept().is_err(), "a stranger's connection reached the application");
    assert!(server.try_request(std::time::Duration::from_millis(50)).is_none(), "a stranger's request got through");
    pair.assert_sound();
}

/// A single-stack Service in a dual-stack mesh: its application listens on IPv4 only, as many do.
#[test]
fn an_application_of_one_family() {
    need!("ip", "curl");
    let mut pair = pair(&[("tcp", 7000, 7000)]);
    pair.mesh.apply_and_wait(
        "four.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: four, namespace: default}\nspec:\n  clusterIP: 10.96.0.44\n  \
         ipFamilyPolicy: SingleStack\n  selector: {app: server}\n  ports:\n  - {name: tcp, port: 7444, targetPort: 7004}\n",
    );
    let pod = &pair.server.pod;
    let listener = pod.within(|| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 7004))).unwrap();
    for round in 0..20 {
        let mut client = pair.client.pod.connect((Ipv4Addr::new(10, 96, 0, 44), 7444));
        client.say("four");
        client.finish();
        let mut server = accept(&listener);
        assert_eq!(server.hear_end(), b"four", "connection {round}");
    }
    pair.assert_sound();
}
