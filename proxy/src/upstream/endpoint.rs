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
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use super::{
    Cluster, ConnectOptions,
    breaker::{Breaker, Permit},
    cluster::Reporter,
    credit::Streak,
    lb::Latency,
    outlier::Monitor,
    transport::Transport,
    uptime,
};
use crate::{
    ir::{
        Metadata,
        endpoint::{Address, Health},
    },
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
    /// What the newest description of the host says; balancers keep to what their view was built from.
    metadata: ArcSwapOption<Metadata>,
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
    /// Whether retries away from other hosts may count on it.
    pub streak: Streak,
    /// Since when it takes traffic, in milliseconds of the uptime.
    since: AtomicU64,
    stats: OnceLock<Box<EndpointStats>>,
    /// What outlier detection counts; allocated at the first result of a cluster that has it.
    monitor: OnceLock<Box<Monitor>>,
    /// [`HealthFlag`]s that are set.
    flags: AtomicU8,
    failures: AtomicU32,
    /// For those who want to hear of the next failure.
    failed: OnceLock<Box<Notify>>,
    /// What the name of a logical DNS endpoint stands for now.
    resolved: ArcSwapOption<Vec<SocketAddr>>,
    removed: AtomicBool,
}

/// What this proxy found out about a host by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HealthFlag {
    FailedOutlierCheck = 1,
    FailedActiveCheck = 2,
    DegradedActiveCheck = 4,
    /// Not checked yet.
    PendingActiveCheck = 8,
    /// The last active check got no answer in time.
    ActiveCheckTimeout = 16,
    /// Its cluster has active health checks, and they are meant for it.
    ActivelyChecked = 32,
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
            metadata: ArcSwapOption::new(metadata),
            tls: transport.map(|t| t.context.clone()),
            auto_host_sni: transport.is_some_and(|t| t.config.auto_host_sni),
            configured_alpn: transport.is_some_and(|t| !t.config.common.alpn.is_empty()),
            rq_active: AtomicU32::new(0),
            cx_active: AtomicU32::new(0),
            latency: Latency::default(),
            streak: Streak::default(),
            since: AtomicU64::new(uptime().as_millis() as u64),
            stats: OnceLock::new(),
            monitor: OnceLock::new(),
            flags: AtomicU8::new(0),
            failures: AtomicU32::new(0),
            failed: OnceLock::new(),
            resolved: ArcSwapOption::empty(),
            removed: AtomicBool::new(false),
        })
    }

    /// Whether this object can stand for an endpoint so described, whatever its metadata.
    pub(super) fn is_same(&self, hostname: &str, transport: Option<&Transport>) -> bool {
        let same_tls = self.tls.as_ref().map(Arc::as_ptr) == transport.map(|t| Arc::as_ptr(&t.context));
        same_tls && *self.hostname == *hostname
    }

    /// What is said of the host.
    pub fn metadata(&self) -> Option<Arc<Metadata>> {
        self.metadata.load_full()
    }

    pub(super) fn has_metadata(&self, metadata: Option<&Arc<Metadata>>) -> bool {
        self.metadata.load().as_ref() == metadata
    }

    pub(super) fn set_metadata(&self, metadata: Option<Arc<Metadata>>) {
        self.metadata.store(metadata);
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

    /// What outlier detection counts, allocated now if nobody did before.
    pub fn monitor(&self) -> &Monitor {
        self.monitor.get_or_init(Box::default)
    }

    /// What outlier detection counts, if there was anything to count.
    pub fn monitor_if_used(&self) -> Option<&Monitor> {
        self.monitor.get().map(|m| &**m)
    }

    /// Whether the host is half-open and has a probe left; a hint that costs one read.
    pub(super) fn has_probe(&self) -> bool {
        self.monitor_if_used().is_some_and(|m| m.probes.has_slot())
    }

    pub fn has_flag(&self, flag: HealthFlag) -> bool {
        self.flags.load(Relaxed) & flag as u8 != 0
    }

    /// Sets or clears a flag; true when that changes it.
    pub(super) fn set_flag(&self, flag: HealthFlag, on: bool) -> bool {
        let bit = flag as u8;
        let before = if on { self.flags.fetch_or(bit, Relaxed) } else { self.flags.fetch_and(!bit, Relaxed) };
        let changed = (before & bit != 0) != on;
        if on && changed && matches!(flag, HealthFlag::FailedOutlierCheck | HealthFlag::FailedActiveCheck) {
            self.failures.fetch_add(1, Relaxed);
            self.failed.get().into_iter().for_each(|f| f.notify_waiters());
        }
        changed
    }

    /// Waits until the host is found to be failing, from now on.
    pub fn next_failure(&self) -> impl Future<Output = ()> {
        self.failed.get_or_init(Box::default).notified()
    }

    /// How often the host was found to be failing: each time pools let go of the connections they have to it.
    pub fn failures(&self) -> u32 {
        self.failures.load(Relaxed)
    }

    /// Says whether active health checks are meant for the host. As long as it has not passed one it is unhealthy;
    /// without them what they found means nothing.
    pub(super) fn set_checked(&self, checked: bool) {
        if self.set_flag(HealthFlag::ActivelyChecked, checked) {
            self.set_flag(HealthFlag::FailedActiveCheck, checked);
            self.set_flag(HealthFlag::PendingActiveCheck, checked);
            self.set_flag(HealthFlag::DegradedActiveCheck, false);
            self.set_flag(HealthFlag::ActiveCheckTimeout, false);
        }
    }

    /// The health that load balancing goes by: what the control plane says, and what was seen here.
    pub fn health(&self, configured: Health) -> Health {
        let checked = self.has_flag(HealthFlag::ActivelyChecked);
        let failed =
            self.has_flag(HealthFlag::FailedOutlierCheck) || checked && self.has_flag(HealthFlag::FailedActiveCheck);
        match configured {
            Health::Draining => Health::Draining,
            Health::Unhealthy => Health::Unhealthy,
            _ if failed => Health::Unhealthy,
            _ if checked && self.has_flag(HealthFlag::DegradedActiveCheck) => Health::Degraded,
            configured => configured,
        }
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
    /// Counts a connection in, unless the limits of the cluster or of its single hosts forbid it.
    pub(super) fn new(cluster: &Cluster, endpoint: &Arc<Endpoint>, options: &ConnectOptions) -> Option<Self> {
        let local = cluster.stats.local();
        let breaker = cluster.breaker(options.high_priority);
        let limit = cluster.config.health.as_ref().and_then(|h| h.max_connections_per_host);
        let room = |now: u32| limit.is_none_or(|limit| now < limit).then(|| now + 1);
        let within = endpoint.cx_active.fetch_update(Relaxed, Relaxed, room).is_ok();
        let mut permit = if within { breaker.try_connection() } else { None };
        if permit.is_none() {
            local.upstream_cx_overflow.inc();
            if options.past_limit {
                permit = Some(breaker.connection_past_limit());
            }
        }
        match (&permit, within) {
            (None, true) => drop(endpoint.cx_active.fetch_sub(1, Relaxed)),
            (Some(_), false) => drop(endpoint.cx_active.fetch_add(1, Relaxed)),
            (Some(_), true) | (None, false) => {}
        }
        let permit = permit?;
        endpoint.stats().cx_total.fetch_add(1, Relaxed);
        local.upstream_cx_total.inc();
        local.upstream_cx_active.inc();
        Some(Self { _permit: permit, endpoint: endpoint.clone(), stats: cluster.stats.clone() })
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
    reporter: Option<Reporter>,
}

impl Scope {
    pub fn new(cluster: &Cluster, endpoint: Arc<Endpoint>) -> Rc<Self> {
        let (default, high) = (cluster.breaker(false).clone(), cluster.breaker(true).clone());
        Rc::new(Self { default, high, endpoint, stats: cluster.stats.clone(), reporter: cluster.reporter() })
    }

    fn breaker(&self, high: bool) -> &Breaker {
        if high { &self.high } else { &self.default }
    }

    /// Counts a request that waits for a connection in, unless the circuit breaker is open. Load balancing counts it
    /// as in flight already.
    pub fn try_pending(self: &Rc<Self>, high: bool) -> Option<PendingPermit> {
        let local = self.stats.local();
        let full = self.breaker(high).requests_full();
        let permit = if full { None } else { if high { &self.high } else { &self.default }.try_pending() };
        let Some(permit) = permit else {
            local.upstream_rq_pending_overflow.inc();
            return None;
        };
        local.upstream_rq_pending_total.inc();
        self.endpoint.rq_active.fetch_add(1, Relaxed);
        Some(PendingPermit { scope: self.clone(), _permit: permit })
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

    /// The host's answer came to its end, or was broken off: outlier detection was told of its head only.
    pub fn answered(&self, whole: bool) {
        if let Some(reporter) = &self.scope.reporter {
            reporter.answered(&self.scope.endpoint, whole);
        }
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        self.scope.breaker(self.high).give_request();
        self.scope.endpoint.rq_active.fetch_sub(1, Relaxed);
        self.scope.stats.local().upstream_rq_active.dec();
    }
}

/// A request that waits for a connection, until drop.
#[derive(Debug)]
pub struct PendingPermit {
    scope: Rc<Scope>,
    _permit: Permit,
}

impl Drop for PendingPermit {
    fn drop(&mut self) {
        self.scope.endpoint.rq_active.fetch_sub(1, Relaxed);
    }
}

mod stats;

pub use stats::EndpointStats;
