//! A connection whose filter chain is not known yet: inspection, choice of the chain, TLS, and how it is refused.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::net::TcpStream;

use super::{
    early::{self, Early},
    filters::{self, Refusal},
    refusals,
};
use crate::{
    drain,
    ir::listener::{Inspector, Transport},
    live::{LiveChain, LiveListener, LiveTcp, LiveTerminal},
    net::{
        inspect::{InspectError, InspectPlan, Inspected, inspect},
        io::{Io, Plain},
    },
    policy::{
        chain::{ChainFacts, lack},
        dry_run::Seen,
    },
    telemetry::{
        flags::Flags,
        metrics::{ListenerStats, Sharded},
        record::{ConnInfo, ConnectionRecord, PeerInfo},
    },
    worker::Worker,
};

/// Largest first message looked at: a ClientHello of 16 KiB records with post-quantum shares fits several times.
const MAX_INSPECTED: usize = 64 << 10;

/// Upper bound on inspection where the configuration says "wait for ever" (an HTTP client may connect long before its
/// first request): after it, a silent connection is taken for TCP where the listener allows that.
const INSPECTION_BOUND: Duration = Duration::from_secs(3600);

pub(super) struct Accepted {
    id: u64,
    remote: SocketAddr,
    local: SocketAddr,
    original_dst: Option<SocketAddr>,
    started: SystemTime,
    started_at: Instant,
    /// The upstream connection made while waiting for a first byte of either side.
    pub(super) early: Option<Early>,
}

impl Accepted {
    pub(super) fn new(id: u64, remote: SocketAddr, local: SocketAddr, original_dst: Option<SocketAddr>) -> Self {
        let (started, started_at) = (SystemTime::now(), Instant::now());
        Self { id, remote, local, original_dst, started, started_at, early: None }
    }

    /// Lets the first bytes of either side say what the connection is. `None`: it ended or was refused, and is logged.
    pub(super) async fn inspect(
        &mut self,
        worker: &Rc<Worker>,
        listener: &Arc<LiveListener>,
        stream: TcpStream,
    ) -> Option<Inspected> {
        let config = &listener.config;
        let port = self.local.port();
        let enabled = |inspector: &Option<Inspector>| inspector.as_ref().is_some_and(|i| i.enabled_for(port));
        let (tls, http) = (enabled(&config.inspectors.tls), enabled(&config.inspectors.http));
        let timeout = config.inspection_timeout.unwrap_or(INSPECTION_BOUND).min(INSPECTION_BOUND);
        let plan = InspectPlan { tls, http, timeout: Some(timeout), max_bytes: MAX_INSPECTED };
        let result = if tls || http {
            let _inspecting = Inspecting::new(&listener.stats);
            let proxy = self.silent_proxy(listener);
            let silence = early::silence(listener);
            let to = (self.original_dst, self.remote);
            let dial = early::Dial { worker, proxy, silence, to };
            let early = &mut self.early;
            inspect(stream, &plan, move || dial.server_speaks(early)).await
        } else {
            inspect(stream, &plan, std::future::pending).await
        };
        let stats = listener.stats.local();
        match result {
            Ok(inspected) => {
                if inspected.timed_out {
                    stats.downstream_pre_cx_timeout.inc();
                    if !config.continue_on_inspection_timeout {
                        self.refuse(listener, &inspected, Flags::default(), "listener_filter_timeout");
                        return None;
                    }
                }
                Some(inspected)
            }
            Err(error) => {
                stats.downstream_listener_filter_error.inc();
                let details = match error {
                    InspectError::Io(_) => "listener_filter_read_error",
                    InspectError::TooLarge(_) => "listener_filter_too_large",
                };
                self.log_refusal(listener, None, Flags::default(), details);
                None
            }
        }
    }

    /// The TCP proxy that a client which says nothing gets. `None` where that chain is HTTP, and where it asks for TLS:
    /// nobody who did not prove who they are causes a connection to the application.
    pub(super) fn silent_proxy(&self, listener: &LiveListener) -> Option<Arc<LiveTcp>> {
        let chain = self.choose(listener, &Silent)?;
        match &chain.terminal {
            LiveTerminal::Tcp(proxy) if chain.tls.is_none() && self.may_pass(listener, &chain) => Some(proxy.clone()),
            LiveTerminal::Tcp(_) | LiveTerminal::Http(_) => None,
        }
    }

    /// Whether the network filters would let a silent client pass, as far as that is known before they run.
    fn may_pass(&self, listener: &LiveListener, chain: &LiveChain) -> bool {
        chain.network.filters.is_empty()
            || filters::would_pass(&chain.network, &self.info(listener, Some(chain), None, None))
    }

    pub(super) fn choose(&self, listener: &LiveListener, inspected: &impl FirstBytes) -> Option<Arc<LiveChain>> {
        listener.choose(&self.facts(inspected)).cloned()
    }

    fn facts<'a>(&self, inspected: &'a impl FirstBytes) -> ChainFacts<'a> {
        ChainFacts {
            destination: self.local,
            server_name: inspected.server_name(),
            transport: inspected.transport(),
            alpn: inspected.alpn(),
            direct_source: self.remote.ip(),
            source: self.remote,
        }
    }

    /// Terminates TLS where the chain asks for it. `None`: the handshake failed, and that is counted and logged.
    pub(super) async fn secure(
        &self,
        listener: &Arc<LiveListener>,
        chain: &Arc<LiveChain>,
        plain: Plain,
        server_name: &Option<Box<str>>,
    ) -> Option<(Io, Option<Arc<PeerInfo>>)> {
        let Some(context) = &chain.tls else { return Some((plain.into(), None)) };
        let stats = listener.stats.local();
        match context.accept(plain, chain.config.handshake_timeout).await {
            Ok((io, peer)) => {
                stats.ssl_handshake.inc();
                if peer.resumed {
                    stats.ssl_session_reused.inc();
                }
                Some((io, Some(peer)))
            }
            Err(error) => {
                refusals::handshake(stats, &error);
                tracing::debug!(listener = %listener.config.name, peer = %self.remote, chain = %chain.config.name,
                    cause = ?error.cause, reason = %error.reason, "TLS handshake failed");
                let info = self.info(listener, Some(chain), server_name.clone(), None);
                let mut record = ConnectionRecord::new(Rc::new(info), listener.logs.clone());
                record.transport_failure = Some(error.reason.into());
                record.details = Some("downstream_transport_failure".into());
                None
            }
        }
    }

    pub(super) fn info(
        &self,
        listener: &LiveListener,
        chain: Option<&LiveChain>,
        server_name: Option<Box<str>>,
        tls: Option<Arc<PeerInfo>>,
    ) -> ConnInfo {
        ConnInfo {
            id: self.id,
            remote: self.remote,
            local: self.local,
            original_dst: self.original_dst,
            direction: listener.config.direction,
            listener: listener.config.name.clone(),
            chain: chain.map(|c| c.config.name.clone()).unwrap_or_else(|| "".into()),
            server_name: server_name.or_else(|| tls.as_ref().and_then(|peer| peer.sni.clone())),
            tls,
            started: self.started,
            started_at: self.started_at,
            buffer_limit: listener.config.buffer_limit,
            metadata: Default::default(),
        }
    }

    /// Ends a connection that a network filter does not want: in order, so that the peer sees an end and no reset.
    pub(super) async fn turn_away(
        &self,
        listener: &LiveListener,
        chain: &LiveChain,
        mut io: Io,
        info: Rc<ConnInfo>,
        refusal: Refusal,
        mut signal: drain::Signal,
    ) {
        tracing::debug!(listener = %listener.config.name, peer = %self.remote, destination = %self.local,
            chain = %chain.config.name, details = %refusal.details, "connection refused by a network filter");
        let logs = match &chain.terminal {
            LiveTerminal::Tcp(proxy) => proxy.logs.clone(),
            LiveTerminal::Http(_) => Arc::default(),
        };
        let _records = [(logs, false), (listener.logs.clone(), true)].map(|(logs, second)| {
            let mut record = ConnectionRecord::new(info.clone(), logs);
            record.second = second;
            record.flags = refusal.flags;
            record.termination = Some(refusal.details.as_ref().into());
            record
        });
        tokio::select! {
            () = refusal.end(&mut io) => {}
            () = signal.forced() => {}
        }
    }

    /// Counts and names a peer that is served only because STRICT is on trial.
    pub(super) fn try_strict(&self, listener: &LiveListener, chain: &LiveChain) {
        let Some(trial) = &chain.strict_trial else { return };
        listener.stats.local().strict_mtls_would_deny.inc();
        let more = match trial.saw(self.remote.ip()) {
            Seen::Before => return,
            Seen::First => "",
            Seen::Last => "; further peers are counted, not named",
        };
        tracing::warn!(listener = %listener.config.name, chain = %chain.config.name, peer = %self.remote.ip(),
            destination = %self.local, "STRICT mutual TLS would refuse this peer{more}");
    }

    /// Turns away a connection that no chain takes.
    pub(super) fn unmatched(&self, listener: &LiveListener, inspected: &Inspected) {
        refusals::unmatched(&listener.stats, lack(&listener.config.chains, &self.facts(inspected)));
        self.refuse(listener, inspected, Flags::NO_ROUTE, "filter_chain_not_found");
    }

    pub(super) fn refuse(&self, listener: &LiveListener, inspected: &Inspected, flags: Flags, details: &'static str) {
        tracing::debug!(listener = %listener.config.name, peer = %self.remote, destination = %self.local,
            transport = ?inspected.transport, sni = ?inspected.server_name, alpn = ?inspected.alpn, details,
            "connection refused");
        self.log_refusal(listener, inspected.server_name.clone(), flags, details);
    }

    fn log_refusal(&self, listener: &LiveListener, server_name: Option<Box<str>>, flags: Flags, details: &'static str) {
        let info = Rc::new(self.info(listener, None, server_name, None));
        let mut record = ConnectionRecord::new(info, listener.logs.clone());
        record.flags = flags;
        record.details = Some(details.into());
    }
}

/// Counts a connection under inspection.
struct Inspecting<'a>(&'a Sharded<ListenerStats>);

impl<'a> Inspecting<'a> {
    fn new(stats: &'a Sharded<ListenerStats>) -> Self {
        stats.local().downstream_pre_cx_active.inc();
        Self(stats)
    }
}

impl Drop for Inspecting<'_> {
    fn drop(&mut self) {
        self.0.local().downstream_pre_cx_active.dec();
    }
}

/// What chain selection looks at, whether bytes were seen or not.
pub(super) trait FirstBytes {
    fn server_name(&self) -> Option<&str>;
    fn transport(&self) -> Transport;
    fn alpn(&self) -> &[Box<str>];
}

impl FirstBytes for Inspected {
    fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }
    fn transport(&self) -> Transport {
        self.transport
    }
    fn alpn(&self) -> &[Box<str>] {
        &self.alpn
    }
}

/// A client that says nothing: plaintext, no protocol.
struct Silent;

impl FirstBytes for Silent {
    fn server_name(&self) -> Option<&str> {
        None
    }
    fn transport(&self) -> Transport {
        Transport::RawBuffer
    }
    fn alpn(&self) -> &[Box<str>] {
        &[]
    }
}
