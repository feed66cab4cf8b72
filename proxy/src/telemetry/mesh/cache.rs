//! Pairs that the calling worker has met: labels are written and looked up once per worker, not per connection.

use std::{cell::RefCell, collections::HashMap, hash::BuildHasher, rc::Rc, sync::Arc};

use super::{Mesh, Pair, Reporter, Service, Workload, labels::Peers};
use crate::ir::Metadata;

/// Pairs remembered per worker. One more, and all are forgotten: what is in use is soon back.
const REMEMBERED: usize = 1024;

thread_local! {
    static MET: RefCell<Met> = RefCell::default();
}

#[derive(Default)]
struct Met {
    hasher: foldhash::fast::RandomState,
    pairs: HashMap<u64, Vec<(Key, Rc<Pair>)>, foldhash::fast::RandomState>,
    count: usize,
}

#[derive(PartialEq, Eq)]
struct Key {
    mesh: usize,
    reporter: Reporter,
    cluster: Option<Box<str>>,
    service: Option<Arc<Metadata>>,
    endpoint: Option<Arc<Metadata>>,
    principals: (Option<Box<str>>, Option<Box<str>>),
    host: Option<Box<str>>,
}

/// Who talks to whom, as a connection knows it.
#[derive(Clone, Copy, Default)]
pub struct Flow<'a> {
    /// Beside the server.
    pub inbound: bool,
    /// Where it goes: the cluster's name, and what is noted of its service.
    pub cluster: Option<(&'a str, Option<&'a Arc<Metadata>>)>,
    /// What is noted of the host; means nothing inbound, where the host is this workload.
    pub endpoint: Option<&'a Arc<Metadata>>,
    /// The verified identities of the connection in the mesh, ours and the peer's.
    pub principals: (Option<&'a str>, Option<&'a str>),
}

/// What the calling worker counts such a flow by.
pub fn pair(mesh: &Arc<Mesh>, flow: &Flow<'_>) -> Rc<Pair> {
    find(mesh, flow, None)
}

/// As [`pair`], where the service has no other name than the host that the request asks for.
pub fn pair_of_host(mesh: &Arc<Mesh>, flow: &Flow<'_>, host: &str) -> Rc<Pair> {
    find(mesh, flow, Some(host))
}

fn find(mesh: &Arc<Mesh>, flow: &Flow<'_>, host: Option<&str>) -> Rc<Pair> {
    MET.with(|met| {
        let mut met = met.borrow_mut();
        let address = Arc::as_ptr(mesh) as usize;
        let of = |metadata: Option<&Arc<Metadata>>| metadata.map_or(0, |m| Arc::as_ptr(m) as usize);
        let (cluster, service) = flow.cluster.unzip();
        let service = service.flatten();
        let hash = met.hasher.hash_one((
            address,
            flow.inbound,
            cluster,
            of(service),
            of(flow.endpoint),
            flow.principals,
            host,
        ));
        let same = |a: &Option<Arc<Metadata>>, b: Option<&Arc<Metadata>>| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        let is = |key: &Key| {
            key.mesh == address
                && (key.reporter == Reporter::Destination) == flow.inbound
                && key.cluster.as_deref() == cluster
                && same(&key.service, service)
                && same(&key.endpoint, flow.endpoint)
                && (key.principals.0.as_deref(), key.principals.1.as_deref()) == flow.principals
                && key.host.as_deref() == host
        };
        if let Some((_, pair)) = met.pairs.get(&hash).and_then(|found| found.iter().find(|(key, _)| is(key))) {
            return pair.clone();
        }
        let pair = Rc::new(make(mesh, flow, host));
        if met.count >= REMEMBERED {
            met.pairs.clear();
            met.count = 0;
        }
        met.count += 1;
        let key = Key {
            mesh: address,
            reporter: if flow.inbound { Reporter::Destination } else { Reporter::Source },
            cluster: cluster.map(Into::into),
            service: service.cloned(),
            endpoint: flow.endpoint.cloned(),
            principals: (flow.principals.0.map(Into::into), flow.principals.1.map(Into::into)),
            host: host.map(Into::into),
        };
        met.pairs.entry(hash).or_default().push((key, pair.clone()));
        pair
    })
}

/// Longest host that becomes a label.
const MAX_HOST: usize = 253;

fn make(mesh: &Arc<Mesh>, flow: &Flow<'_>, host: Option<&str>) -> Pair {
    let service = flow.cluster.map(|(name, metadata)| Service::of_cluster(name, metadata.map(|m| &**m)));
    let mut service = service.unwrap_or_default();
    let wants_host = !flow.inbound && service.host.is_none() && host.is_none();
    if let Some(host) = host.filter(|_| service.host.is_none()) {
        let host: Box<str> = host.chars().take(MAX_HOST).collect();
        service.name.get_or_insert_with(|| host.clone());
        service.host = Some(host);
    }
    let reporter = if flow.inbound { Reporter::Destination } else { Reporter::Source };
    let endpoint = flow.endpoint.filter(|_| !flow.inbound).map(|m| &**m);
    let peer = Workload::of_endpoint(endpoint).unwrap_or_default();
    let (own_principal, peer_principal) = flow.principals;
    let own = &mesh.own().0;
    let peers = Peers { reporter, own, peer: &peer, own_principal, peer_principal, service: &service };
    Pair::new(mesh.clone(), reporter, peers.write(), wants_host)
}
