//! One accepted connection, from the socket to the filter that consumes it.
//!
//! The phases stand in order in [`serve`]: original destination, listener hand-off, connection limit, inspection of the
//! first bytes, filter chain, TLS, terminal filter. Every exit before the terminal filter is counted on the listener and
//! written to its access log. Knows nothing of routing or HTTP.

mod early;
mod tcp;

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use tokio::net::TcpStream;

use crate::{
    drain,
    ir::{
        Name,
        listener::{Direction, Inspector, Transport},
    },
    l7,
    live::{Live, LiveChain, LiveListener, LiveTerminal},
    net::{
        inspect::{InspectError, InspectPlan, Inspected, inspect},
        io::{Io, Plain},
        socket,
    },
    policy::chain::ChainFacts,
    telemetry::{
        flags::Flags,
        record::{ConnInfo, ConnectionRecord, PeerInfo},
    },
    tls::HandshakeErrorKind,
    worker::Worker,
};

/// Largest first message looked at: a ClientHello of 16 KiB records with post-quantum shares fits several times.
const MAX_INSPECTED: usize = 64 << 10;

/// Upper bound on inspection where the configuration says "wait for ever": after it, a silent connection is taken for
/// TCP where the listener allows that, as if both sides simply had nothing to say yet.
const INSPECTION_BOUND: Duration = Duration::from_secs(60);

/// Serves one accepted connection of the listener `name` to its end.
pub async fn serve(worker: Rc<Worker>, stream: TcpStream, name: Name) {
    let live = worker.engine.live.get();
    // The listener was removed between accept and here: dropping the socket is what closing it would have done.
    let Some(bound) = live.listener(&name).cloned() else { return };
    let Ok((remote, here)) = addresses(&stream) else { return };
    let _ = stream.set_nodelay(true);

    let restores = bound.config.use_original_dst || bound.config.inspectors.original_dst;
    let original_dst = restores.then(|| socket::original_dst(&stream).ok()).flatten().filter(|dst| *dst != here);
    let listener = match original_dst {
        Some(dst) if bound.config.use_original_dst => live.hand_off(dst).cloned().unwrap_or(bound),
        _ => bound,
    };
    let Some(_open) = Open::new(&listener) else {
        listener.stats.local().downstream_cx_overflow.inc();
        return;
    };

    let mut accepted = Accepted {
        id: worker.next_connection_id(),
        remote,
        local: original_dst.unwrap_or(here),
        original_dst,
        started: SystemTime::now(),
        started_at: Instant::now(),
        early: None,
    };
    let Some(inspected) = accepted.inspect(&worker, &live, &listener, stream).await else { return };
    let Some(chain) = accepted.choose(&listener, &inspected) else {
        listener.stats.local().no_filter_chain_match.inc();
        accepted.refuse(&listener, &inspected, Flags::NO_ROUTE, "filter_chain_not_found");
        return;
    };
    // The snapshot is not held over the connection's life: it would keep every old configuration alive.
    drop(live);

    let Inspected { plain, server_name, .. } = inspected;
    let (io, tls) = match accepted.secure(&listener, &chain, plain, &server_name).await {
        Some(secured) => secured,
        None => return,
    };
    let info = accepted.info(&listener, Some(&chain), server_name, tls);
    let signal = drain::Signal::new(worker.drains().of(listener.config.direction), &chain.drain);
    match &chain.terminal {
        LiveTerminal::Tcp(proxy) => {
            let early = accepted.early.take().filter(|early| Arc::ptr_eq(&early.proxy, proxy));
            tcp::serve(&worker, io, Arc::new(info), proxy.clone(), early, signal).await;
        }
        LiveTerminal::Http(hcm) => {
            // A connection dialled while waiting for the first byte is of no use to HTTP.
            drop(accepted.early.take());
            l7::server::serve(io, Rc::new(info), hcm.clone(), worker.engine.clone(), signal).await;
        }
    }
}

fn addresses(stream: &TcpStream) -> std::io::Result<(SocketAddr, SocketAddr)> {
    Ok((socket::canonical(stream.peer_addr()?), socket::canonical(stream.local_addr()?)))
}

/// Counts an open connection of a listener for as long as it lives.
struct Open(Arc<LiveListener>);

impl Open {
    /// `None` when the listener's connection limit is reached.
    fn new(listener: &Arc<LiveListener>) -> Option<Self> {
        let before = listener.open.fetch_add(1, Ordering::Relaxed);
        if listener.config.connection_limit.is_some_and(|limit| before >= limit) {
            listener.open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let stats = listener.stats.local();
        stats.downstream_cx_total.inc();
        stats.downstream_cx_active.inc();
        Some(Self(listener.clone()))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        let stats = self.0.stats.local();
        stats.downstream_cx_active.dec();
        stats.downstream_cx_destroy.inc();
    }
}

/// A connection whose filter chain is not known yet.
struct Accepted {
    id: u64,
    remote: SocketAddr,
    local: SocketAddr,
    original_dst: Option<SocketAddr>,
    started: SystemTime,
    started_at: Instant,
    /// The upstream connection made while waiting for a first byte of either side.
    early: Option<early::Early>,
}

impl Accepted {
    /// Lets the first bytes of either side say what the connection is. `None`: it ended or was refused, and is logged.
    async fn inspect(
        &mut self,
        worker: &Rc<Worker>,
        live: &Live,
        listener: &Arc<LiveListener>,
        stream: TcpStream,
    ) -> Option<Inspected> {
        let config = &listener.config;
        let port = self.local.port();
        let enabled = |inspector: &Option<Inspector>| inspector.as_ref().is_some_and(|i| i.enabled_for(port));
        let (tls, http) = (enabled(&config.inspectors.tls), enabled(&config.inspectors.http));
        let timeout = config.inspection_timeout.unwrap_or(INSPECTION_BOUND).min(INSPECTION_BOUND);
        let plan = InspectPlan { tls, http, timeout: Some(timeout), max_bytes: MAX_INSPECTED };
        if !tls && !http {
            return inspect(stream, &plan, std::future::pending()).await.ok();
        }
        let stats = listener.stats.local();
        stats.downstream_pre_cx_active.inc();
        let candidate = self.choose(listener, &Silent).and_then(|chain| match &chain.terminal {
            LiveTerminal::Tcp(proxy) => Some(proxy.clone()),
            LiveTerminal::Http(_) => None,
        });
        let dial = early::Dial { worker, live, proxy: candidate, original_dst: self.original_dst, remote: self.remote };
        let result = inspect(stream, &plan, dial.server_speaks(&mut self.early)).await;
        stats.downstream_pre_cx_active.dec();
        match result {
            Ok(inspected) if inspected.timed_out && !config.continue_on_inspection_timeout => {
                stats.downstream_pre_cx_timeout.inc();
                self.refuse(listener, &inspected, Flags::default(), "listener_filter_timeout");
                None
            }
            Ok(inspected) => {
                if inspected.timed_out {
                    stats.downstream_pre_cx_timeout.inc();
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

    fn choose(&self, listener: &LiveListener, inspected: &impl FirstBytes) -> Option<Arc<LiveChain>> {
        let facts = ChainFacts {
            destination: self.local,
            server_name: inspected.server_name(),
            transport: inspected.transport(),
            alpn: inspected.alpn(),
            direct_source: self.remote.ip(),
            source: self.remote,
        };
        let chosen = listener.index.select(&facts).map(|index| &listener.chains[index]);
        chosen.or(listener.default_chain.as_ref()).cloned()
    }

    /// Terminates TLS where the chain asks for it. `None`: the handshake failed, and that is counted and logged.
    async fn secure(
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
                stats.ssl_connection_error.inc();
                match error.kind {
                    HandshakeErrorKind::NoClientCert => stats.ssl_fail_verify_no_cert.inc(),
                    HandshakeErrorKind::VerifyFailed => stats.ssl_fail_verify_error.inc(),
                    HandshakeErrorKind::SanMismatch => stats.ssl_fail_verify_san.inc(),
                    HandshakeErrorKind::Timeout => stats.ssl_handshake_timeout.inc(),
                    HandshakeErrorKind::Protocol | HandshakeErrorKind::Io | HandshakeErrorKind::NotReady => {}
                }
                tracing::debug!(listener = %listener.config.name, peer = %self.remote, chain = %chain.config.name,
                    kind = error.kind.as_str(), reason = %error.reason, "TLS handshake failed");
                let info = self.info(listener, Some(chain), server_name.clone(), None);
                let mut record = ConnectionRecord::new(Arc::new(info), listener.logs.clone());
                record.transport_failure = Some(error.reason.into());
                record.details = Some("downstream_transport_failure".into());
                None
            }
        }
    }

    fn info(
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
        }
    }

    fn refuse(&self, listener: &LiveListener, inspected: &Inspected, flags: Flags, details: &'static str) {
        tracing::debug!(listener = %listener.config.name, peer = %self.remote, destination = %self.local,
            transport = ?inspected.transport, sni = ?inspected.server_name, alpn = ?inspected.alpn, details,
            "connection refused");
        self.log_refusal(listener, inspected.server_name.clone(), flags, details);
    }

    fn log_refusal(&self, listener: &LiveListener, server_name: Option<Box<str>>, flags: Flags, details: &'static str) {
        let mut record =
            ConnectionRecord::new(Arc::new(self.info(listener, None, server_name, None)), listener.logs.clone());
        record.flags = flags;
        record.details = Some(details.into());
    }
}

/// What chain selection looks at, whether bytes were seen or not.
trait FirstBytes {
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

/// The process's own reasons to end connections, per direction: inbound drains first, outbound stays up for the
/// application's last calls.
#[derive(Debug, Default)]
pub struct Drains {
    pub inbound: drain::Source,
    pub outbound: drain::Source,
}

impl Drains {
    pub fn of(&self, direction: Direction) -> &drain::Source {
        match direction {
            Direction::Outbound => &self.outbound,
            Direction::Inbound | Direction::Unspecified => &self.inbound,
        }
    }
}
