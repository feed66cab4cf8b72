//! Where statistics blocks are found again by name: two chains with one `stat_prefix` share a block, and a block whose
//! owners are gone disappears from the scrape.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::metrics::{Block, HttpStats, Kind, ListenerStats, Sharded, TcpStats};
use crate::ir::Name;

type Scope<T> = Mutex<BTreeMap<Name, Weak<Sharded<T>>>>;

/// All blocks but the clusters' own (those hang off the cluster objects). Locked on configuration change and scrape only.
#[derive(Debug, Default)]
pub struct Registry {
    listeners: Scope<ListenerStats>,
    tcp: Scope<TcpStats>,
    http: Scope<HttpStats>,
}

impl Registry {
    pub fn listener(&self, name: &Name) -> Arc<Sharded<ListenerStats>> {
        get(&self.listeners, name)
    }

    pub fn tcp(&self, name: &Name) -> Arc<Sharded<TcpStats>> {
        get(&self.tcp, name)
    }

    pub fn http(&self, name: &Name) -> Arc<Sharded<HttpStats>> {
        get(&self.http, name)
    }

    /// Visits every value as (scope, name, metric, kind, value), scopes being `listener`, `tcp` and `http`.
    pub fn visit(&self, visitor: &mut dyn FnMut(&'static str, &str, &'static str, Kind, u64)) {
        visit(&self.listeners, "listener", visitor);
        visit(&self.tcp, "tcp", visitor);
        visit(&self.http, "http", visitor);
    }
}

fn get<T: Block>(scope: &Scope<T>, name: &Name) -> Arc<Sharded<T>> {
    let mut scope = scope.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = scope.get(name).and_then(Weak::upgrade) {
        return found;
    }
    scope.retain(|_, weak| weak.strong_count() > 0);
    let made = Arc::new(Sharded::default());
    scope.insert(name.clone(), Arc::downgrade(&made));
    made
}

fn visit<T: Block>(
    scope: &Scope<T>,
    label: &'static str,
    visitor: &mut dyn FnMut(&'static str, &str, &'static str, Kind, u64),
) {
    let blocks: Vec<_> = {
        let scope = scope.lock().unwrap_or_else(PoisonError::into_inner);
        scope.iter().filter_map(|(name, weak)| Some((name.clone(), weak.upgrade()?))).collect()
    };
    for (name, block) in blocks {
        for (metric, kind, value) in block.totals() {
            visitor(label, &name, metric, kind, value);
        }
    }
}
