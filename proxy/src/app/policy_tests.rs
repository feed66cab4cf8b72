//! A tightened policy applies to connections that are there, and leaves the others alone.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use super::testing::{Rig, echo_server, echoes, is_closed, server, until};
use crate::live::testing::{cluster, statics, tcp_proxy};

const ALL: &str = "principals: [{any: true}]";

/// A listener of one chain of a network RBAC filter with these fields and these other filters.
fn listener(rbac: &str, rest: &str) -> String {
    let filter = match rbac {
        "" => String::new(),
        fields => format!(
            "{{name: r, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, \
             stat_prefix: t, {fields}}}}}, "
        ),
    };
    format!(
        "\n  - name: l\n    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}\n    filter_chains:\n    \
         - filters: [{filter}{rest}]\n"
    )
}

fn denied(rig: &Rig) -> u64 {
    let mut found = 0;
    rig.builder.registry.rbac.visit(&mut |owner, metric, value| {
        if owner.dotted(metric) == "t.rbac.denied" {
            found += value;
        }
    });
    found
}

#[test]
fn connections_end_when_they_are_not_allowed_any_more() {
    let clusters = [cluster("c", echo_server())];
    let mut rig = Rig::new(2, None);
    // Versions whose connections are drained are kept, as the control thread does.
    let mut versions = Vec::new();
    let mut apply = |rig: &mut Rig, rbac: &str, proxy: &str| {
        rig.apply(&statics(&[listener(rbac, proxy)], &clusters));
        versions.push(rig.shared.publisher.current());
    };
    apply(&mut rig, "", &tcp_proxy("c"));
    let mut one = rig.connect("l");
    let mut two = rig.connect("l");
    echoes(&mut one, "hello");
    echoes(&mut two, "hello");
    // Rules come that concern neither.
    apply(
        &mut rig,
        &format!("rules: {{action: DENY, policies: {{p: {{permissions: [{{destination_port: 1}}], {ALL}}}}}}}"),
        &tcp_proxy("c"),
    );
    echoes(&mut one, "again");
    echoes(&mut two, "again");
    assert_eq!(denied(&rig), 0);
    // And are tightened, with a change of the proxy behind them: its connections are drained, and still obey.
    apply(
        &mut rig,
        "rules: {action: DENY}",
        &tcp_proxy("c").replace("stat_prefix: t", "stat_prefix: t, idle_timeout: 77s"),
    );
    echoes(&mut one, "still");
    apply(
        &mut rig,
        &format!("rules: {{action: DENY, policies: {{p: {{permissions: [{{any: true}}], {ALL}}}}}}}"),
        &tcp_proxy("c"),
    );
    assert!(is_closed(&mut one), "it came through a chain that is two versions old");
    assert!(is_closed(&mut two));
    until("they are counted", || denied(&rig) == 2);
    let mut late = rig.connect("l");
    assert!(is_closed(&mut late));
    until("it is counted", || denied(&rig) == 3);
}

#[test]
fn a_change_of_the_rules_does_not_drain_those_it_leaves_alone() {
    let clusters = [cluster("c", echo_server())];
    let mut rig = Rig::new(1, None);
    rig.apply(&statics(&[listener("rules: {action: DENY}", &tcp_proxy("c"))], &clusters));
    let mut stream = rig.connect("l");
    echoes(&mut stream, "hello");
    let before = rig.shared.publisher.current();
    rig.apply(&statics(&[listener("rules: {action: LOG}", &tcp_proxy("c"))], &clusters));
    let after = rig.shared.publisher.current();
    assert!(before.removed_chains(&after).is_empty());
    echoes(&mut stream, "hello");
}

#[test]
fn nothing_is_dialled_for_a_connection_that_is_refused() {
    let banner = server(|mut stream: TcpStream| {
        let _ = stream.write_all(b"220 secret\r\n");
    });
    let inspectors = "listener_filters_timeout: 0s\n    listener_filters: [{name: tls, typed_config: {\"@type\": \
                      type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}]\n    filter_chains:";
    let text = listener("rules: {}", &tcp_proxy("c"));
    for text in [text.clone(), text.replacen("filter_chains:", inspectors, 1)] {
        let mut rig = Rig::new(1, None);
        rig.apply(&statics(&[text], &[cluster("c", banner)]));
        let mut stream = rig.connect("l");
        stream.write_all(b"x").unwrap();
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        assert!(heard.is_empty(), "{heard:?}");
        let live = rig.shared.publisher.current();
        let totals = live.cluster("c").unwrap().stats.totals();
        assert!(totals.iter().all(|t| t.0 != "upstream_cx_total" || t.2 == 0));
    }
}

fn http(rbac: &str, more: &str) -> String {
    let kind = "type.googleapis.com/envoy.extensions.filters";
    format!(
        "{{name: hcm, typed_config: {{\"@type\": {kind}.network.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: h, {more} route_config: {{virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: \
         /}}, direct_response: {{status: 200}}}}]}}]}}, http_filters: [{{name: rbac, typed_config: {{\"@type\": \
         {kind}.http.rbac.v3.RBAC, {rbac}}}}}, {{name: r, typed_config: {{\"@type\": {kind}.http.router.v3.Router}}}}]}}}}"
    )
}

/// The head of the answer to a request on a connection that is kept; its body is read as well.
fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).map_or(0, |l| l.parse().unwrap());
    stream.read_exact(&mut vec![0; length]).unwrap();
    head
}

#[test]
fn requests_on_kept_connections_obey_the_newest_rules() {
    let mut rig = Rig::new(1, None);
    let apply = |rig: &mut Rig, rbac: &str, more: &str| {
        rig.apply(&statics(&[listener("", &http(rbac, more))], &[]));
    };
    apply(&mut rig, "rules: {action: DENY}", "");
    let mut stream = rig.connect("l");
    assert!(ask(&mut stream).starts_with("HTTP/1.1 200"));
    apply(&mut rig, "rules: {}", "");
    let head = ask(&mut stream);
    assert!(head.starts_with("HTTP/1.1 403") && !head.contains("connection: close"), "{head}");
    apply(&mut rig, "rules: {action: DENY}", "");
    assert!(ask(&mut stream).starts_with("HTTP/1.1 200"), "and loosened ones");
    // Something else changes with them: as in Envoy the connection ends, but not before it obeyed.
    apply(&mut rig, "rules: {}", "via: new,");
    let head = ask(&mut stream);
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
}

#[test]
fn http_connections_end_when_a_network_filter_refuses_them() {
    let mut rig = Rig::new(1, None);
    rig.apply(&statics(&[listener("", &http("rules: {action: DENY}", ""))], &[]));
    let mut stream = rig.connect("l");
    assert!(ask(&mut stream).starts_with("HTTP/1.1 200"));
    rig.apply(&statics(&[listener("rules: {}", &http("rules: {action: DENY}", ""))], &[]));
    assert!(is_closed(&mut stream));
}
