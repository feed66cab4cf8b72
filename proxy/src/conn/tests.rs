use std::{net::SocketAddr, rc::Rc, sync::Arc};

use tokio::net::TcpStream;

use super::accepted::Accepted;
use crate::{
    live::{
        Claim, Live, LiveListener, Resolved,
        testing::{builder, cluster, snapshot, statics, tcp_proxy},
    },
    worker::Worker,
};

/// A listener of one chain, whose match and transport socket are given.
fn listener(chain: &str) -> Arc<LiveListener> {
    let here = SocketAddr::from(([127, 0, 0, 1], 1));
    let text = format!(
        "\n  - name: l\n    address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}\n    filter_chains:\n    \
         - {chain}\n      filters: [{}]\n",
        tcp_proxy("c")
    );
    let snapshot = snapshot(1, &statics(&[text], &[cluster("c", here)]));
    let (live, problems) = builder().build(&snapshot, &Resolved::default(), &Live::default());
    assert_eq!(problems, []);
    live.listeners["l"].clone()
}

#[test]
fn a_silent_client_causes_a_connection_only_where_no_proof_of_identity_is_asked_for() {
    let ca = crate::tls::testing::Ca::new("root");
    let certificate = ca.host("server.test");
    let pem = |source| serde_json::Value::from(String::from_utf8_lossy(crate::tls::testing::bytes(source)));
    let tls = format!(
        r#"transport_socket: {{name: tls, typed_config: {{"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {{tls_certificates: [{{certificate_chain: {{inline_string: {}}}, private_key: {{inline_string: {}}}}}]}}}}}}"#,
        pem(&certificate.chain),
        pem(&certificate.key)
    );
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let accepted = Accepted::new(1, address, address, None);
    let open = listener("name: open");
    assert!(accepted.silent_proxy(&open).is_some() && !open.terminates_tls);
    let terminating = listener(&tls);
    assert!(accepted.silent_proxy(&terminating).is_none() && terminating.terminates_tls);
    assert!(accepted.silent_proxy(&listener("filter_chain_match: {transport_protocol: tls}")).is_none());
    assert!(super::early::silence(&terminating) > super::early::silence(&open));
}

#[test]
fn a_waiting_connection_is_small() {
    // What a connection costs for as long as it lives is the future of its filter; this is what comes on top.
    fn size<F: Future>(_: impl FnOnce(Rc<Worker>, (TcpStream, SocketAddr), Rc<Claim>) -> F) -> usize {
        size_of::<F>()
    }
    let outer = size(super::serve);
    assert!(outer <= 256, "{outer} bytes");
    // And this is what it costs until its first byte.
    let admitted = size(super::admit);
    assert!(admitted <= 1900, "{admitted} bytes");
}
