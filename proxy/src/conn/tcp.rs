//! The `tcp_proxy` filter: pick a cluster and an endpoint, connect, relay until both sides are done.

use std::{
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use futures_util::future::OptionFuture;
use tokio::io::AsyncWriteExt;

use super::early::Early;
use crate::{
    drain,
    ir::{Metadata, Name, listener::Direction},
    l4::{
        idle::Listed,
        relay::{RelayEnd, RelayOptions, RelayReason, Side, relay},
    },
    live::{Live, LiveTcp},
    net::io::Io,
    policy::router::pick_weighted,
    telemetry::{
        flags::Flags,
        mesh::{self, TcpConnection},
        metrics::{ClusterStats, Sharded},
        record::{ConnInfo, ConnectionRecord, PeerInfo},
    },
    upstream::{
        Cluster, Endpoint, PickContext, Picked,
        connect::{ConnectError, ConnectErrorKind, ConnectOptions, Connected, connect},
        lb::hash::of_ip,
        outlier::{Outcome, Probe},
    },
    worker::Worker,
};

/// Where a connection wants to go, as far as picking an endpoint needs to know.
pub(super) struct Destination {
    pub(super) original_dst: Option<SocketAddr>,
    pub(super) remote: SocketAddr,
}

/// A connected upstream.
pub(super) struct Upstream {
    pub(super) cluster: Arc<Cluster>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) connected: Connected,
    pub(super) attempts: u32,
}

/// Why there is no upstream.
pub(super) struct Failure {
    flags: Flags,
    details: &'static str,
    cluster: Option<Name>,
    /// What is noted of the cluster.
    metadata: Option<Arc<Metadata>>,
    reason: Option<String>,
    attempts: u32,
}

/// Picks and connects, at most `max_connect_attempts` times, never twice the same endpoint while there are others.
pub(super) async fn open(worker: &Worker, live: &Live, proxy: &LiveTcp, to: &Destination) -> Result<Upstream, Failure> {
    let failure = |flags, details, cluster: Option<&Arc<Cluster>>| Failure {
        flags,
        details,
        cluster: cluster.map(|c| c.config.name.clone()),
        metadata: cluster.and_then(|c| c.config.metadata.clone()),
        reason: None,
        attempts: 0,
    };
    let Some(target) = pick_weighted(&proxy.config.targets, worker.random()) else {
        return Err(failure(Flags::NO_CLUSTER, "cluster_not_found", None));
    };
    let Some(cluster) = live.cluster(&target.cluster) else {
        proxy.stats.local().downstream_cx_no_route.inc();
        return Err(Failure {
            cluster: Some(target.cluster.clone()),
            ..failure(Flags::NO_CLUSTER, "cluster_not_found", None)
        });
    };
    // The source address is all that a connection can be hashed by.
    let hash =
        proxy.config.hash_policy.first().filter(|_| cluster.config.lb.is_hashed()).map(|_| of_ip(to.remote.ip()));
    let mut tried: Vec<Arc<Endpoint>> = Vec::new();
    let mut last = failure(Flags::NO_HEALTHY_UPSTREAM, "no_healthy_upstream", Some(cluster));
    for attempt in 1..=proxy.config.max_connect_attempts {
        let pick = PickContext {
            original_dst: to.original_dst,
            random: worker.random(),
            exclude: &tried,
            attempts: 3,
            hash,
            criteria: target.criteria.as_deref(),
            tried: None,
        };
        let Ok(Picked { endpoint, probe }) = cluster.pick_for_try(&pick) else { break };
        let options = ConnectOptions { downstream: Some(to.remote), ..ConnectOptions::default() };
        let connected = connect(cluster, &endpoint, &options).await;
        report(cluster, &endpoint, probe, &connected);
        match connected {
            Ok(connected) => {
                return Ok(Upstream { cluster: cluster.clone(), endpoint, connected, attempts: attempt });
            }
            Err(error) => {
                let overflow = error.kind == ConnectErrorKind::Overflow;
                let flags = if overflow { Flags::UPSTREAM_OVERFLOW } else { Flags::UPSTREAM_CONNECTION_FAILURE };
                last = failure(
                    flags,
                    if overflow { "upstream_overflow" } else { "upstream_connect_failure" },
                    Some(cluster),
                );
                last.reason = Some(error.reason);
                last.attempts = attempt;
                if overflow {
                    break;
                }
                if !tried.iter().any(|known| Arc::ptr_eq(known, &endpoint)) {
                    tried.push(endpoint);
                }
            }
        }
    }
    Err(last)
}

/// Tells outlier detection how a connect went.
fn report(
    cluster: &Cluster,
    endpoint: &Arc<Endpoint>,
    probe: Option<Probe>,
    connected: &Result<Connected, ConnectError>,
) {
    let outcome = match connected {
        Ok(_) => Outcome::Connected,
        Err(error) => match error.kind {
            ConnectErrorKind::Overflow => return,
            ConnectErrorKind::Timeout => Outcome::TimedOut,
            ConnectErrorKind::Refused
            | ConnectErrorKind::Unreachable
            | ConnectErrorKind::Tls
            | ConnectErrorKind::Io => Outcome::Failed,
        },
    };
    cluster.report(endpoint, probe, outcome);
}

/// A downstream connection and what serves it.
pub(super) struct Downstream {
    pub(super) worker: Rc<Worker>,
    pub(super) io: Io,
    pub(super) info: Rc<ConnInfo>,
    pub(super) proxy: Arc<LiveTcp>,
    pub(super) early: Option<Early>,
    /// Bound on bytes buffered per direction.
    pub(super) buffer: u32,
    pub(super) signal: drain::Signal,
}

/// Proxies one connection to its end.
pub(super) async fn serve(downstream: Downstream) {
    let Downstream { worker, mut io, info, proxy, early, buffer, mut signal } = downstream;
    let mut session = Session::new(&proxy, &info, &worker);
    let (dialled, first) = match early {
        Some(Early { upstream, first, .. }) => (upstream, first),
        None => {
            let live = worker.engine.live.get();
            let to = Destination { original_dst: info.original_dst, remote: info.remote };
            let dialled = tokio::select! {
                biased;
                dialled = Box::pin(open(&worker, &live, &proxy, &to)) => dialled,
                () = signal.forced() => {
                    session.cut(&signal);
                    io.socket().reset_on_close();
                    return;
                }
            };
            (dialled, Bytes::new())
        }
    };
    drop(worker);
    let Upstream { cluster, endpoint, connected, attempts } = match dialled {
        Ok(upstream) => upstream,
        Err(failure) => {
            session.failed(failure, &info);
            // The application would have seen a refused connection; a reset is the nearest thing left.
            io.socket().reset_on_close();
            return;
        }
    };
    let Connected { io: upstream_io, permit, local, tls, .. } = connected;
    session.connected(&cluster, &endpoint, local, attempts);
    let noted = (&*cluster.config.name, cluster.config.metadata.as_ref());
    session.counted(Some(noted), endpoint.metadata().as_ref(), tls.as_deref());
    let options = RelayOptions {
        idle_timeout: proxy.config.idle_timeout,
        max_duration: proxy.config.max_connection_duration,
        buffer: RELAY_BUFFER.min(buffer as usize).max(LEAST_BUFFER),
    };
    let closes = cluster.config.health.as_ref().is_some_and(|h| h.close_on_failure);
    let failure = closes.then(|| Box::pin(endpoint.next_failure()));
    let progress = session.relay.progress();
    let relayed = async move {
        // What a server said first is passed on before the relay: the client waits for exactly these bytes.
        if !first.is_empty() {
            if let Err(error) = pass_on(&mut io, &first).await {
                upstream_io.reset_on_close();
                return Err(error);
            }
            progress.b_to_a.set(first.len() as u64);
            drop(first);
        }
        // A relay that is dropped before its end resets both sides.
        Ok(relay(io, upstream_io, &options, progress).await)
    };
    let end = {
        let (mut relayed, mut failure) = (pin!(relayed), OptionFuture::from(failure));
        let tick = || proxy.mesh.as_ref().map(|reporting| Box::pin(tokio::time::sleep(reporting.tcp_interval)));
        let mut ticks = tick();
        loop {
            tokio::select! {
                biased;
                // Before the first byte is relayed, and before every other.
                () = signal.forced() => break End::Cut,
                end = &mut relayed => break End::Relayed(end),
                Some(()) = &mut failure => break End::HostFailed,
                Some(()) = OptionFuture::from(ticks.as_mut()) => {
                    session.mesh.iter_mut().for_each(|mesh| mesh.bytes(progress.a_to_b.get(), progress.b_to_a.get()));
                    ticks = tick();
                }
            }
        }
    };
    drop(permit);
    match end {
        End::Cut => session.cut(&signal),
        End::HostFailed => session.host_failed(),
        End::Relayed(Ok(end)) => session.ended(end),
        End::Relayed(Err(_)) => session.record.flags = Flags::DOWNSTREAM_CONNECTION_TERMINATION,
    }
}

/// What ended a connection.
enum End {
    Relayed(std::io::Result<RelayEnd>),
    Cut,
    HostFailed,
}

async fn pass_on(io: &mut Io, first: &[u8]) -> std::io::Result<()> {
    io.write_all(first).await?;
    io.flush().await
}

/// Bytes held per direction while a relay is busy.
const RELAY_BUFFER: usize = 128 << 10;

/// Less would make the relay turn for every packet.
const LEAST_BUFFER: usize = 4 << 10;

/// A cluster's name, and what is noted of it.
type Noted<'a> = (&'a str, Option<&'a Arc<Metadata>>);

/// Counts a proxied connection: its statistics and access log line come with the drop, whatever ends it.
struct Session {
    proxy: Arc<LiveTcp>,
    record: ConnectionRecord,
    relay: Listed,
    upstream: Option<Active>,
    /// In Istio's metrics.
    mesh: Option<TcpConnection>,
}

impl Session {
    fn new(proxy: &Arc<LiveTcp>, info: &Rc<ConnInfo>, worker: &Worker) -> Self {
        let stats = proxy.stats.local();
        stats.downstream_cx_total.inc();
        stats.downstream_cx_active.inc();
        let record = ConnectionRecord::new(info.clone(), proxy.logs.clone());
        let relay = worker.relays.list(record.info().started_at);
        Self { proxy: proxy.clone(), record, relay, upstream: None, mesh: None }
    }

    fn failed(&mut self, failure: Failure, info: &ConnInfo) {
        tracing::debug!(peer = %info.remote, destination = %info.local, cluster = ?failure.cluster,
            details = failure.details, reason = ?failure.reason, "no upstream connection");
        self.record.flags = failure.flags;
        self.counted(failure.cluster.as_deref().map(|name| (name, failure.metadata.as_ref())), None, None);
        self.record.details = Some(failure.details.into());
        self.record.upstream.cluster = failure.cluster;
        self.record.upstream.attempts = failure.attempts;
        self.record.upstream.transport_failure = failure.reason.map(Into::into);
    }

    fn connected(&mut self, cluster: &Cluster, endpoint: &Arc<Endpoint>, local: Option<SocketAddr>, attempts: u32) {
        let upstream = &mut self.record.upstream;
        upstream.cluster = Some(cluster.config.name.clone());
        upstream.host = Some(endpoint.label.clone());
        upstream.local = local;
        upstream.attempts = attempts;
        self.upstream = Some(Active::new(cluster, endpoint));
    }

    /// Counts the connection in Istio's metrics, now that it is known where it goes, or that it goes nowhere.
    fn counted(&mut self, cluster: Option<Noted<'_>>, endpoint: Option<&Arc<Metadata>>, tls: Option<&PeerInfo>) {
        let Some(reporting) = &self.proxy.mesh else { return };
        let info = self.record.info();
        let inbound = info.direction == Direction::Inbound;
        let principals = mesh::principals(if inbound { info.tls.as_deref() } else { tls });
        let pair = mesh::pair(&reporting.mesh, &mesh::Flow { inbound, cluster, endpoint, principals });
        self.mesh = Some(pair.connection(self.record.flags));
    }

    fn cut(&mut self, signal: &drain::Signal) {
        if let Some(refusal) = signal.refusal() {
            self.record.termination = Some(refusal.as_ref().into());
            return;
        }
        self.record.flags = Flags::LOCAL_RESET;
        self.record.details = Some("drained".into());
    }

    fn host_failed(&mut self) {
        self.record.flags = Flags::UPSTREAM_CONNECTION_TERMINATION;
        self.record.details = Some("host_health_failure".into());
    }

    fn ended(&mut self, end: RelayEnd) {
        let stats = self.proxy.stats.local();
        if end.spliced {
            stats.downstream_cx_spliced.inc();
        }
        let record = &mut self.record;
        match end.reason {
            RelayReason::Closed => {}
            RelayReason::IdleTimeout => {
                stats.idle_timeout.inc();
                record.flags = Flags::STREAM_IDLE_TIMEOUT;
                record.details = Some("idle_timeout".into());
            }
            RelayReason::Told => {
                stats.downstream_cx_overload_close.inc();
                record.flags = Flags::OVERLOAD;
                record.details = Some("overload_idle".into());
            }
            RelayReason::MaxDuration => {
                stats.max_downstream_connection_duration.inc();
                record.flags = Flags::DURATION_TIMEOUT;
                record.details = Some("max_connection_duration".into());
            }
            RelayReason::Error { side: Side::A, .. } => record.flags = Flags::DOWNSTREAM_CONNECTION_TERMINATION,
            RelayReason::Error { side: Side::B, error } => {
                record.flags = Flags::UPSTREAM_CONNECTION_TERMINATION;
                record.upstream.transport_failure = Some(error.to_string().into());
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let (received, sent) = (self.relay.progress().a_to_b.get(), self.relay.progress().b_to_a.get());
        self.record.bytes_received = received;
        self.record.bytes_sent = sent;
        if let Some(mesh) = &mut self.mesh {
            mesh.bytes(received, sent);
        }
        let stats = self.proxy.stats.local();
        stats.downstream_cx_active.dec();
        stats.downstream_cx_rx_bytes_total.add(received);
        stats.downstream_cx_tx_bytes_total.add(sent);
        if let Some(upstream) = &self.upstream {
            let stats = upstream.stats.local();
            stats.upstream_cx_tx_bytes_total.add(received);
            stats.upstream_cx_rx_bytes_total.add(sent);
        }
    }
}

/// A connection in the eyes of the load balancer: as one request in flight, as in Envoy.
struct Active {
    endpoint: Arc<Endpoint>,
    stats: Arc<Sharded<ClusterStats>>,
}

impl Active {
    fn new(cluster: &Cluster, endpoint: &Arc<Endpoint>) -> Self {
        endpoint.rq_active.fetch_add(1, Ordering::Relaxed);
        endpoint.stats().rq_total.fetch_add(1, Ordering::Relaxed);
        Self { endpoint: endpoint.clone(), stats: cluster.stats.clone() }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.endpoint.rq_active.fetch_sub(1, Ordering::Relaxed);
    }
}
