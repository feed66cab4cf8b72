//! Addresses of listeners to come: bound from the start, so that the kernel holds connections until there is one.
//!
//! Held connections are bounded in number (the queue), in bytes (the buffer) and in time (who asks to give them up).

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
};

use super::{Sockets, bind, inherited::adopt, is_without_v6};
use crate::{
    net::socket::{self, ListenOptions},
    settings::Lifecycle,
    worker::LONGEST_QUEUE,
};

/// Bounds on what is held per address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) connections: u32,
    pub(crate) bytes: u32,
}

impl Held {
    pub(in crate::app) fn of(settings: &Lifecycle) -> Self {
        Self { connections: settings.hold_connections, bytes: settings.hold_bytes }
    }
}

/// What became of held connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HoldCounts {
    /// Waiting now.
    pub(crate) waiting: u64,
    pub(crate) served: u64,
    pub(crate) refused: u64,
}

/// Bound sockets that nobody accepts on yet.
pub(super) struct Reserved {
    pub(super) options: ListenOptions,
    pub(super) sockets: Vec<TcpListener>,
    /// Memory for received bytes as it was before it was bounded; `None` where the kernel cannot take a bound back.
    pub(super) buffer: Option<usize>,
    /// Of a predecessor, which accepts on them as well: who waits is not held.
    pub(super) inherited: bool,
}

/// A socket to accept on, and what waited for that.
pub(super) struct Claimed {
    pub(super) socket: TcpListener,
    pub(super) held: Vec<(TcpStream, SocketAddr)>,
}

impl From<TcpListener> for Claimed {
    fn from(socket: TcpListener) -> Self {
        Self { socket, held: Vec::new() }
    }
}

impl Reserved {
    fn waiting(&self) -> u64 {
        if self.inherited {
            return 0;
        }
        self.sockets.iter().filter_map(|s| socket::waiting(s).ok()).map(u64::from).sum()
    }

    /// Bounds what each connection that is held may send.
    fn bound(&mut self, bytes: u32) -> io::Result<()> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        for listener in &self.sockets {
            let before = socket2::SockRef::from(listener).recv_buffer_size()?;
            if before > bytes {
                // What cannot be taken back is better not done.
                socket::unbound_received(listener, before)?;
                socket::bound_received(listener, bytes)?;
                self.buffer = Some(before);
            }
        }
        Ok(())
    }

    /// Without bounds again, with all that waits.
    fn open(self) -> Vec<Claimed> {
        let unbind = |socket: &dyn AsFd| {
            let lifted = self.buffer.map(|bytes| socket::unbound_received(&socket.as_fd(), bytes));
            if let Some(Err(error)) = lifted {
                tracing::debug!(%error, "a held connection keeps its small buffer");
            }
        };
        let open = |listener: TcpListener| {
            unbind(&listener);
            // Only those: later ones have no bound, and are the worker's.
            let held = std::iter::from_fn(|| listener.accept().ok()).take(LONGEST_QUEUE).collect::<Vec<_>>();
            held.iter().for_each(|(stream, _)| unbind(stream));
            Claimed { socket: listener, held }
        };
        self.sockets.into_iter().map(open).collect()
    }
}

impl Sockets {
    /// Binds an address of a listener to come: connections wait in the kernel until it is there.
    pub(in crate::app) fn reserve(&mut self, address: SocketAddr, held: Held) {
        if self.reserved.contains_key(&address) {
            return;
        }
        // Each worker has a queue of its own, which the kernel lets grow to one more than it is told.
        let workers = u32::try_from(self.workers.len().max(1)).unwrap_or(u32::MAX);
        let backlog = (held.connections / workers).saturating_sub(1).max(1);
        let options =
            ListenOptions { reuse_port: true, v6only: address.is_ipv6(), backlog, ..ListenOptions::default() };
        match bind(address, &options, self.workers.len()) {
            Ok((_, sockets)) => {
                let mut reserved = Reserved { options, sockets, buffer: None, inherited: false };
                if let Err(error) = reserved.bound(held.bytes) {
                    tracing::warn!(%address, %error, "the kernel alone bounds the bytes of held connections");
                }
                tracing::info!(%address, ?held, "holding connections until there is a configuration");
                self.reserved.insert(address, reserved);
            }
            Err(error) if is_without_v6(address, &error) => {
                tracing::info!(%address, %error, "no IPv6 here");
            }
            Err(error) => tracing::warn!(%address, %error, "cannot hold connections before the first configuration"),
        }
    }

    /// Addresses that no listener has claimed so far.
    pub(in crate::app) fn reserved(&self) -> impl Iterator<Item = SocketAddr> {
        self.reserved.keys().copied()
    }

    /// What is held and was.
    pub(in crate::app) fn held(&self) -> HoldCounts {
        HoldCounts { waiting: self.reserved.values().map(Reserved::waiting).sum(), ..self.held }
    }

    /// Gives up what is reserved: whoever connects now is refused, not held.
    pub(in crate::app) fn release(&mut self, why: &str) {
        for (address, reserved) in std::mem::take(&mut self.reserved) {
            let refused = reserved.waiting();
            self.held.refused += refused;
            tracing::warn!(%address, refused, inherited = reserved.inherited, "{why}; connections to it are refused");
        }
    }

    /// The sockets reserved for an address, if they can be had with these options, and where they really are.
    pub(super) fn claim(
        &mut self,
        address: SocketAddr,
        options: &ListenOptions,
    ) -> io::Result<Option<(SocketAddr, Vec<Claimed>)>> {
        let suits = |r: &Reserved| match r.inherited {
            // What else there is may change while it listens.
            true => (r.options.reuse_port, r.options.v6only) == (options.reuse_port, options.v6only),
            false => ListenOptions { backlog: options.backlog, ..r.options } == *options,
        };
        if !self.reserved.get(&address).is_some_and(suits) {
            return Ok(None);
        }
        let Some(reserved) = self.reserved.remove(&address) else { return Ok(None) };
        if reserved.inherited {
            let adopted = adopt(reserved.sockets, options, self.workers.len())?;
            return Ok(Some((address, adopted)));
        }
        reserved.sockets.iter().try_for_each(|socket| socket::reconfigure(socket, options))?;
        let open = reserved.open();
        self.held.served += open.iter().map(|claimed| claimed.held.len() as u64).sum::<u64>();
        Ok(Some((address, open)))
    }

    /// Closes what is reserved for an address that is served otherwise.
    pub(super) fn forget(&mut self, address: SocketAddr) {
        if let Some(reserved) = self.reserved.remove(&address) {
            self.held.refused += reserved.waiting();
        }
    }
}
