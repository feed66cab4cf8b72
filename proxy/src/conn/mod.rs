//! One accepted connection, from the socket to the filter that consumes it.
//!
//! The phases stand in order in [`prepare`]: original destination, listener hand-off, connection limit, inspection of
//! the first bytes, filter chain, TLS, network filters; then the terminal filter runs. Every exit before that is counted
//! on the listener and, once the connection limit let it in, written to its access log. Knows nothing of routing or HTTP.
//! Invariant: a running connection holds its filter, not the listener, chain or snapshot it came through.

mod accepted;
mod early;
pub mod explain;
mod filters;
mod limits;
mod rbac;
mod refusals;
mod review;
mod standing;
mod tcp;
#[cfg(test)]
mod tests;

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::net::TcpStream;

use self::{accepted::Accepted, early::Early, review::Reviewed};
use crate::{
    drain,
    ir::listener::Direction,
    l7,
    live::{Claim, LiveChain, LiveListener, LiveNetwork, LiveTerminal},
    net::{inspect::Inspected, io::Io, socket},
    telemetry::{
        metrics::{ListenerStats, Sharded},
        record::ConnInfo,
    },
    worker::{Shared, Worker},
};

/// Serves one connection accepted for `claim` to its end.
///
/// Every phase is boxed: a connection that lives for hours must not occupy what its handshake needed.
pub async fn serve(worker: Rc<Worker>, accepted: (TcpStream, SocketAddr), claim: Rc<Claim>) {
    let Some((filter, open)) = Box::pin(admit(worker, accepted, claim)).await else { return };
    filter.await;
    drop(open);
}

/// A running terminal filter.
type Filter = Pin<Box<dyn Future<Output = ()>>>;

async fn admit(worker: Rc<Worker>, accepted: (TcpStream, SocketAddr), claim: Rc<Claim>) -> Option<(Filter, Open)> {
    let Ready { io, info, terminal, early, buffer, signal, open } = prepare(&worker, accepted, &claim).await?;
    let filter: Filter = match terminal {
        LiveTerminal::Tcp(proxy) => {
            let early = early.filter(|early| Arc::ptr_eq(&early.proxy, &proxy));
            Box::pin(tcp::serve(tcp::Downstream { worker, io, info, proxy, early, buffer, signal }))
        }
        LiveTerminal::Http(hcm) => {
            // A connection dialled while waiting for the first byte is of no use to HTTP.
            drop(early);
            Box::pin(l7::server::serve(io, info, hcm, worker.engine.clone(), signal))
        }
    };
    Some((filter, open))
}

/// A connection whose terminal filter can run.
struct Ready {
    io: Io,
    info: Rc<ConnInfo>,
    terminal: LiveTerminal,
    early: Option<Early>,
    /// Bound on bytes buffered per direction.
    buffer: u32,
    signal: drain::Signal,
    open: Open,
}

async fn prepare(worker: &Rc<Worker>, accepted: (TcpStream, SocketAddr), claim: &Claim) -> Option<Ready> {
    let (stream, remote) = accepted;
    let live = worker.engine.live.get();
    // The listener was removed between accept and here: dropping the socket is what closing it would have done.
    let bound = live.bound(claim).cloned()?;
    let here = socket::canonical(stream.local_addr().ok()?);
    if let Some(keepalive) = &bound.config.keepalive {
        let _ = socket::set_keepalive(&stream, keepalive);
    }

    let restores = bound.config.use_original_dst || bound.config.inspectors.original_dst;
    let original_dst = restores.then(|| socket::original_dst(&stream, here).ok()).flatten().filter(|dst| *dst != here);
    // Redirected to us, yet meant for a capture port of this very host: to serve it is to call ourselves.
    if original_dst.is_some_and(|dst| dst.ip() == here.ip() && live.captures(dst.port())) {
        bound.stats.local().downstream_cx_loop.inc();
        tracing::debug!(listener = %bound.config.name, %remote, ?original_dst, "connection to our own capture port refused");
        return None;
    }
    let listener = match original_dst {
        Some(dst) if bound.config.use_original_dst => live.hand_off(dst).cloned().unwrap_or(bound),
        _ => bound,
    };
    let Some(open) = Open::new(&listener, worker.shared()) else {
        listener.stats.local().downstream_cx_overflow.inc();
        tracing::debug!(listener = %listener.config.name, %remote, "connection refused: the listener's limit is reached");
        return None;
    };

    let mut accepted = Accepted::new(worker.next_connection_id(), remote, original_dst.unwrap_or(here), original_dst);
    // Let go before the peer can draw anything out: a silent one may be waited for very long.
    let version = live.version;
    drop(live);
    let inspected = accepted.inspect(worker, &listener, stream).await?;
    let Some(chain) = accepted.choose(&listener, &inspected) else {
        accepted.unmatched(&listener, &inspected);
        return None;
    };

    accepted.try_strict(&listener, &chain);
    let Inspected { plain, server_name, transport, alpn, .. } = inspected;
    let (io, tls) = accepted.secure(&listener, &chain, plain, &server_name).await?;
    let info = Rc::new(accepted.info(&listener, Some(&chain), server_name.clone(), tls.clone()));
    // The connection listens before it asks: a change in between is heard.
    let signal = drain::Signal::new(worker.shared().drains.of(listener.config.direction), &chain.drain);
    let reviewed = match listener.config.direction {
        // Whom the workload itself may call is decided by whom it calls.
        Direction::Outbound => None,
        Direction::Inbound | Direction::Unspecified => Some(Reviewed::new(
            worker.engine.clone(),
            listener.stats.clone(),
            review::Facts { server_name, transport, alpn },
        )),
    };
    let seen = standing::seen(&chain, version, &worker.engine);
    let (signal, network) = standing::of(&chain, seen, &info, signal, reviewed);
    let (io, info, signal) = match network.filters.is_empty() && standing::refusal(&signal).is_none() {
        true => (io, info, signal),
        // Boxed: who only waits for the first byte would keep the room for it.
        false => Box::pin(let_in(worker, (&accepted, &listener, &chain), &network, (io, info, signal))).await?,
    };
    Some(Ready {
        io,
        info,
        terminal: chain.terminal.clone(),
        early: accepted.early.take(),
        buffer: listener.config.buffer_limit,
        signal,
        open,
    })
}

/// Asks the network filters, and turns away whom they do not want.
async fn let_in(
    worker: &Rc<Worker>,
    (accepted, listener, chain): (&Accepted, &LiveListener, &LiveChain),
    network: &LiveNetwork,
    (io, info, signal): (Io, Rc<ConnInfo>, drain::Signal),
) -> Option<(Io, Rc<ConnInfo>, drain::Signal)> {
    let refused = match filters::run(worker, network, &info).await {
        Err(refusal) => Some(refusal),
        // Who was silent for long may come by a policy that is no more: not a byte of that goes on.
        Ok(()) => standing::refusal(&signal),
    };
    match refused {
        None => Some((io, info, signal)),
        Some(refusal) => {
            accepted.turn_away(listener, chain, io, info, refusal, signal).await;
            None
        }
    }
}

/// Counts an open connection of a listener for as long as it lives.
struct Open {
    listener: Arc<AtomicU64>,
    stats: Arc<Sharded<ListenerStats>>,
    direction: Direction,
    shared: Arc<Shared>,
}

impl Open {
    /// `None` when the listener's connection limit is reached.
    fn new(listener: &LiveListener, shared: &Arc<Shared>) -> Option<Self> {
        let limit = listener.config.connection_limit.unwrap_or(u64::MAX);
        let within = |n: u64| (n < limit).then(|| n + 1);
        listener.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).ok()?;
        let stats = listener.stats.local();
        stats.downstream_cx_total.inc();
        stats.downstream_cx_active.inc();
        let direction = listener.config.direction;
        shared.open.of(direction).fetch_add(1, Ordering::Relaxed);
        Some(Self { listener: listener.open.clone(), stats: listener.stats.clone(), direction, shared: shared.clone() })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.listener.fetch_sub(1, Ordering::Relaxed);
        self.shared.open.of(self.direction).fetch_sub(1, Ordering::Relaxed);
        let stats = self.stats.local();
        stats.downstream_cx_active.dec();
        stats.downstream_cx_destroy.inc();
    }
}

/// Something for each direction of traffic.
#[derive(Debug, Default)]
pub struct Directions<T> {
    pub inbound: T,
    pub outbound: T,
    /// Listeners that do not say: served like inbound ones, but left alone by calls that name inbound.
    pub unspecified: T,
}

impl<T> Directions<T> {
    pub fn of(&self, direction: Direction) -> &T {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
            Direction::Unspecified => &self.unspecified,
        }
    }
}
