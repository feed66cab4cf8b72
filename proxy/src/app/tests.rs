//! Connections end to end: real workers and sockets, a static configuration, peers on loopback.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::atomic::Ordering,
};

use super::testing::{Rig, client, echo_server, echoes, is_closed, server, until};
use crate::{
    live::testing::{cluster, statics, tcp_listener, tcp_proxy},
    tls::testing as tls,
};

/// Both inspectors, waiting for ever.
const INSPECTORS: &str = r#"listener_filters_timeout: 0s
    listener_filters:
    - {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}
    - {name: http, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector}}"#;

/// An access log of refusals to `path`.
fn access_log(path: &std::path::Path) -> String {
    format!(
        r#"access_log: [{{name: f, typed_config: {{"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: "{}", log_format: {{text_format_source: {{inline_string: "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n"}}}}}}}}]"#,
        path.display()
    )
}

fn logged(path: &std::path::Path, line: &str) {
    let text = || std::fs::read_to_string(path).unwrap_or_default();
    until("a line in the access log", || !text().is_empty());
    assert_eq!(text().trim(), line);
}

#[test]
fn bytes_and_half_closes_pass_both_ways() {
    let mut rig = Rig::new(2, None);
    rig.apply(&statics(&[tcp_listener("l", "127.0.0.1", 0, "c", "")], &[cluster("c", echo_server())]));
    for _ in 0..8 {
        let mut stream = rig.connect("l");
        echoes(&mut stream, "hello");
        stream.write_all(b"last words").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "last words");
    }
    until("all ended", || rig.shared.connections.load(Ordering::Relaxed) == 0);
    assert_eq!(rig.stat("listener", "127.0.0.1_0", "downstream_cx_total"), 8);
    assert_eq!(rig.stat("listener", "127.0.0.1_0", "downstream_cx_active"), 0);
    assert_eq!(rig.stat("tcp", "t", "downstream_cx_rx_bytes_total"), 8 * 15);
    let live = rig.shared.publisher.current();
    let endpoint = live.cluster("c").unwrap().members()[0].endpoint.clone();
    assert_eq!(endpoint.rq_active.load(Ordering::Relaxed), 0);
    assert_eq!(rig.shared.open.unspecified.load(Ordering::Relaxed), 0);
}

#[test]
fn a_server_may_speak_first() {
    let banner = server(|mut stream: TcpStream| {
        stream.write_all(b"220 mail\r\n").unwrap();
        let mut reader = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut reader, &mut stream);
    });
    let mut rig = Rig::new(1, None);
    rig.apply(&statics(&[tcp_listener("l", "127.0.0.1", 0, "c", INSPECTORS)], &[cluster("c", banner)]));
    let mut stream = rig.connect("l");
    let mut greeting = [0; 10];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 mail\r\n");
    echoes(&mut stream, "EHLO me\r\n");
    drop(stream);
    until("its bytes are counted", || rig.stat("tcp", "t", "downstream_cx_tx_bytes_total") == 19);
    let live = rig.shared.publisher.current();
    let (.., dialled) = *live.cluster("c").unwrap().stats.totals().iter().find(|t| t.0 == "upstream_cx_total").unwrap();
    assert_eq!(dialled, 1, "the connection made while waiting is the one that is used");
}

#[test]
fn a_client_that_speaks_first_is_served_as_such() {
    let mut rig = Rig::new(1, None);
    rig.apply(&statics(&[tcp_listener("l", "127.0.0.1", 0, "c", INSPECTORS)], &[cluster("c", echo_server())]));
    echoes(&mut rig.connect("l"), "PING\r\n");
    // Half-closed without a word: an empty stream is passed on as one.
    let mut silent = rig.connect("l");
    silent.shutdown(Shutdown::Write).unwrap();
    assert!(is_closed(&mut silent));
}

#[test]
fn an_unreachable_upstream_resets_and_does_not_decide_for_tcp_at_once() {
    let http = r#"{name: hcm, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: h, route_config: {virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: fine}}}]}]}, http_filters: [{name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}"#;
    let listener = format!(
        "\n  - name: l\n    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}\n    {INSPECTORS}\n    \
         filter_chains:\n    - filter_chain_match: {{application_protocols: [http/1.1]}}\n      filters: [{http}]\n    \
         - filters: [{}]\n",
        tcp_proxy("c")
    );
    let mut rig = Rig::new(1, None);
    let nobody = std::net::SocketAddr::from(([127, 86, 75, 64], 1));
    rig.apply(&statics(&[listener], &[cluster("c", nobody)]));
    let live = rig.shared.publisher.current();
    let failures = || {
        let totals = live.cluster("c").unwrap().stats.totals();
        totals.iter().find(|t| t.0 == "upstream_cx_connect_fail").map_or(0, |t| t.2)
    };
    // HTTP, but slow to say so: by then the TCP destination has proved unreachable.
    let mut slow = rig.connect("l");
    until("the silent client's upstream was dialled", || failures() == 1);
    slow.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("fine"), "{answer}");
    // TCP: what was found out is used, not tried again.
    let mut tcp = rig.connect("l");
    until("dialled", || failures() == 2);
    tcp.write_all(b"\x00\x01\x02\x03 binary").unwrap();
    assert_eq!(tcp.read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(failures(), 2);
}

#[test]
fn no_matching_chain_closes_counts_and_logs() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let listener = format!(
        "\n  - name: l\n    stat_prefix: strict\n    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}\n    {}\n    \
         filter_chains:\n    - filter_chain_match: {{transport_protocol: tls}}\n      filters: [{}]\n",
        access_log(log.path()),
        tcp_proxy("c")
    );
    let mut rig = Rig::new(1, None);
    rig.apply(&statics(&[listener], &[cluster("c", echo_server())]));
    let mut stream = rig.connect("l");
    stream.write_all(b"plaintext").unwrap();
    assert!(is_closed(&mut stream));
    logged(log.path(), "NR filter_chain_not_found");
    assert_eq!(rig.stat("listener", "strict", "no_filter_chain_match"), 1);
    until("closed", || rig.shared.connections.load(Ordering::Relaxed) == 0);
}

#[test]
fn tls_ends_at_a_chain_that_asks_for_it_and_plaintext_is_refused() {
    let ca = tls::Ca::new("root");
    let certificate = ca.host("server.test");
    let text = |source| String::from_utf8(tls::bytes(source).to_vec()).unwrap();
    let pem = |source| serde_json::Value::from(text(source));
    let log = tempfile::NamedTempFile::new().unwrap();
    let listener = format!(
        r#"
  - name: l
    stat_prefix: secure
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    {}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context: {{tls_certificates: [{{certificate_chain: {{inline_string: {}}}, private_key: {{inline_string: {}}}}}]}}
      filters: [{}]
"#,
        access_log(log.path()),
        pem(&certificate.chain),
        pem(&certificate.key),
        tcp_proxy("c")
    );
    let mut rig = Rig::new(1, None);
    rig.apply(&statics(&[listener], &[cluster("c", echo_server())]));
    let address = rig.address("l");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let client = tls::client(None, Some(ca.trust()));
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut io, _) = client.connect(stream.into(), &Default::default(), tls::TIMEOUT).await.unwrap();
        io.write_all(b"secret").await.unwrap();
        let mut back = [0; 6];
        io.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"secret");
    });
    assert_eq!(rig.stat("listener", "secure", "ssl_handshake"), 1);
    let mut plain = client(address);
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"GET"), "nothing came back from the application");
    logged(log.path(), "- downstream_transport_failure");
    assert_eq!(rig.stat("listener", "secure", "ssl_connection_error"), 1);
}

#[test]
fn limits_of_listener_and_process_hold_exactly() {
    let runtime = "\nlayered_runtime: {layers: [{name: s, static_layer: {envoy.resource_limits.listener.few.connection_limit: 1}}]}";
    let mut rig = Rig::new(2, Some(2));
    let listeners = [
        tcp_listener("few", "127.0.0.1", 0, "c", "stat_prefix: few"),
        tcp_listener("many", "127.0.0.1", 0, "c", "stat_prefix: many"),
    ];
    rig.apply(&(statics(&listeners, &[cluster("c", echo_server())]) + runtime));
    let mut first = rig.connect("few");
    echoes(&mut first, "within");
    assert!(is_closed(&mut rig.connect("few")));
    assert_eq!(rig.stat("listener", "few", "downstream_cx_overflow"), 1);
    until("the refused one is gone", || rig.shared.connections.load(Ordering::Relaxed) == 1);
    let mut second = rig.connect("many");
    echoes(&mut second, "within");
    assert!(is_closed(&mut rig.connect("many")), "two are all the process takes");
    assert_eq!(rig.stat("listener", "many", "downstream_global_cx_overflow"), 1);
    drop((first, second));
    until("both are gone", || rig.shared.connections.load(Ordering::Relaxed) == 0);
    echoes(&mut rig.connect("few"), "room again");
    assert_eq!(rig.stat("listener", "few", "downstream_cx_total"), 2, "a refused connection was never one");
}

#[test]
fn connections_keep_neither_snapshot_nor_listener() {
    let mut rig = Rig::new(1, None);
    let clusters = [cluster("c", echo_server())];
    rig.apply(&statics(&[tcp_listener("l", "127.0.0.1", 0, "c", "")], &clusters));
    let mut open = rig.connect("l");
    echoes(&mut open, "hello");
    let live = rig.shared.publisher.current();
    let (snapshot, listener) = (std::sync::Arc::downgrade(&live), std::sync::Arc::downgrade(&live.listeners["l"]));
    drop(live);
    rig.apply(&statics(&[], &clusters));
    until("the old snapshot is gone", || snapshot.strong_count() == 0 && listener.strong_count() == 0);
    echoes(&mut open, "still served");
}
