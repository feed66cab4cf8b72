//! Sockets that change hands between a process and its successor.
//!
//! Both have the same sockets, and with them the same queues: neither may take what waits in one from the other when it
//! stops, nor open another socket in place of one that it was given.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use super::{Claimed, Open, Reserved, Sockets};
use crate::{
    ir::listener::Direction,
    live::Claim,
    net::socket::{self, ListenOptions},
    worker::Command,
};

/// The sockets of an address.
#[derive(Debug)]
pub(crate) struct Offered {
    /// As listeners ask for it.
    pub(crate) address: SocketAddr,
    pub(crate) bound: SocketAddr,
    pub(crate) options: ListenOptions,
    pub(crate) sockets: Vec<TcpListener>,
}

fn shared(sockets: &[TcpListener]) -> io::Result<Vec<TcpListener>> {
    sockets.iter().map(TcpListener::try_clone).collect()
}

impl Sockets {
    /// Keeps what it takes to hand sockets over one day.
    pub(in crate::app) fn keeping(mut self) -> Self {
        self.keeps = true;
        self
    }

    /// Sets aside the sockets of a predecessor for the listeners that will want them.
    pub(in crate::app) fn inherit(&mut self, offered: Vec<Offered>) {
        for Offered { address, options, sockets, .. } in offered {
            tracing::info!(%address, sockets = sockets.len(), "inherited");
            self.reserved.insert(address, Reserved { options, sockets, buffer: None, inherited: true });
        }
    }

    /// Sockets for a successor. A port that the kernel chose is nothing to come back to.
    pub(in crate::app) fn offer(&mut self) -> io::Result<Vec<Offered>> {
        let mut offered = Vec::new();
        for (claim, open) in &mut self.open {
            if let Claim::Address(address) = claim {
                let (address, bound, options) = (*address, open.address, open.options);
                offered.push(Offered { address, bound, options, sockets: shared(&open.kept)? });
                open.offered = true;
            }
        }
        Ok(offered)
    }

    /// The successor does not want them any more.
    pub(in crate::app) fn withdraw(&mut self) {
        self.open.values_mut().for_each(|open| open.offered = false);
    }

    /// Accepts nothing any more. What waits in a queue is for the successor.
    pub(in crate::app) fn leave(&mut self) {
        self.closed = vec![Direction::Inbound, Direction::Outbound, Direction::Unspecified];
        self.reserved.clear();
        let claims: Vec<Claim> = self.open.keys().cloned().collect();
        claims.iter().for_each(|claim| self.close(claim));
    }

    /// Whether some worker may still accept a connection, on whatever socket.
    pub(in crate::app) fn is_accepting(&self) -> bool {
        Arc::strong_count(&self.accepting) > 1
    }

    /// Stops accepting on a socket, on all workers.
    pub(super) fn unlisten(&self, open: &Open) {
        for (worker, id) in &open.ids {
            if let Some(worker) = self.workers.get(*worker) {
                worker.send(Command::Unlisten { id: *id, leave: open.offered });
            }
        }
    }
}

/// Inherited sockets for listeners of this process: those it was given, however many workers the predecessor had, and
/// one for each further worker.
pub(super) fn adopt(given: Vec<TcpListener>, options: &ListenOptions, workers: usize) -> io::Result<Vec<Claimed>> {
    let mut sockets = given;
    sockets.iter().try_for_each(|socket| socket::reconfigure(socket, options))?;
    let bound = sockets.first().map(TcpListener::local_addr).transpose()?;
    for _ in sockets.len()..workers {
        match bound.map(|bound| socket::bind_listener(bound, options)) {
            Some(Ok(socket)) => sockets.push(socket),
            // It gets its share from the others.
            Some(Err(error)) => tracing::warn!(?bound, %error, "a worker accepts nothing itself"),
            None => {}
        }
    }
    Ok(sockets.into_iter().map(Claimed::from).collect())
}
