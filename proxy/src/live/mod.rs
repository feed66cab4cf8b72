//! The published snapshot: everything a worker needs to decide, compiled once on the control thread.
//!
//! A [`Live`] is immutable. What changes at run time (requests in flight, ejections, open connections) hangs off the
//! endpoint, listener and chain objects it shares with its predecessor. Workers read it through a [`Reader`]: one
//! atomic load per connection and per request, no lock and no shared reference count. Invariant: parts that did not
//! change are the same objects, and tables share what they have in common.

mod address;
mod admission;
mod build;
mod filters;
mod jwks;
#[cfg(test)]
mod keeping_tests;
mod limits;
mod network;
mod publish;
mod rbac;
mod standing;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
};

use address::Addresses;
pub use address::Claim;
pub use admission::{Admission, Admitted};
pub use build::{Builder, Problem, Resolved, check};
pub use filters::{ActiveFault, LiveFilters, LiveGlobalLimit};
pub use jwks::{Fetching, Kept, KeyStore, LiveJwt};
pub use limits::{LiveConnectionLimit, LiveGlobalConnectionLimit};
pub use network::{LiveNetwork, LiveNetworkFilter};
pub use publish::{LiveRef, Publisher, Reader};
pub use rbac::{LiveNetworkRbac, RbacCounts};
pub use standing::Standing;

use crate::{
    drain,
    ir::{
        Name,
        http::ConnectionManager,
        listener::{FilterChain, Listener, TcpProxy},
        name_map::NameMap,
        snapshot::Snapshot,
    },
    policy::{
        chain::{ChainFacts, ChainIndex},
        dry_run::StrictTrial,
        router::RouteTable,
    },
    telemetry::{
        access_log::Loggers,
        mesh::Reporting,
        metrics::{HttpStats, ListenerStats, Sharded, TcpStats},
        trace::Tracing,
    },
    tls::ServerContext,
    upstream::Cluster,
};

/// One compiled configuration, cheap to copy.
#[derive(Clone, Default)]
pub struct Live {
    /// The snapshot's version; 0 before any configuration.
    pub version: u64,
    /// What it was compiled from, to find what the next snapshot changes.
    source: Arc<Snapshot>,
    resolved: Resolved,
    pub listeners: NameMap<Arc<LiveListener>>,
    addresses: Arc<Addresses>,
    clusters: NameMap<Arc<Cluster>>,
    /// Clusters by the EDS resource they use, where it is not named like the cluster.
    services: NameMap<Arc<[Name]>>,
    routes: NameMap<Arc<RouteTable>>,
    /// What could not be built and is tried again at the next build.
    failed_clusters: Vec<Name>,
    failed_listeners: Vec<Name>,
}

impl Live {
    pub fn listener(&self, name: &str) -> Option<&Arc<LiveListener>> {
        self.listeners.get(name)
    }

    pub fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.get(name)
    }

    pub fn clusters(&self) -> impl ExactSizeIterator<Item = &Arc<Cluster>> {
        self.clusters.values()
    }

    pub fn routes(&self, name: &str) -> Option<&Arc<RouteTable>> {
        self.routes.get(name)
    }

    /// The listener that takes over a connection to `destination`, as Envoy's `use_original_dst` finds it: the exact
    /// address first, then the wildcard of the same family at that port.
    pub fn hand_off(&self, destination: SocketAddr) -> Option<&Arc<LiveListener>> {
        self.addresses.hand_off(destination)
    }

    /// The listener a bound socket accepts for.
    pub fn bound(&self, claim: &Claim) -> Option<&Arc<LiveListener>> {
        match claim {
            Claim::Address(address) => self.addresses.bound(address),
            Claim::Name(name) => self.listener(name),
        }
    }

    /// Whether some listener captures redirected connections at this port.
    pub fn captures(&self, port: u16) -> bool {
        self.addresses.captures(port)
    }

    /// Listeners that lost an address to another one, with the reason.
    pub fn conflicts(&self) -> &[(Name, String)] {
        self.addresses.conflicts()
    }

    /// Whether listeners and their addresses are those of `other`.
    pub fn same_listeners(&self, other: &Self) -> bool {
        self.listeners.is_same(&other.listeners)
    }

    /// Chains of this configuration that `after` no longer has: their connections are to be drained.
    pub fn removed_chains(&self, after: &Self) -> Vec<Arc<LiveChain>> {
        if self.same_listeners(after) {
            return Vec::new();
        }
        let mut removed = Vec::new();
        for (name, before) in self.listeners.iter() {
            let now = after.listeners.get(name);
            if now.is_some_and(|now| Arc::ptr_eq(now, before)) {
                continue;
            }
            let kept: HashSet<*const drain::Source> =
                now.iter().flat_map(|l| l.all_chains()).map(|chain| Arc::as_ptr(&chain.drain)).collect();
            removed.extend(before.all_chains().filter(|chain| !kept.contains(&Arc::as_ptr(&chain.drain))).cloned());
        }
        removed
    }

    /// The chains in force by what all versions of each share.
    pub fn heirs(&self) -> HashMap<*const Standing, &Arc<LiveChain>> {
        let chains = self.listeners.values().flat_map(|listener| listener.all_chains());
        chains.map(|chain| (Arc::as_ptr(&chain.standing), chain)).collect()
    }

    /// Puts the filters of chains that `before` had in another version, or not at all, in force for their connections.
    /// Where other chains take connections than before, those of all chains look again whose they are.
    pub fn enforce(&self, before: &Self) {
        if self.same_listeners(before) {
            return;
        }
        for (name, now) in self.listeners.iter() {
            let then = before.listeners.get(name);
            if then.is_some_and(|then| Arc::ptr_eq(then, now)) {
                continue;
            }
            let known: HashSet<*const LiveChain> = then.iter().flat_map(|l| l.all_chains()).map(Arc::as_ptr).collect();
            let moved = then.is_some_and(|then| !then.takes_the_same(now));
            for chain in now.all_chains() {
                match known.contains(&Arc::as_ptr(chain)) {
                    false => chain.enforce(),
                    true if moved => chain.standing.reconsider(),
                    true => {}
                }
            }
        }
    }

    /// The JWT filters of which some fetch keys before they are needed.
    pub fn ahead(&self) -> impl Iterator<Item = &Arc<LiveJwt>> {
        let chains = self.listeners.values().flat_map(|listener| listener.all_chains());
        let managers = chains.filter_map(|chain| match &chain.terminal {
            LiveTerminal::Http(hcm) => Some(hcm),
            LiveTerminal::Tcp(_) => None,
        });
        managers.flat_map(|hcm| hcm.filters.all_jwt()).filter(|jwt| jwt.ahead().next().is_some())
    }

    /// Clusters that `after` no longer has.
    pub fn removed_clusters(&self, after: &Self) -> Vec<Arc<Cluster>> {
        let mut removed = Vec::new();
        self.source.clusters.differences(&after.source.clusters, |name, now| {
            removed.extend(self.cluster(name).filter(|_| now.is_none()).cloned());
        });
        removed
    }

    /// Whether the configuration (not the endpoints) of some cluster differs from `before`.
    pub fn clusters_reconfigured(&self, before: &Self) -> bool {
        !before.source.clusters.is_same(&self.source.clusters)
    }
}

/// A listener with its filter chains indexed.
pub struct LiveListener {
    pub config: Arc<Listener>,
    pub index: ChainIndex,
    pub chains: Vec<Arc<LiveChain>>,
    pub default_chain: Option<Arc<LiveChain>>,
    /// Whether some chain ends TLS here: a silent client may then be a slow TLS client.
    pub terminates_tls: bool,
    pub stats: Arc<Sharded<ListenerStats>>,
    /// Open connections over all workers; survives updates of the listener.
    pub open: Arc<AtomicU64>,
    pub logs: Arc<Loggers>,
}

impl LiveListener {
    /// The chain that serves a connection.
    pub fn choose(&self, facts: &ChainFacts<'_>) -> Option<&Arc<LiveChain>> {
        self.index.select(facts).map(|index| &self.chains[index]).or(self.default_chain.as_ref())
    }

    /// Whether each connection is served by the same chain as in `other`, but for what the chains do.
    fn takes_the_same(&self, other: &Self) -> bool {
        let (own, others) = (&self.config.chains, &other.config.chains);
        let matches = own.iter().map(|chain| &chain.matches).eq(others.iter().map(|chain| &chain.matches));
        matches && self.default_chain.is_some() == other.default_chain.is_some()
    }

    fn all_chains(&self) -> impl Iterator<Item = &Arc<LiveChain>> {
        self.chains.iter().chain(&self.default_chain)
    }
}

/// A filter chain ready to serve. The same object lives on over updates that leave its configuration equal, so that
/// only connections of chains that really changed are drained.
pub struct LiveChain {
    pub config: Arc<FilterChain>,
    pub tls: Option<Arc<ServerContext>>,
    /// Of a chain that STRICT would take away.
    pub strict_trial: Option<StrictTrial>,
    pub network: Arc<LiveNetwork>,
    pub terminal: LiveTerminal,
    /// What is in force for the connections of all versions of this chain.
    pub standing: Arc<Standing>,
    /// Shared, so that whoever ends a removed chain's connections need not keep the chain; and by versions that differ
    /// only in who may do what, which ends no connection that still may.
    pub drain: Arc<drain::Source>,
}

impl LiveChain {
    /// Puts its filters in force for the connections of its former versions.
    pub(super) fn enforce(&self) {
        let http = match &self.terminal {
            LiveTerminal::Http(hcm) => Some(hcm.filters.clone()),
            LiveTerminal::Tcp(_) => None,
        };
        self.standing.replace(self.network.clone(), http, &self.drain);
    }
}

#[derive(Clone)]
pub enum LiveTerminal {
    Tcp(Arc<LiveTcp>),
    Http(Arc<LiveHcm>),
}

/// A `tcp_proxy` with its handles resolved.
pub struct LiveTcp {
    pub config: Arc<TcpProxy>,
    pub mesh: Option<Arc<Reporting>>,
    pub stats: Arc<Sharded<TcpStats>>,
    pub logs: Arc<Loggers>,
}

/// An HTTP connection manager with its handles resolved.
pub struct LiveHcm {
    pub config: Arc<ConnectionManager>,
    /// The table of an inline route configuration; RDS tables are looked up in [`Live::routes`] per request.
    pub inline_routes: Option<Arc<RouteTable>>,
    pub stats: Arc<Sharded<HttpStats>>,
    pub logs: Arc<Loggers>,
    pub mesh: Option<Arc<Reporting>>,
    pub tracing: Option<Arc<Tracing>>,
    pub filters: Arc<LiveFilters>,
    /// Of the chain.
    pub standing: Arc<Standing>,
}
