//! A tightened policy reaches what goes on for long over HTTP, and leaves alone whom it does not concern.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::mpsc::{Receiver, Sender, channel},
};

use super::testing::{Rig, echoes, is_closed, server};
use crate::live::testing::{cluster, statics};

/// Turns WebSockets into echoes; begins an endless answer to all else, and hands the connection over.
fn upstream() -> (std::net::SocketAddr, Receiver<TcpStream>) {
    let (send, receive): (Sender<TcpStream>, _) = channel();
    let serve = move |mut stream: TcpStream| {
        let head = head(&mut stream).to_ascii_lowercase();
        if head.contains("upgrade: websocket") {
            let _ = stream
                .write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
            let mut reader = stream.try_clone().unwrap();
            let _ = std::io::copy(&mut reader, &mut stream);
            return;
        }
        let _ = stream.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n",
        );
        let _ = send.send(stream);
    };
    (server(serve), receive)
}

fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

/// A listener that forwards everything, after a filter that denies what these permissions name.
fn listener(denied: Option<&str>) -> String {
    let kind = "type.googleapis.com/envoy.extensions.filters";
    let rbac = denied.map_or(String::new(), |permission| {
        format!(
            "{{name: rbac, typed_config: {{'@type': {kind}.http.rbac.v3.RBAC, rules: {{action: DENY, policies: {{p: \
             {{permissions: [{{{permission}}}], principals: [{{any: true}}]}}}}}}}}}}, "
        )
    });
    format!(
        "\n  - name: l\n    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}\n    filter_chains:\n    \
         - filters: [{{name: hcm, typed_config: {{'@type': {kind}.network.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: h, upgrade_configs: [{{upgrade_type: websocket}}], route_config: {{virtual_hosts: [{{name: v, \
         domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: c, timeout: 0s}}}}]}}]}}, http_filters: \
         [{rbac}{{name: r, typed_config: {{'@type': {kind}.http.router.v3.Router}}}}]}}}}]\n"
    )
}

struct Streams {
    rig: Rig,
    cluster: String,
    answers: Receiver<TcpStream>,
}

impl Streams {
    fn new(denied: Option<&str>) -> Self {
        let (address, answers) = upstream();
        let mut streams = Self { rig: Rig::new(1, None), cluster: cluster("c", address), answers };
        streams.apply(denied);
        streams
    }

    fn apply(&mut self, denied: Option<&str>) {
        self.rig.apply(&statics(&[listener(denied)], std::slice::from_ref(&self.cluster)));
    }

    fn socket(&mut self, path: &str) -> TcpStream {
        let mut stream = self.rig.connect("l");
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: a\r\nx-kind: socket\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let head = head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        stream
    }

    /// Both ends of an answer under way.
    fn call(&mut self, path: &str) -> (TcpStream, TcpStream) {
        let mut stream = self.rig.connect("l");
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\nx-kind: call\r\ncontent-length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let head = head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let mut first = [0; 10];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"5\r\nfirst\r\n");
        (stream, self.answers.recv().unwrap())
    }
}

fn goes_on((near, far): &mut (TcpStream, TcpStream)) {
    far.write_all(b"4\r\nmore\r\n").unwrap();
    let mut more = [0; 9];
    near.read_exact(&mut more).unwrap();
    assert_eq!(&more, b"4\r\nmore\r\n");
}

#[test]
fn tunnels_and_calls_end_when_they_are_not_allowed_any_more() {
    let mut streams = Streams::new(None);
    let (mut one, mut two) = (streams.socket("/one"), streams.socket("/two"));
    let (mut three, mut four) = (streams.call("/three"), streams.call("/four"));
    streams.apply(Some("url_path: {path: {exact: /other}}"));
    echoes(&mut one, "not concerned");
    goes_on(&mut three);
    streams.apply(Some("url_path: {path: {exact: /one}}"));
    assert!(is_closed(&mut one));
    echoes(&mut two, "still");
    goes_on(&mut three);
    streams.apply(Some("url_path: {path: {exact: /three}}"));
    assert!(is_closed(&mut three.0));
    goes_on(&mut four);
    echoes(&mut two, "still");
    streams.apply(None);
    goes_on(&mut four);
    // Of a call that came when no rule looked at headers none is known any more; of a tunnel all are.
    streams.apply(Some("header: {name: x, string_match: {exact: aa}}"));
    assert!(is_closed(&mut four.0));
    echoes(&mut two, "has no such header");
    streams.apply(Some("header: {name: x-kind, string_match: {exact: socket}}"));
    assert!(is_closed(&mut two));
}

#[test]
fn headers_are_known_where_rules_look_at_them() {
    let mut streams = Streams::new(Some("header: {name: x, string_match: {exact: aa}}"));
    let mut call = streams.call("/call");
    streams.apply(Some("header: {name: x, string_match: {exact: bb}}"));
    goes_on(&mut call);
    streams.apply(Some("header: {name: x-kind, string_match: {exact: call}}"));
    assert!(is_closed(&mut call.0));
}
