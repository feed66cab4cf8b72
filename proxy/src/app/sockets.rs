//! Which sockets are open for which address, on every worker.
//!
//! Every worker has its own `SO_REUSEPORT` socket per address. A socket belongs to an address, not to a listener, so an
//! address that moves to another listener keeps its socket and the connections waiting in its queue. Addresses may be
//! reserved before a listener wants them: the kernel then holds connections until one does.

mod inherited;
mod reserved;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt, io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Weak},
};

use self::reserved::{Claimed, Reserved};
pub(super) use self::{
    inherited::Offered,
    reserved::{Held, HoldCounts},
};
use crate::{
    ir::{
        Name,
        listener::{Direction, Listener},
    },
    live::{Claim, Live},
    net::socket::{self, ListenOptions},
    worker::{Balance, Command, Handle},
};

/// An open address: a socket per worker, or more if a predecessor had more.
struct Open {
    listener: Name,
    /// With the port the kernel chose, if it was asked to.
    address: SocketAddr,
    direction: Direction,
    options: ListenOptions,
    /// Sockets by the worker that accepts on them and the name it knows them by.
    ids: Vec<(usize, u64)>,
    /// Shared with all who accept on them.
    accepting: Arc<()>,
    /// Further handles of the sockets, where a successor may ask for them.
    kept: Vec<TcpListener>,
    /// A successor has them, too.
    offered: bool,
}

/// An address that could not be bound.
#[derive(Debug)]
pub(super) struct Unbound {
    pub(super) listener: Name,
    pub(super) address: SocketAddr,
    pub(super) error: io::Error,
}

impl fmt::Display for Unbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listener {}: cannot bind {}: {}", self.listener, self.address, self.error)
    }
}

/// All listening sockets of the process.
pub(super) struct Sockets {
    workers: Vec<Handle>,
    open: HashMap<Claim, Open>,
    reserved: BTreeMap<SocketAddr, Reserved>,
    /// Directions that no longer accept.
    closed: Vec<Direction>,
    /// Sockets that were closed, held by the workers until their queues are empty and what was in them counts.
    emptying: Vec<Weak<()>>,
    /// Addresses left out because this kernel has no IPv6, each said once.
    without_v6: BTreeSet<SocketAddr>,
    next_id: u64,
    /// Whether open sockets are kept for a successor.
    keeps: bool,
    /// Connections that were held and then served, or refused in the end.
    held: HoldCounts,
}

impl Sockets {
    pub(super) fn new(workers: Vec<Handle>) -> Self {
        Self {
            workers,
            open: HashMap::new(),
            reserved: BTreeMap::new(),
            closed: Vec::new(),
            emptying: Vec::new(),
            without_v6: BTreeSet::new(),
            next_id: 0,
            keeps: false,
            held: HoldCounts::default(),
        }
    }

    /// Opens and closes until the sockets are those of `live`. Returns what could not be bound.
    pub(super) fn reconcile(&mut self, live: &Live) -> Vec<Unbound> {
        let mut wanted: BTreeMap<Claim, (&Listener, SocketAddr)> = BTreeMap::new();
        for listener in live.listeners.values().filter(|l| l.config.bind_to_port) {
            for address in &listener.config.addresses {
                let claim = Claim::new(&listener.config, *address);
                // Of two listeners with one address the one that serves it names the socket, and sets its options.
                let owner = live.bound(&claim).unwrap_or(listener);
                wanted.insert(claim, (&owner.config, *address));
            }
        }
        wanted.retain(|_, (listener, _)| !self.closed.contains(&listener.direction));
        let gone: Vec<Claim> = self.open.keys().filter(|claim| !wanted.contains_key(claim)).cloned().collect();
        gone.iter().for_each(|claim| self.close(claim));

        let mut failed = Vec::new();
        for (claim, (listener, address)) in wanted {
            let options = options(address, listener);
            if let Some(open) = self.open.get_mut(&claim).filter(|open| open.options == options) {
                open.listener = listener.name.clone();
                open.direction = listener.direction;
                continue;
            }
            // Other socket options need other sockets; SO_REUSEPORT lets the new ones open before the old close.
            match self.sockets(address, &options) {
                Ok((bound, sockets)) => {
                    self.close(&claim);
                    self.listen(claim, listener, bound, options, sockets);
                }
                Err(error) => failed.push(Unbound { listener: listener.name.clone(), address, error }),
            }
        }
        failed.retain(|unbound| !self.may_miss(unbound));
        failed
    }

    /// The sockets for an address: those reserved for it, or new ones.
    fn sockets(&mut self, address: SocketAddr, options: &ListenOptions) -> io::Result<(SocketAddr, Vec<Claimed>)> {
        if let Some(claimed) = self.claim(address, options)? {
            return Ok(claimed);
        }
        let bound = bind(address, options, self.workers.len());
        // Reserved with other options: closed only now that the others are open.
        self.forget(address);
        bound.map(|(address, sockets)| (address, sockets.into_iter().map(Claimed::from).collect()))
    }

    fn listen(
        &mut self,
        claim: Claim,
        listener: &Listener,
        address: SocketAddr,
        options: ListenOptions,
        sockets: Vec<Claimed>,
    ) {
        let mut ids = Vec::with_capacity(sockets.len());
        let mut kept = Vec::new();
        let balance = Balance::new(self.workers.len());
        let accepting = Arc::new(());
        let workers = self.workers.iter().enumerate().cycle();
        for ((index, worker), Claimed { socket, held }) in workers.zip(sockets) {
            self.next_id += 1;
            ids.push((index, self.next_id));
            if self.keeps {
                match socket.try_clone() {
                    Ok(socket) => kept.push(socket),
                    Err(error) => tracing::warn!(%address, %error, "a successor will not get this socket"),
                }
            }
            let (claim, balance) = (claim.clone(), balance.clone());
            let accepting = accepting.clone();
            worker.send(Command::Listen { id: self.next_id, claim, socket, balance, held, accepting });
        }
        tracing::info!(listener = %listener.name, %address, "listening");
        let (listener, direction) = (listener.name.clone(), listener.direction);
        self.open.insert(claim, Open { listener, address, direction, options, ids, accepting, kept, offered: false });
    }

    fn close(&mut self, claim: &Claim) {
        if let Some(open) = self.open.remove(claim) {
            self.unlisten(&open);
            self.emptying.retain(|left| left.strong_count() > 0);
            self.emptying.push(Arc::downgrade(&open.accepting));
            tracing::info!(listener = %open.listener, address = %open.address, "no longer listening");
        }
    }

    /// Whether all that came to sockets that are closed is over: nobody waits in their queues who is
    /// not counted.
    pub(super) fn emptied(&mut self) -> bool {
        self.emptying.retain(|left| left.strong_count() > 0);
        self.emptying.is_empty()
    }

    /// Closes the sockets of a direction for good.
    pub(super) fn close_direction(&mut self, direction: Direction) {
        if self.closed.contains(&direction) {
            return;
        }
        self.closed.push(direction);
        let claims: Vec<Claim> =
            self.open.iter().filter(|(_, o)| o.direction == direction).map(|(claim, _)| claim.clone()).collect();
        claims.iter().for_each(|claim| self.close(claim));
    }

    /// The addresses in use, by listener.
    pub(super) fn bound(&self) -> BTreeMap<Name, Vec<SocketAddr>> {
        let mut bound: BTreeMap<Name, Vec<SocketAddr>> = BTreeMap::new();
        for open in self.open.values() {
            bound.entry(open.listener.clone()).or_default().push(open.address);
        }
        bound.values_mut().for_each(|addresses| addresses.sort());
        bound
    }

    /// Whether an address may be missing: an IPv6 one, on a kernel without IPv6, of a listener that has an IPv4 one.
    fn may_miss(&mut self, unbound: &Unbound) -> bool {
        let other_family = |o: &Open| o.listener == unbound.listener && o.address.is_ipv4();
        if !is_without_v6(unbound.address, &unbound.error) || !self.open.values().any(other_family) {
            return false;
        }
        if self.without_v6.insert(unbound.address) {
            tracing::warn!("{unbound}; there is no IPv6 here, the listener's IPv4 address is served");
        }
        true
    }

    /// Tells every worker the same.
    pub(super) fn tell(&self, command: impl Fn() -> Command) {
        self.workers.iter().for_each(|worker| worker.send(command()));
    }

    /// Gives the workers back, to be stopped.
    pub(super) fn into_workers(self) -> Vec<Handle> {
        self.workers
    }
}

/// One socket for each of `count` workers, all at the same port.
fn bind(address: SocketAddr, options: &ListenOptions, count: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let first = socket::bind_listener(address, options)?;
    let bound = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(socket::bind_listener(bound, options)?);
    }
    Ok((bound, sockets))
}

/// Whether the error means that IPv6 is compiled out or switched off.
fn is_without_v6(address: SocketAddr, error: &io::Error) -> bool {
    let SocketAddr::V6(v6) = address else { return false };
    let local = v6.ip().is_unspecified() || v6.ip().is_loopback();
    error.raw_os_error() == Some(libc::EAFNOSUPPORT) || (local && error.raw_os_error() == Some(libc::EADDRNOTAVAIL))
}

fn options(address: SocketAddr, listener: &Listener) -> ListenOptions {
    // A v6 wildcard beside a v4 wildcard of the same port has to leave IPv4 to it.
    let v4_beside = listener.addresses.iter().any(|a| a.is_ipv4() && a.port() == address.port());
    ListenOptions {
        reuse_port: true,
        backlog: listener.backlog,
        transparent: listener.transparent,
        freebind: listener.freebind,
        v6only: address.is_ipv6() && v4_beside,
    }
}

#[cfg(test)]
mod tests;
