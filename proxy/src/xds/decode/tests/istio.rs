//! What istiod sends to a sidecar, from its own templates: none of it may be refused.

use super::*;
use crate::ir::{
    cluster::Discovery,
    http::{FilterKind, RouteSource},
    listener::{ChainMatch, Terminal, Transport},
    route::Action,
    secret::ValidationSource,
};

pub(super) const SIDECAR: [&str; 4] = [
    include_str!("fixtures/istio-outbound.yaml"),
    include_str!("fixtures/istio-inbound.yaml"),
    include_str!("fixtures/istio-clusters.yaml"),
    include_str!("fixtures/istio-routes.yaml"),
];

pub(super) fn resources(set: &str) -> Vec<Any> {
    let Ok(serde_json::Value::Array(list)) = json::parse(set) else { panic!("a list of resources") };
    list.into_iter().map(|v| json::from_value(v).unwrap_or_else(|e| panic!("{e}"))).collect()
}

fn all(set: &str) -> (Vec<Resource>, Notes) {
    let mut notes = Notes::default();
    let decoded =
        resources(set).iter().map(|any| resource(any, &mut notes).unwrap_or_else(|e| panic!("{e}"))).collect();
    (decoded, notes)
}

fn listener(set: &str, name: &str) -> Arc<Listener> {
    let found = all(set).0.into_iter().find_map(|r| match r {
        Resource::Listener(l) if &*l.name == name => Some(l),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no listener {name}"))
}

#[test]
fn nothing_is_refused_and_nothing_needs_more_than_a_note() {
    for set in SIDECAR {
        let (decoded, notes) = all(set);
        assert!(decoded.len() >= 3);
        let shown: Vec<_> = notes.iter().map(ToString::to_string).collect();
        assert!(notes.dropped() == 0 && notes.len() < 40, "{shown:#?}");
        assert!(notes.iter().all(|n| n.kind != NoteKind::Unsupported || is_known_gap(n)), "{shown:#?}");
    }
}

/// Features of the next release that a default installation asks for.
fn is_known_gap(note: &Note) -> bool {
    ["typed_dns_resolver_config"].iter().any(|gap| note.path.ends_with(gap))
}

#[test]
fn virtual_outbound() {
    let l = listener(SIDECAR[0], "virtualOutbound");
    assert!(l.use_original_dst && l.bind_to_port && l.inspectors.original_dst);
    assert_eq!(l.inspection_timeout, None);
    assert!(l.continue_on_inspection_timeout);
    let Terminal::Tcp(tcp) = &l.chains[0].terminal else { panic!() };
    assert_eq!(&*tcp.targets[0].cluster, "BlackHoleCluster");
    assert_eq!(l.chains[0].matches, ChainMatch { destination_port: Some(15001), ..ChainMatch::default() });
    let http = listener(SIDECAR[0], "0.0.0.0_80");
    assert!(!http.bind_to_port);
    let Terminal::Http(m) = &http.chains[0].terminal else { panic!() };
    assert!(matches!(&m.routes, RouteSource::Rds { name, source: crate::ir::ConfigSource::Ads } if &**name == "80"));
    assert_eq!(m.stream_idle_timeout, None, "0 disables");
    assert!(matches!(
        m.filters.iter().map(|f| &f.kind).collect::<Vec<_>>()[..],
        [FilterKind::Alpn(_), FilterKind::Fault(_), FilterKind::Cors, FilterKind::Router(_)]
    ));
    assert_eq!(m.upgrades, [(Box::from("websocket"), true)]);
    let default = http.default_chain.as_ref().unwrap();
    assert!(matches!(default.terminal, Terminal::Tcp(_)));
}

#[test]
fn virtual_inbound_has_five_chains_for_a_permissive_port() {
    let l = listener(SIDECAR[1], "virtualInbound");
    let chains: Vec<_> = l.chains.iter().filter(|c| c.matches.destination_port == Some(8080)).collect();
    assert_eq!(chains.len(), 5);
    let facts = |i: usize| {
        (chains[i].matches.transport, chains[i].tls.is_some(), matches!(chains[i].terminal, Terminal::Http(_)))
    };
    assert_eq!(facts(0), (Some(Transport::Tls), true, true));
    assert_eq!(facts(1), (Some(Transport::RawBuffer), false, true));
    assert_eq!(facts(2), (Some(Transport::Tls), true, false));
    assert_eq!(facts(3), (Some(Transport::RawBuffer), false, false));
    assert_eq!(facts(4), (Some(Transport::Tls), false, false), "the application's own TLS passes");
    // What the client offers decides about the chain; what we answer never contains the exchange.
    assert!(chains[2].matches.application_protocols.iter().any(|p| &**p == "istio-peer-exchange"));
    let tls = chains[2].tls.as_ref().unwrap();
    assert_eq!(tls.common.alpn.iter().map(|p| &**p).collect::<Vec<_>>(), ["h2", "http/1.1"]);
    assert!(tls.require_client_certificate);
    assert!(matches!(tls.common.validation, ValidationSource::Combined { .. }));
    assert!(!l.inspectors.tls.as_ref().unwrap().enabled_for(9090), "switched off where no chain needs it");
    assert!(l.inspectors.tls.as_ref().unwrap().enabled_for(8080));
}

#[test]
fn clusters_and_routes() {
    let (decoded, _) = all(SIDECAR[2]);
    let cluster = |name: &str| {
        let found = decoded.iter().find_map(|r| match r {
            Resource::Cluster(c) if &*c.name == name => Some(Arc::clone(c)),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no cluster {name}"))
    };
    let reviews = cluster("outbound|9080||reviews.default.svc.cluster.local");
    assert!(matches!(reviews.discovery, Discovery::Eds { .. }));
    assert_eq!(reviews.transport_matches[0].criteria["tlsMode"], "istio");
    let tls = reviews.transport_matches[0].tls.as_ref().unwrap();
    assert_eq!(tls.common.alpn.iter().map(|p| &**p).collect::<Vec<_>>(), ["istio"]);
    assert!(reviews.transport_matches[1].tls.is_none());
    let inbound = cluster("inbound|8080||");
    assert!(inbound.bind.is_some() && matches!(inbound.discovery, Discovery::OriginalDst { .. }));
    assert!(matches!(&cluster("BlackHoleCluster").discovery, Discovery::Static(a) if a.localities.is_empty()));
    let (decoded, _) = all(SIDECAR[3]);
    let Some(Resource::Routes { routes, .. }) = decoded.iter().find(|r| &**r.name() == "9080") else { panic!() };
    assert_eq!(routes.virtual_hosts[0].domains[0].as_ref(), "reviews.default.svc.cluster.local");
    let Action::Forward(f) = &routes.virtual_hosts[0].routes[0].action else { panic!() };
    assert_eq!(f.timeout, None);
}
