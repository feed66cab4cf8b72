//! Pairs that the calling worker has met: labels are written and looked up once per worker, not per connection.

use std::{cell::RefCell, collections::HashMap, hash::BuildHasher, rc::Rc, sync::Arc};

use super::{
    Mesh, Pair, Reporter, Service, Workload,
    labels::{Peers, overflow},
};
use crate::ir::Metadata;

/// Pairs remembered per worker, twice: those that were met of late, and those before them.
const REMEMBERED: usize = 512;

thread_local! {
    static MET: RefCell<Met> = RefCell::default();
}

#[derive(Default)]
struct Met {
    hasher: foldhash::fast::RandomState,
    pairs: Pairs,
    count: usize,
    /// Met longer ago. With the next generation they are forgotten, if nobody asks for them until then.
    former: Pairs,
    /// For hosts that have no room in the book, by its address.
    beyond: Option<(usize, Rc<Pair>)>,
}

type Pairs = HashMap<u64, Vec<(Key, Rc<Pair>)>, foldhash::fast::RandomState>;

impl Met {
    fn remember(&mut self, hash: u64, key: Key, pair: Rc<Pair>) {
        if self.count >= REMEMBERED {
            self.former = std::mem::take(&mut self.pairs);
            self.count = 0;
        }
        self.count += 1;
        self.pairs.entry(hash).or_default().push((key, pair));
    }

    fn beyond(&mut self, mesh: &Arc<Mesh>) -> Rc<Pair> {
        let address = Arc::as_ptr(mesh) as usize;
        match &self.beyond {
            Some((known, pair)) if *known == address => pair.clone(),
            _ => {
                let pair = Rc::new(Pair::new(mesh.clone(), Reporter::Source, overflow(Reporter::Source), false));
                self.beyond = Some((address, pair.clone()));
                pair
            }
        }
    }
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
        let former = met.former.get_mut(&hash);
        if let Some((at, former)) = former.and_then(|found| Some((found.iter().position(|(key, _)| is(key))?, found))) {
            let (key, pair) = former.swap_remove(at);
            met.remember(hash, key, pair.clone());
            return pair;
        }
        let pair = make(mesh, flow, host);
        if host.is_some() && !flow.inbound && mesh.is_beyond(pair.labels()) {
            // Of hosts there is no end: they drive out nobody who is known, and ask nobody else.
            return met.beyond(mesh);
        }
        let pair = Rc::new(pair);
        let key = Key {
            mesh: address,
            reporter: if flow.inbound { Reporter::Destination } else { Reporter::Source },
            cluster: cluster.map(Into::into),
            service: service.cloned(),
            endpoint: flow.endpoint.cloned(),
            principals: (flow.principals.0.map(Into::into), flow.principals.1.map(Into::into)),
            host: host.map(Into::into),
        };
        met.remember(hash, key, pair.clone());
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
