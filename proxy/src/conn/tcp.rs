//! The `tcp_proxy` filter: pick a cluster and an endpoint, connect, relay until both sides are done.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use tokio::io::AsyncWriteExt;

use super::early::Early;
use crate::{
    drain,
    ir::Name,
    l4::relay::{Progress, RelayOptions, RelayReason, Side, relay},
    live::{Live, LiveTcp},
    net::io::Io,
    policy::router::pick_weighted,
    telemetry::{
        flags::Flags,
        record::{ConnInfo, ConnectionRecord},
    },
    upstream::{
        Cluster, Endpoint, PickContext,
        connect::{ConnectErrorKind, ConnectOptions, Connected, connect},
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
    reason: Option<String>,
    attempts: u32,
}

/// Picks and connects, at most `max_connect_attempts` times, never twice the same endpoint while there are others.
pub(super) async fn open(worker: &Worker, live: &Live, proxy: &LiveTcp, to: &Destination) -> Result<Upstream, Failure> {
    let failure = |flags, details, cluster: Option<&Arc<Cluster>>| Failure {
        flags,
        details,
        cluster: cluster.map(|c| c.config.name.clone()),
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
    let mut tried: Vec<Arc<Endpoint>> = Vec::new();
    let mut last = failure(Flags::NO_HEALTHY_UPSTREAM, "no_healthy_upstream", Some(cluster));
    for attempt in 1..=proxy.config.max_connect_attempts {
        let pick = PickContext {
            original_dst: to.original_dst,
            random: worker.random(),
            exclude: &tried,
            attempts: 3,
            hash: None,
        };
        let Ok(endpoint) = cluster.pick(&pick) else { break };
        let options = ConnectOptions { downstream: Some(to.remote), ..ConnectOptions::default() };
        match connect(cluster, &endpoint, &options).await {
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
                tried.push(endpoint);
            }
        }
    }
    Err(last)
}

/// Proxies one connection to its end.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    mut io: Io,
    info: Arc<ConnInfo>,
    proxy: Arc<LiveTcp>,
    early: Option<Early>,
    mut signal: drain::Signal,
) {
    let mut record = ConnectionRecord::new(info.clone(), proxy.logs.clone());
    let _active = Active::new(&proxy);
    let (upstream, first) = match early {
        Some(Early { upstream, first, .. }) => (upstream, first),
        None => {
            let live = worker.engine.live.get();
            let to = Destination { original_dst: info.original_dst, remote: info.remote };
            let dialled = tokio::select! {
                biased;
                dialled = open(worker, &live, &proxy, &to) => dialled,
                () = signal.forced() => return,
            };
            match dialled {
                Ok(upstream) => (upstream, bytes::Bytes::new()),
                Err(failure) => {
                    tracing::debug!(peer = %info.remote, destination = %info.local, cluster = ?failure.cluster,
                        details = failure.details, reason = ?failure.reason, "no upstream connection");
                    record.flags = failure.flags;
                    record.details = Some(failure.details.into());
                    record.upstream.cluster = failure.cluster;
                    record.upstream.attempts = failure.attempts;
                    record.upstream.transport_failure = failure.reason.map(Into::into);
                    // The application would have seen a refused connection; a reset is the nearest thing left.
                    io.socket().reset_on_close();
                    return;
                }
            }
        }
    };
    record.upstream.cluster = Some(upstream.cluster.config.name.clone());
    record.upstream.host = Some(upstream.endpoint.label.clone());
    record.upstream.local = upstream.connected.local;
    record.upstream.attempts = upstream.attempts;

    // What a server said first is passed on before the relay: the client waits for exactly these bytes.
    if !first.is_empty() && (io.write_all(&first).await.is_err() || io.flush().await.is_err()) {
        record.flags = Flags::DOWNSTREAM_CONNECTION_TERMINATION;
        return;
    }
    let progress = Progress::default();
    let options = RelayOptions {
        idle_timeout: proxy.config.idle_timeout,
        max_duration: proxy.config.max_connection_duration,
        buffer: RELAY_BUFFER,
    };
    let Connected { io: upstream_io, permit, .. } = upstream.connected;
    let end = tokio::select! {
        biased;
        end = relay(io, upstream_io, &options, &progress) => Some(end),
        () = signal.forced() => None,
    };
    drop(permit);

    let received = progress.a_to_b.get();
    let sent = progress.b_to_a.get() + first.len() as u64;
    record.bytes_received = received;
    record.bytes_sent = sent;
    let stats = proxy.stats.local();
    stats.downstream_cx_rx_bytes_total.add(received);
    stats.downstream_cx_tx_bytes_total.add(sent);
    let cluster_stats = upstream.cluster.stats.local();
    cluster_stats.upstream_cx_tx_bytes_total.add(received);
    cluster_stats.upstream_cx_rx_bytes_total.add(sent);
    let Some(end) = end else {
        record.flags = Flags::LOCAL_RESET;
        record.details = Some("drained".into());
        return;
    };
    if end.spliced {
        stats.downstream_cx_spliced.inc();
    }
    match end.reason {
        RelayReason::Closed => {}
        RelayReason::IdleTimeout => {
            stats.idle_timeout.inc();
            record.flags = Flags::STREAM_IDLE_TIMEOUT;
            record.details = Some("idle_timeout".into());
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

/// Bytes held per direction while a relay is busy.
const RELAY_BUFFER: usize = 64 << 10;

/// Counts an active proxied connection.
struct Active(Arc<LiveTcp>);

impl Active {
    fn new(proxy: &Arc<LiveTcp>) -> Self {
        let stats = proxy.stats.local();
        stats.downstream_cx_total.inc();
        stats.downstream_cx_active.inc();
        Self(proxy.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.stats.local().downstream_cx_active.dec();
    }
}
