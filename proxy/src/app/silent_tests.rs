//! Who connects and says nothing is judged by what is in force when the first byte comes.

use std::io::{Read, Write};

use super::testing::{Rig, echo_server, until};
use crate::live::testing::{cluster, statics, tcp_proxy};

const KIND: &str = "type.googleapis.com/envoy.extensions.filters";
const TLS_ONLY: &str = "filter_chain_match: {transport_protocol: tls}";

/// A listener that looks at the first bytes, for as long as it takes.
fn listener(chains: &[String]) -> String {
    let chains: String = chains.iter().map(|chain| format!("\n    - {chain}")).collect();
    format!(
        "\n  - name: l\n    stat_prefix: s\n    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}\n    \
         listener_filters_timeout: 0s\n    listener_filters: [{{name: tls, typed_config: {{'@type': \
         {KIND}.listener.tls_inspector.v3.TlsInspector}}}}]\n    filter_chains:{chains}\n"
    )
}

fn chain(matches: &str, filters: &str) -> String {
    format!("{{{matches}{}filters: [{filters}]}}", if matches.is_empty() { "" } else { ", " })
}

/// A connection manager that answers everything.
fn http() -> String {
    format!(
        "{{name: hcm, typed_config: {{'@type': {KIND}.network.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: h, route_config: {{virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, \
         direct_response: {{status: 200}}}}]}}]}}, http_filters: [{{name: r, typed_config: {{'@type': \
         {KIND}.http.router.v3.Router}}}}]}}}}"
    )
}

fn denying() -> String {
    format!("{{name: r, typed_config: {{'@type': {KIND}.network.rbac.v3.RBAC, stat_prefix: t, rules: {{}}}}}}, ")
}

/// What a connection hears, and whether its filter began, that was silent while the listener's chains changed from `before` to `after`.
fn heard(before: &[String], after: &[String], says: &str) -> (String, bool) {
    let clusters = [cluster("c", echo_server())];
    let mut rig = Rig::new(1, None);
    rig.apply(&statics(&[listener(before)], &clusters));
    let mut stream = rig.connect("l");
    until("it is looked at", || rig.stat("listener", "s", "downstream_pre_cx_active") == 1);
    rig.apply(&statics(&[listener(after)], &clusters));
    stream.write_all(says.as_bytes()).unwrap();
    if says != REQUEST {
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
    let mut text = Vec::new();
    // Reset or closed: what counts is what was said.
    let _ = stream.read_to_end(&mut text);
    until("it is gone", || rig.stat("listener", "s", "downstream_cx_active") == 0);
    let served = rig.stat("tcp", "t", "downstream_cx_total") + rig.stat("http", "h", "downstream_cx_total");
    (String::from_utf8(text).unwrap(), served > 0)
}

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

#[test]
fn whose_chain_is_gone_comes_by_another_or_not_at_all() {
    for (filters, says, answer) in [(tcp_proxy("c"), "hello", "hello"), (http(), REQUEST, "HTTP/1.1 200 OK")] {
        let tls = chain(TLS_ONLY, &filters);
        let before = [chain("", &filters), tls.clone()];
        let admits = |after: &[String]| {
            let (heard, served) = heard(&before, after, says);
            assert_eq!(heard.starts_with(answer), served, "{heard}");
            assert!(served || heard.is_empty(), "{heard}");
            served
        };
        assert!(admits(&before));
        assert!(!admits(std::slice::from_ref(&tls)), "plaintext is not admitted any more: {says}");
        // Its chain is another object then, and admits it as before.
        assert!(admits(&[chain("name: renamed", &filters), tls.clone()]));
    }
}

#[test]
fn who_is_denied_meanwhile_gets_nothing() {
    for (filters, says) in [(tcp_proxy("c"), "hello"), (http(), REQUEST)] {
        let open = [chain("", &filters)];
        let closed = [chain("", &format!("{}{filters}", denying()))];
        assert_eq!(heard(&open, &closed, says), (String::new(), false));
        assert!(heard(&closed, &open, says).1, "who is allowed meanwhile is served");
    }
}
