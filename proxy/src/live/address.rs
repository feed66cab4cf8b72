//! Which listener an address belongs to, for accepted sockets and for hand-off by original destination.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use super::LiveListener;
use crate::ir::{Name, listener::Listener};

/// What a bound socket accepts for. By address, so that an address that moves to another listener keeps its socket;
/// by name where the kernel chose the port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Claim {
    Address(SocketAddr),
    Name(Name),
}

impl Claim {
    pub fn new(listener: &Listener, address: SocketAddr) -> Self {
        if address.port() == 0 { Self::Name(listener.name.clone()) } else { Self::Address(address) }
    }
}

type Map = HashMap<SocketAddr, Arc<LiveListener>, foldhash::fast::RandomState>;

/// The listeners of a configuration by address.
#[derive(Default)]
pub(super) struct Addresses {
    /// All, bound or not.
    all: Map,
    bound: Map,
    captured: Vec<u16>,
    conflicts: Vec<(Name, String)>,
}

impl Addresses {
    /// Of two listeners with one address the first has it.
    pub(super) fn new<'a>(listeners: impl Iterator<Item = &'a Arc<LiveListener>>) -> Self {
        let mut index = Self::default();
        for listener in listeners {
            for address in listener.config.addresses.iter().filter(|a| a.port() != 0) {
                index.all.entry(*address).or_insert_with(|| listener.clone());
                if listener.config.bind_to_port {
                    index.bind(listener, *address);
                }
            }
        }
        index
    }

    fn bind(&mut self, listener: &Arc<LiveListener>, address: SocketAddr) {
        if listener.config.use_original_dst {
            self.captured.push(address.port());
        }
        match self.bound.get(&address) {
            Some(owner) if !Arc::ptr_eq(owner, listener) => {
                let reason = format!("{address} already belongs to listener `{}`", owner.config.name);
                self.conflicts.push((listener.config.name.clone(), reason));
            }
            _ => drop(self.bound.insert(address, listener.clone())),
        }
    }

    pub(super) fn bound(&self, address: &SocketAddr) -> Option<&Arc<LiveListener>> {
        self.bound.get(address)
    }

    pub(super) fn captures(&self, port: u16) -> bool {
        self.captured.contains(&port)
    }

    pub(super) fn conflicts(&self) -> &[(Name, String)] {
        &self.conflicts
    }

    pub(super) fn hand_off(&self, destination: SocketAddr) -> Option<&Arc<LiveListener>> {
        let port = destination.port();
        let v4 = SocketAddr::from(([0u8; 4], port));
        let v6 = SocketAddr::from(([0u16; 8], port));
        let wildcard = || destination.is_ipv4().then(|| self.all.get(&v4)).flatten().or_else(|| self.all.get(&v6));
        self.all.get(&destination).or_else(wildcard)
    }
}
