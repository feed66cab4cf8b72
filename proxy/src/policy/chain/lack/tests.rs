use super::*;
use crate::ir::listener::{TcpProxy, Terminal};

fn chain(matches: ChainMatch) -> Arc<FilterChain> {
    let proxy = TcpProxy {
        stat_prefix: "t".into(),
        istio_stats: None,
        targets: Vec::new(),
        idle_timeout: None,
        max_connection_duration: None,
        max_connect_attempts: 1,
        hash_policy: Vec::new(),
        access_log: Vec::new(),
    };
    let handshake_timeout = std::time::Duration::from_secs(1);
    let terminal = Terminal::Tcp(Arc::new(proxy));
    Arc::new(FilterChain {
        name: "c".into(),
        matches,
        tls: None,
        handshake_timeout,
        strict_trial: false,
        filters: Default::default(),
        terminal,
    })
}

#[test]
fn the_first_difference_is_the_reason() {
    let tls = Some(Transport::Tls);
    let names = |list: &[&str]| list.iter().map(|n| Box::from(*n)).collect::<Vec<Box<str>>>();
    let strict = ChainMatch { destination_port: Some(80), transport: tls, ..ChainMatch::default() };
    let named = ChainMatch { server_names: names(&["a.test", "*.b.test"]), ..strict.clone() };
    let protocol = ChainMatch { application_protocols: names(&["istio"]), ..strict.clone() };
    let plain = ChainMatch { transport: Some(Transport::RawBuffer), ..ChainMatch::default() };
    let from = ChainMatch { source_ports: vec![1], ..strict.clone() };
    let of = |matches: &[&ChainMatch], port, transport, server_name, alpn: &[Box<str>]| {
        let chains: Vec<_> = matches.iter().map(|m| chain((*m).clone())).collect();
        let source = "10.9.9.9:4000".parse().unwrap();
        let facts = ChainFacts {
            destination: std::net::SocketAddr::from(([10, 0, 0, 1], port)),
            server_name,
            transport,
            alpn,
            direct_source: "10.9.9.9".parse().unwrap(),
            source,
        };
        lack(&chains, &facts)
    };
    let (raw, tls) = (Transport::RawBuffer, Transport::Tls);
    assert_eq!(of(&[&strict], 81, tls, None, &[]), Lack::Destination);
    assert_eq!(of(&[], 80, tls, None, &[]), Lack::Destination);
    assert_eq!(of(&[&strict], 80, raw, None, &[]), Lack::Plaintext);
    assert_eq!(of(&[&strict, &plain], 80, raw, None, &[]), Lack::Plaintext, "the port's own chains hide the others");
    assert_eq!(of(&[&plain], 80, tls, None, &[]), Lack::Tls);
    for (name, expected) in [
        (None, Lack::ServerName),
        (Some("b.test"), Lack::ServerName),
        (Some("x.a.test"), Lack::ServerName),
        (Some("x.b.test"), Lack::Other),
        (Some("a.test"), Lack::Other),
    ] {
        assert_eq!(of(&[&named], 80, tls, name, &[]), expected, "{name:?}");
    }
    assert_eq!(of(&[&protocol], 80, tls, None, &names(&["h2"])), Lack::Protocol);
    assert_eq!(of(&[&from], 80, tls, None, &[]), Lack::Other);
}
