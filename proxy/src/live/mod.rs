//! The published snapshot: everything a worker needs to decide, compiled once on the control thread.
//!
//! A [`Live`] is immutable. What changes at run time (requests in flight, ejections, open connections) hangs off the
//! endpoint, listener and chain objects it shares with its predecessor. Workers read it through a [`Reader`]: one
//! atomic load per connection and per request, no lock and no shared reference count.

mod build;
mod publish;

use std::{collections::HashMap, net::SocketAddr, sync::Arc, sync::atomic::AtomicU64};

pub use build::{Builder, Problem};
pub use publish::{LiveRef, Publisher, Reader};

use crate::{
    drain,
    ir::{
        Name,
        endpoint::Assignment,
        http::ConnectionManager,
        listener::{FilterChain, Listener, TcpProxy},
    },
    policy::{chain::ChainIndex, router::RouteTable},
    telemetry::{
        access_log::Logger,
        metrics::{HttpStats, ListenerStats, Sharded, TcpStats},
    },
    tls::ServerContext,
    upstream::Cluster,
};

type Map<T> = HashMap<Name, T, foldhash::fast::RandomState>;

/// One compiled configuration.
#[derive(Default)]
pub struct Live {
    /// The snapshot's version; 0 before any configuration.
    pub version: u64,
    pub listeners: Map<Arc<LiveListener>>,
    /// Hand-off targets of `use_original_dst`, by exact address.
    by_address: HashMap<SocketAddr, Arc<LiveListener>, foldhash::fast::RandomState>,
    clusters: Map<Arc<Cluster>>,
    /// The endpoints each cluster was built from: the same `Arc` again means there is nothing to rebuild.
    assignments: Map<Arc<Assignment>>,
    routes: Map<Arc<RouteTable>>,
}

impl Live {
    pub fn listener(&self, name: &str) -> Option<&Arc<LiveListener>> {
        self.listeners.get(name)
    }

    pub fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.get(name)
    }

    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.clusters.values()
    }

    pub fn routes(&self, name: &str) -> Option<&Arc<RouteTable>> {
        self.routes.get(name)
    }

    /// The listener that takes over a connection to `destination`, as Envoy's `use_original_dst` finds it: the exact
    /// address first, then the wildcard of the same family at that port.
    pub fn hand_off(&self, destination: SocketAddr) -> Option<&Arc<LiveListener>> {
        let port = destination.port();
        let v6 = SocketAddr::from(([0u16; 8], port));
        let v4 = SocketAddr::from(([0u8; 4], port));
        self.by_address
            .get(&destination)
            .or_else(|| destination.is_ipv4().then(|| self.by_address.get(&v4)).flatten())
            .or_else(|| self.by_address.get(&v6))
    }
}

/// A listener with its filter chains indexed.
pub struct LiveListener {
    pub config: Arc<Listener>,
    pub index: ChainIndex,
    pub chains: Vec<Arc<LiveChain>>,
    pub default_chain: Option<Arc<LiveChain>>,
    pub stats: Arc<Sharded<ListenerStats>>,
    /// Open connections over all workers; survives updates of the listener.
    pub open: Arc<AtomicU64>,
    pub logs: Arc<[Logger]>,
}

/// A filter chain ready to serve. The same object lives on over updates that leave its configuration equal, so that
/// only connections of chains that really changed are drained.
pub struct LiveChain {
    pub config: Arc<FilterChain>,
    pub tls: Option<Arc<ServerContext>>,
    pub terminal: LiveTerminal,
    pub drain: drain::Source,
}

#[derive(Clone)]
pub enum LiveTerminal {
    Tcp(Arc<LiveTcp>),
    Http(Arc<LiveHcm>),
}

/// A `tcp_proxy` with its handles resolved.
pub struct LiveTcp {
    pub config: Arc<TcpProxy>,
    pub stats: Arc<Sharded<TcpStats>>,
    pub logs: Arc<[Logger]>,
}

/// An HTTP connection manager with its handles resolved.
pub struct LiveHcm {
    pub config: Arc<ConnectionManager>,
    /// The table of an inline route configuration; RDS tables are looked up in [`Live::routes`] per request.
    pub inline_routes: Option<Arc<RouteTable>>,
    pub stats: Arc<Sharded<HttpStats>>,
    pub logs: Arc<[Logger]>,
}
