//! A policy that is tightened holds for the connections that are already there, and only for those it concerns.

use std::{io::Write, net::SocketAddr};

use super::testing::{Rig, echo_server, echoes, is_closed, until};
use crate::{
    live::testing::{cluster, statics, tcp_proxy},
    tls::testing as tls,
};

/// A listener of which only the match and the transport socket of its one chain differ.
fn listener(chain: &str) -> String {
    format!(
        "\n  - name: l\n    stat_prefix: s\n    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}\n    \
         filter_chains:\n    - filters: [{}]\n{chain}",
        tcp_proxy("c")
    )
}

/// A listener with these chains: a match, and whether its network filters let anybody in.
fn chains(list: &[(&str, bool)]) -> String {
    const NOBODY: &str = "{name: rbac, typed_config: {'@type': \
        type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: r, rules: {action: ALLOW}}}, ";
    let chain = |(matches, open): &(&str, bool)| {
        let rbac = if *open { "" } else { NOBODY };
        format!("    - filter_chain_match: {{{matches}}}\n      filters: [{rbac}{}]\n", tcp_proxy("c"))
    };
    format!(
        "\n  - name: l\n    stat_prefix: s\n    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}\n    \
         filter_chains:\n{}",
        list.iter().map(chain).collect::<String>()
    )
}

/// A context of which the peers are those of `accounts`.
fn mutual(ca: &tls::Ca, accounts: &[&str], floor: &str) -> String {
    let certificate = ca.host("server.test");
    let text = |source| serde_json::Value::from(String::from_utf8(tls::bytes(source).to_vec()).unwrap());
    let sans: Vec<_> =
        accounts.iter().map(|a| format!("{{san_type: URI, matcher: {{exact: {}}}}}", tls::spiffe(a))).collect();
    format!(
        r#"      transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            tls_params: {{tls_minimum_protocol_version: {floor}}}
            tls_certificates: [{{certificate_chain: {{inline_string: {}}}, private_key: {{inline_string: {}}}}}]
            validation_context: {{trusted_ca: {{inline_string: {}}}, match_typed_subject_alt_names: [{}]}}
"#,
        text(&certificate.chain),
        text(&certificate.key),
        serde_json::Value::from(ca.pem.clone()),
        sans.join(",")
    )
}

struct Mesh {
    rig: Rig,
    cluster: String,
    address: Option<SocketAddr>,
}

impl Mesh {
    fn new() -> Self {
        Self { rig: Rig::new(1, None), cluster: cluster("c", echo_server()), address: None }
    }

    fn apply(&mut self, chain: &str) {
        self.rig.apply(&statics(&[listener(chain)], std::slice::from_ref(&self.cluster)));
        self.address = Some(self.rig.address("l"));
    }

    fn apply_chains(&mut self, list: &[(&str, bool)]) {
        self.rig.apply(&statics(&[chains(list)], std::slice::from_ref(&self.cluster)));
    }

    fn revoked(&self) -> u64 {
        self.rig.stat("listener", "s", "downstream_cx_revoked")
    }
}

#[test]
fn plaintext_ends_when_it_is_no_longer_admitted() {
    let mut mesh = Mesh::new();
    mesh.apply("");
    let mut stream = mesh.rig.connect("l");
    echoes(&mut stream, "before");
    mesh.apply("      name: renamed\n");
    echoes(&mut stream, "a change that tightens nothing");
    assert_eq!(mesh.revoked(), 0);
    // The chain of this connection is gone since the last update: this one is for it all the same.
    mesh.apply("      filter_chain_match: {transport_protocol: tls}\n");
    assert!(is_closed(&mut stream));
    until("counted", || mesh.revoked() == 1);
}

/// Takes what comes to this host, before a chain that takes everything.
const HERE: &str = "prefix_ranges: [{address_prefix: 127.0.0.1, prefix_len: 32}]";

#[test]
fn a_more_specific_chain_holds_for_the_connections_it_takes() {
    for (specific, stays) in [
        (("prefix_ranges: [{address_prefix: 192.0.2.1, prefix_len: 32}]", false), true),
        ((HERE, true), true),
        ((HERE, false), false),
        // No chain for plaintext to this host any more.
        (("prefix_ranges: [{address_prefix: 127.0.0.1, prefix_len: 32}], transport_protocol: tls", true), false),
    ] {
        let mut mesh = Mesh::new();
        mesh.apply_chains(&[("", true)]);
        let mut stream = mesh.rig.connect("l");
        echoes(&mut stream, "before");
        mesh.apply_chains(&[("", true), specific]);
        match stays {
            true => echoes(&mut stream, "after"),
            false => assert!(is_closed(&mut stream), "{specific:?}"),
        }
        until("counted", || mesh.revoked() == u64::from(!stays));
    }
}

#[test]
fn a_chain_with_another_match_judges_those_it_takes_over() {
    for open in [true, false] {
        let mut mesh = Mesh::new();
        mesh.apply_chains(&[("", true)]);
        let mut stream = mesh.rig.connect("l");
        echoes(&mut stream, "before");
        mesh.apply_chains(&[(HERE, open)]);
        match open {
            true => echoes(&mut stream, "after"),
            false => assert!(is_closed(&mut stream)),
        }
        until("counted", || mesh.revoked() == u64::from(!open));
        // The chain it came by is gone, so each later update is for it too.
        mesh.apply_chains(&[(HERE, false)]);
        assert!(is_closed(&mut stream));
    }
}

#[test]
fn a_peer_ends_when_its_name_or_its_tls_is_no_longer_accepted() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ca = tls::Ca::new("root");
    for (floor, accounts, stays) in
        [("TLSv1_2", &["client", "other"][..], true), ("TLSv1_2", &["other"], false), ("TLSv1_3", &["client"], false)]
    {
        let mut mesh = Mesh::new();
        mesh.apply(&mutual(&ca, &["client"], "TLSv1_2"));
        let mut common = tls::common(Some(&ca.spiffe("client")), Some(ca.trust()));
        common.max_version = crate::ir::secret::TlsVersion::V1_2;
        let client = tls::client_of(tls::upstream(common));
        runtime.block_on(async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let stream = tokio::net::TcpStream::connect(mesh.address.unwrap()).await.unwrap();
            let (mut io, _) = client.connect(stream.into(), &Default::default(), tls::TIMEOUT).await.unwrap();
            let mut byte = [0];
            io.write_all(b"x").await.unwrap();
            io.flush().await.unwrap();
            io.read_exact(&mut byte).await.unwrap();
            mesh.apply(&mutual(&ca, accounts, floor));
            let _ = io.write_all(b"y").await;
            let _ = io.flush().await;
            let read = tokio::time::timeout(tls::TIMEOUT, io.read(&mut byte)).await.unwrap();
            assert_eq!(read.is_ok_and(|n| n == 1), stays, "{floor} {accounts:?}");
        });
        assert_eq!(mesh.revoked(), u64::from(!stays), "{floor} {accounts:?}");
    }
}

#[test]
fn a_listener_that_is_gone_lets_its_connections_finish() {
    let mut mesh = Mesh::new();
    mesh.apply("");
    let mut stream = mesh.rig.connect("l");
    echoes(&mut stream, "before");
    mesh.rig.apply(&statics(&[], std::slice::from_ref(&mesh.cluster)));
    echoes(&mut stream, "after");
    stream.flush().unwrap();
    assert_eq!(mesh.revoked(), 0);
}

#[test]
fn strict_on_trial_counts_exactly_those_it_would_refuse() {
    let mut mesh = Mesh::new();
    mesh.apply("      metadata: {filter_metadata: {outrigger.dev/dry_run: {strict_mtls: true}}}\n");
    for _ in 0..3 {
        echoes(&mut mesh.rig.connect("l"), "served all the same");
    }
    let stat = |mesh: &Mesh, name: &str| mesh.rig.stat("listener", "s", name);
    assert_eq!((stat(&mesh, "strict_mtls_would_deny"), stat(&mesh, "no_chain_plaintext")), (3, 0));
    mesh.apply("      filter_chain_match: {transport_protocol: tls}\n");
    for _ in 0..3 {
        // The match asks for a look at the first bytes.
        let mut stream = mesh.rig.connect("l");
        stream.write_all(b"plaintext").unwrap();
        assert!(is_closed(&mut stream));
    }
    until("the same connections refused", || stat(&mesh, "no_chain_plaintext") == 3);
    assert_eq!(stat(&mesh, "strict_mtls_would_deny"), 3);
}
