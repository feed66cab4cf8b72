//! Which sockets are open for which listener, on every worker.
//!
//! Every worker has its own `SO_REUSEPORT` socket per address. A socket whose address moves to another listener is
//! handed over, not closed: connections waiting in its queue would be reset.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use crate::{
    ir::{Name, listener::Listener},
    live::Live,
    net::socket::{self, ListenOptions},
    worker::{Command, Handle},
};

struct Open {
    name: Name,
    options: ListenOptions,
    /// One id per worker, in order.
    ids: Vec<u64>,
}

/// All listening sockets of the process.
pub(super) struct Sockets {
    workers: Vec<Handle>,
    open: HashMap<SocketAddr, Open>,
    next_id: u64,
}

impl Sockets {
    pub(super) fn new(workers: Vec<Handle>) -> Self {
        Self { workers, open: HashMap::new(), next_id: 0 }
    }

    /// Opens, hands over and closes until the sockets are those of `live`. Returns what could not be bound.
    pub(super) fn reconcile(&mut self, live: &Live) -> Vec<(Name, SocketAddr, std::io::Error)> {
        let mut wanted: BTreeMap<SocketAddr, &Arc<Listener>> = BTreeMap::new();
        for listener in live.listeners.values().filter(|l| l.config.bind_to_port) {
            for address in &listener.config.addresses {
                wanted.insert(*address, &listener.config);
            }
        }
        let gone: Vec<SocketAddr> = self.open.keys().filter(|a| !wanted.contains_key(a)).copied().collect();
        gone.into_iter().for_each(|address| self.close(address));

        let mut failed = Vec::new();
        for (address, listener) in wanted {
            let options = options(address, listener);
            match self.open.get_mut(&address) {
                Some(open) if open.options == options => {
                    if open.name != listener.name {
                        open.name = listener.name.clone();
                        for (worker, id) in self.workers.iter().zip(&open.ids) {
                            worker.send(Command::Rename { id: *id, name: listener.name.clone() });
                        }
                    }
                }
                // Other socket options need other sockets; SO_REUSEPORT lets the new ones open before the old close.
                present => {
                    let replaced = present.is_some();
                    match self.bind(address, listener, options) {
                        Ok(open) => {
                            if replaced {
                                self.close(address);
                            }
                            self.open.insert(address, open);
                        }
                        Err(error) => failed.push((listener.name.clone(), address, error)),
                    }
                }
            }
        }
        failed
    }

    fn bind(&mut self, address: SocketAddr, listener: &Listener, options: ListenOptions) -> std::io::Result<Open> {
        let sockets =
            self.workers.iter().map(|_| socket::bind_listener(address, &options)).collect::<Result<Vec<_>, _>>()?;
        let mut ids = Vec::with_capacity(sockets.len());
        for (worker, socket) in self.workers.iter().zip(sockets) {
            self.next_id += 1;
            ids.push(self.next_id);
            worker.send(Command::Listen { id: self.next_id, name: listener.name.clone(), socket });
        }
        tracing::info!(listener = %listener.name, %address, "listening");
        Ok(Open { name: listener.name.clone(), options, ids })
    }

    fn close(&mut self, address: SocketAddr) {
        if let Some(open) = self.open.remove(&address) {
            for (worker, id) in self.workers.iter().zip(open.ids) {
                worker.send(Command::Unlisten { id });
            }
            tracing::info!(listener = %open.name, %address, "no longer listening");
        }
    }

    /// Closes the sockets of listeners for which `which` holds.
    pub(super) fn close_where(&mut self, which: impl Fn(&Name) -> bool) {
        let addresses: Vec<SocketAddr> = self.open.iter().filter(|(_, o)| which(&o.name)).map(|(a, _)| *a).collect();
        addresses.into_iter().for_each(|address| self.close(address));
    }

    /// Gives the workers back, to be stopped.
    pub(super) fn into_workers(self) -> Vec<Handle> {
        self.workers
    }
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
