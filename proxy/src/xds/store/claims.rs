//! Which listener has which address: two that bind the same one would share its connections by chance.
//!
//! Looks at one update as a whole, so that an address may move from one listener to another within it. Who has an
//! address already keeps it against newcomers, wherever they stand in the update.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use super::{Frame, Origin, Prepared, Resource, Store, prepare::Outcome};
use crate::{
    ir::{Name, listener::Listener},
    xds::kind::Kind,
};

/// Bound addresses by listener.
#[derive(Debug, Default)]
pub(super) struct Claims(BTreeMap<SocketAddr, Name>);

fn listener(resource: &Resource) -> Option<&Arc<Listener>> {
    match resource {
        Resource::Listener(listener) if listener.bind_to_port => Some(listener),
        _ => None,
    }
}

impl Claims {
    /// What is held once the update is applied, but for addresses that are new in it.
    pub(super) fn before(store: &Store, frame: &Frame<'_>, items: &[Prepared]) -> Self {
        let mut claims = Self::default();
        if frame.kind != Kind::Listener {
            return claims;
        }
        let delivered: BTreeMap<&str, &Outcome> = items.iter().map(|i| (i.name.as_str(), &i.outcome)).collect();
        let source = Origin::Source(frame.source.clone());
        for (name, slot) in store.table(Kind::Listener) {
            let Some(latest) = &slot.latest else { continue };
            let Some(held) = listener(&latest.resource) else { continue };
            let ours = latest.origin == source;
            let next = match delivered.get(&**name) {
                Some(Outcome::New { resource, .. }) if ours => listener(resource),
                None if ours && (frame.full || frame.removed.iter().any(|r| **r == **name)) => None,
                _ => Some(held),
            };
            let kept = held.addresses.iter().filter(|a| next.is_some_and(|n| n.addresses.contains(a)));
            claims.0.extend(kept.map(|address| (*address, name.clone())));
        }
        claims
    }

    /// Takes the addresses of a new version, or says whose one of them is.
    pub(super) fn take(&mut self, resource: &Resource) -> Result<(), String> {
        let Some(wanted) = listener(resource) else { return Ok(()) };
        let addresses = || wanted.addresses.iter().filter(|a| a.port() != 0);
        for address in addresses() {
            if let Some(other) = self.0.get(address).filter(|other| **other != wanted.name) {
                return Err(format!("address: {address} is the listener `{other}`'s already"));
            }
        }
        self.0.extend(addresses().map(|address| (*address, wanted.name.clone())));
        Ok(())
    }
}
