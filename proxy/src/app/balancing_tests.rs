//! Connections of the TCP proxy by source address and by subset, from a configuration as an operator writes it.

use std::{
    io::Read,
    net::{IpAddr, SocketAddr, TcpStream},
};

use socket2::{Domain, Socket, Type};

use super::testing::{Rig, server};
use crate::{
    live::testing::{statics, tcp_listener},
    upstream::{PickContext, lb::hash::of_ip},
};

/// A server that says its name and closes.
fn named(name: u8) -> SocketAddr {
    server(move |mut stream: TcpStream| {
        let _ = std::io::Write::write_all(&mut stream, &[name]);
    })
}

fn cluster(hosts: &[SocketAddr], fields: &str) -> String {
    let host = |(i, host): (usize, &SocketAddr)| {
        format!(
            "{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}, metadata: {{filter_metadata: {{envoy.lb: {{half: {}}}}}}}}}",
            host.ip(),
            host.port(),
            ["low", "high"][i / 3]
        )
    };
    let hosts: Vec<String> = hosts.iter().enumerate().map(host).collect();
    format!(
        "\n  - name: c\n    lb_policy: MAGLEV\n    {fields}\n    load_assignment: {{cluster_name: c, endpoints: [{{lb_endpoints: [{}]}}]}}\n",
        hosts.join(", ")
    )
}

/// Who answers a client at `source`.
fn asked_from(source: IpAddr, proxy: SocketAddr) -> u8 {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
    socket.connect(&proxy.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let mut name = [0];
    stream.read_exact(&mut name).unwrap();
    name[0]
}

#[test]
fn a_source_address_always_reaches_its_host() {
    let hosts: Vec<SocketAddr> = (0..6).map(named).collect();
    let mut rig = Rig::new(2, None);
    let listener = |more: &str| {
        let plain = tcp_listener("l", "127.0.0.1", 0, "c", "");
        plain.replace("cluster: c}", &format!("cluster: c, hash_policy: [{{source_ip: {{}}}}]{more}}}"))
    };
    rig.apply(&statics(&[listener("")], &[cluster(&hosts, "")]));
    let sources: Vec<IpAddr> = (1..=12).map(|i| IpAddr::from([127, 0, 9, i])).collect();
    let proxy = rig.address("l");
    let live = rig.shared.publisher.current();
    let mut seen = std::collections::BTreeSet::new();
    for source in &sources {
        let pick = PickContext { hash: Some(of_ip(*source)), ..PickContext::default() };
        let expected = live.cluster("c").unwrap().pick(&pick).unwrap();
        let expected = hosts.iter().position(|host| *host.to_string() == *expected.label).unwrap();
        for _ in 0..2 {
            assert_eq!(usize::from(asked_from(*source, proxy)), expected, "{source}");
        }
        seen.insert(expected);
    }
    assert!(seen.len() > 1, "{seen:?}");

    let subsets = "lb_subset_config: {subset_selectors: [{keys: [half]}]}";
    let wanted = ", metadata_match: {filter_metadata: {envoy.lb: {half: high}}}";
    rig.apply(&statics(&[listener(wanted)], &[cluster(&hosts, subsets)]));
    let proxy = rig.address("l");
    for source in &sources {
        let host = asked_from(*source, proxy);
        assert!(host >= 3, "{source} reached {host}");
        assert_eq!(asked_from(*source, proxy), host);
    }
}
