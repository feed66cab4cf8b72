//! One resource of the control plane: what is accepted is accepted again, can be put in force and decided by.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};
use outrigger_proxy::{
    ir::{Name, listener::Transport, snapshot::Snapshot},
    live::{Live, LiveTerminal},
    policy::{
        chain::ChainFacts,
        router::{ClientCertificate, RequestFacts, RouteTable, pick_target},
    },
    upstream::PickContext,
    xds::{
        Kind,
        decode::{self, Notes, Resource},
    },
};
use outrigger_wire::pb::google::protobuf::Any;
use prost::Message;

use super::fixture;

/// The first byte says what kind the rest is of.
pub(super) fn run(data: &[u8]) {
    let Some((&kind, value)) = data.split_first() else { return };
    let any = match Kind::ALL.get(usize::from(kind & 7)) {
        Some(kind) => Any { type_url: kind.type_url().to_owned(), value: value.to_vec() },
        None => match Any::decode(value) {
            Ok(any) => any,
            Err(_) => return,
        },
    };
    let mut notes = Notes::default();
    let Ok(resource) = decode::resource(&any, &mut notes) else { return };
    assert!(!resource.name().is_empty());
    assert_eq!(
        decode::resource(&any, &mut Notes::default()).as_ref(),
        Ok(&resource),
        "the same bytes, another meaning"
    );
    let live = compile(resource);
    use_it(&live);
}

/// Puts a resource in force, with nothing else.
fn compile(resource: Resource) -> Live {
    let mut snapshot = Snapshot { version: 1, ..Snapshot::default() };
    match resource {
        Resource::Listener(l) => drop(snapshot.listeners.insert(l.name.clone(), l)),
        Resource::Cluster(c) => drop(snapshot.clusters.insert(c.name.clone(), c)),
        Resource::Endpoints { name, assignment } => drop(snapshot.endpoints.insert(name, assignment)),
        Resource::Routes { name, routes } => drop(snapshot.routes.insert(name, routes)),
        Resource::Secret { name, secret } => drop(snapshot.secrets.insert(name, secret)),
    }
    let names: Vec<Name> = snapshot.routes.keys().cloned().collect();
    let (live, _) = fixture::builder().build(&Arc::new(snapshot), &Default::default(), &Live::default());
    for name in &names {
        route(live.routes(name).expect("it was just put there"));
    }
    live
}

/// Decides by what is in force, as the data path does.
pub(super) fn use_it(live: &Live) {
    let address = "10.0.0.1:80".parse().expect("an address");
    for cluster in live.clusters() {
        for random in [0, 1, u64::MAX] {
            let context = PickContext { random, hash: Some(random), attempts: 1, ..PickContext::default() };
            let _ = cluster.pick(&context);
        }
    }
    let names: Vec<Name> = live.listeners.iter().map(|(name, _)| name.clone()).collect();
    for listener in names.iter().filter_map(|name| live.listener(name)) {
        let facts = ChainFacts {
            destination: address,
            server_name: Some("a.example.com"),
            transport: Transport::Tls,
            alpn: &["h2".into()],
            direct_source: address.ip(),
            source: address,
        };
        let _ = listener.choose(&facts);
        for chain in &listener.chains {
            if let LiveTerminal::Http(manager) = &chain.terminal
                && let Some(table) = &manager.inline_routes
            {
                route(table);
            }
        }
    }
}

fn route(table: &RouteTable) {
    let mut headers = HeaderMap::new();
    headers.insert("x-a", HeaderValue::from_static("1"));
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("cookie", HeaderValue::from_static("a=b; c"));
    for (authority, path) in [("a", "/"), ("a.example.com:80", "/a/b?c=d&e"), ("", ""), ("[::1]:80", "/%zz//..;a")] {
        let facts = RequestFacts {
            authority,
            path,
            method: &Method::GET,
            scheme: "http",
            headers: &headers,
            certificate: ClientCertificate::default(),
            random: 7,
        };
        if let Ok(selected) = table.select(&facts)
            && let outrigger_proxy::ir::route::Action::Forward(forward) = &selected.route.action
        {
            let _ = pick_target(&forward.target, &headers, 7);
        }
    }
}
