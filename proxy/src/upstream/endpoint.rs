//! One upstream host: what configuration says of it, and what is in flight to it.
//!
//! Owns the in-flight counts that load balancing reads and the permits that keep them right. An endpoint outlives the
//! cluster view it was built for: the next view of the cluster takes it over as long as address, hostname, metadata and
//! transport socket stay the same, so identity (`Arc::ptr_eq`) is the key of connection pools.

use std::{
    fmt,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;

use super::{
    Cluster,
    breaker::{Breaker, Permit},
    lb::Latency,
    transport::Transport,
    uptime,
};
use crate::{
    ir::{Metadata, endpoint::Address},
    telemetry::metrics::{ClusterStats, Sharded},
    tls::client::ClientContext,
};

/// A host that requests and connections can go to.
pub struct Endpoint {
    pub address: Address,
    /// The address as text, for logs and `/clusters`.
    pub label: Arc<str>,
    /// May be empty.
    pub hostname: Arc<str>,
    pub metadata: Option<Arc<Metadata>>,
    /// `None`: plaintext.
    pub tls: Option<Arc<ClientContext>>,
    /// The hostname is the SNI of connections that ask for no other.
    pub(super) auto_host_sni: bool,
    /// The transport socket says which protocols to offer.
    configured_alpn: bool,
    /// Requests (or L4 connections picked for it) in flight, over all workers.
    pub rq_active: AtomicU32,
    /// Connections open, over all workers.
    pub cx_active: AtomicU32,
    /// How long it takes to answer; written only where the balancer reads it.
    pub(super) latency: Latency,
    /// Since when it takes traffic, in milliseconds of the uptime.
    since: AtomicU64,
    stats: OnceLock<Box<EndpointStats>>,
    /// What the name of a logical DNS endpoint stands for now.
    resolved: ArcSwapOption<Vec<SocketAddr>>,
    removed: AtomicBool,
}

/// Counters of one endpoint; allocated at first use, for most endpoints of a large mesh get no traffic.
#[derive(Debug, Default)]
pub struct EndpointStats {
    pub cx_total: AtomicU64,
    pub cx_connect_fail: AtomicU64,
    pub rq_total: AtomicU64,
    pub rq_success: AtomicU64,
    pub rq_error: AtomicU64,
}

impl Endpoint {
    pub(super) fn new(
        address: Address,
        hostname: Arc<str>,
        metadata: Option<Arc<Metadata>>,
        transport: Option<&Transport>,
    ) -> Arc<Self> {
        Arc::new(Self {
            label: address.to_string().into(),
            address,
            hostname,
            metadata,
            tls: transport.map(|t| t.context.clone()),
            auto_host_sni: transport.is_some_and(|t| t.config.auto_host_sni),
            configured_alpn: transport.is_some_and(|t| !t.config.common.alpn.is_empty()),
            rq_active: AtomicU32::new(0),
            cx_active: AtomicU32::new(0),
            latency: Latency::default(),
            since: AtomicU64::new(uptime().as_millis() as u64),
            stats: OnceLock::new(),
            resolved: ArcSwapOption::empty(),
            removed: AtomicBool::new(false),
        })
    }

    /// Whether this object can stand for an endpoint so described.
    pub(super) fn is_same(
        &self,
        hostname: &str,
        metadata: Option<&Arc<Metadata>>,
        transport: Option<&Transport>,
    ) -> bool {
        let same_tls = match (&self.tls, transport) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, &theirs.context),
            (None, None) => true,
            _ => false,
        };
        let same_metadata = match (&self.metadata, metadata) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs) || ours == theirs,
            (None, None) => true,
            _ => false,
        };
        same_tls && same_metadata && *self.hostname == *hostname
    }

    /// Whether the transport socket says which application protocols to offer.
    pub fn has_alpn(&self) -> bool {
        self.configured_alpn
    }

    /// Since when it takes traffic, in the time of [`uptime`]: slow start counts from here.
    pub fn since(&self) -> Duration {
        Duration::from_millis(self.since.load(Relaxed))
    }

    /// It takes traffic again from now on, as if it were new (an active health check passed after failures).
    pub fn begins(&self, now: Duration) {
        self.since.store(now.as_millis() as u64, Relaxed);
    }

    /// The counters, allocated now if nobody did before.
    pub fn stats(&self) -> &EndpointStats {
        self.stats.get_or_init(Box::default)
    }

    /// The counters, if the endpoint was ever used.
    pub fn stats_if_used(&self) -> Option<&EndpointStats> {
        self.stats.get().map(|s| &**s)
    }

    /// Whether the latest view of the cluster no longer has it: pools let go of idle connections to it.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Relaxed)
    }

    pub(super) fn set_removed(&self, removed: bool) {
        self.removed.store(removed, Relaxed);
    }

    /// What a logical DNS endpoint's name resolved to last; the first address is tried first.
    pub fn resolved(&self) -> Option<Arc<Vec<SocketAddr>>> {
        self.resolved.load_full()
    }

    pub(super) fn set_resolved(&self, addresses: Vec<SocketAddr>) {
        self.resolved.store(Some(Arc::new(addresses)));
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Endpoint").field(&self.label).finish()
    }
}

/// An open connection: its circuit breaker permit and its place in the gauges, until drop.
#[derive(Debug)]
pub struct ConnectionPermit {
    _permit: Permit,
    endpoint: Arc<Endpoint>,
    stats: Arc<Sharded<ClusterStats>>,
}

impl ConnectionPermit {
    pub(super) fn new(permit: Permit, endpoint: Arc<Endpoint>, stats: Arc<Sharded<ClusterStats>>) -> Self {
        endpoint.cx_active.fetch_add(1, Relaxed);
        endpoint.stats().cx_total.fetch_add(1, Relaxed);
        let local = stats.local();
        local.upstream_cx_total.inc();
        local.upstream_cx_active.inc();
        Self { _permit: permit, endpoint, stats }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.endpoint.cx_active.fetch_sub(1, Relaxed);
        let local = self.stats.local();
        local.upstream_cx_active.dec();
        local.upstream_cx_destroy.inc();
    }
}

/// What requests of one worker to one endpoint are counted by. Held once per connection pool, so that a request touches
/// no reference count that other workers touch.
#[derive(Debug)]
pub struct Scope {
    default: Arc<Breaker>,
    high: Arc<Breaker>,
    endpoint: Arc<Endpoint>,
    stats: Arc<Sharded<ClusterStats>>,
}

impl Scope {
    pub fn new(cluster: &Cluster, endpoint: Arc<Endpoint>) -> Rc<Self> {
        let (default, high) = (cluster.breaker(false).clone(), cluster.breaker(true).clone());
        Rc::new(Self { default, high, endpoint, stats: cluster.stats.clone() })
    }

    fn breaker(&self, high: bool) -> &Breaker {
        if high { &self.high } else { &self.default }
    }

    /// Counts a request in, unless the circuit breaker is open.
    pub fn try_request(self: &Rc<Self>, high: bool) -> Option<RequestPermit> {
        let local = self.stats.local();
        if !self.breaker(high).take_request() {
            local.upstream_rq_pending_overflow.inc();
            return None;
        }
        self.endpoint.rq_active.fetch_add(1, Relaxed);
        self.endpoint.stats().rq_total.fetch_add(1, Relaxed);
        local.upstream_rq_total.inc();
        local.upstream_rq_active.inc();
        Some(RequestPermit { scope: self.clone(), high })
    }
}

/// A request in flight: its circuit breaker permit and its place in the gauges, until drop.
#[derive(Debug)]
pub struct RequestPermit {
    scope: Rc<Scope>,
    high: bool,
}

impl RequestPermit {
    /// The counters of its cluster.
    pub fn stats(&self) -> &ClusterStats {
        self.scope.stats.local()
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        self.scope.breaker(self.high).give_request();
        self.scope.endpoint.rq_active.fetch_sub(1, Relaxed);
        self.scope.stats.local().upstream_rq_active.dec();
    }
}
