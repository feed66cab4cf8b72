//! Where statistics blocks are found again by name: two chains with one `stat_prefix` share a block, and a block whose
//! owners are gone disappears from the scrape.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::filters::{ExtAuthzStats, FilterStats, GradientStats, JwtStats};
use super::histogram::Distribution;
use super::limits::{ConnectionLimitStats, GlobalConnectionLimitStats, LocalLimitStats};
use super::mesh::Mesh;
use super::metrics::{Block, HttpStats, Kind, ListenerStats, Sharded, TcpStats};
use super::outbox::Counts;
use super::rbac::RbacRegistry;
use super::tracing_stats::TracingStats;
use crate::ir::Name;

type Scope<T> = Mutex<Blocks<T>>;

#[derive(Debug)]
struct Blocks<T> {
    by_name: BTreeMap<Name, Weak<Sharded<T>>>,
    /// Entries at which those without owners are looked for next: doubling keeps that cheap per insertion.
    clean_at: usize,
}

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Self { by_name: BTreeMap::new(), clean_at: CLEAN_AT_LEAST }
    }
}

const CLEAN_AT_LEAST: usize = 64;

/// All blocks but the clusters' own (those hang off the cluster objects). Locked on configuration change and scrape only.
#[derive(Debug, Default)]
pub struct Registry {
    listeners: Scope<ListenerStats>,
    tcp: Scope<TcpStats>,
    http: Scope<HttpStats>,
    filters: Scope<FilterStats>,
    gradient: Scope<GradientStats>,
    local_limits: Scope<LocalLimitStats>,
    connection_limits: Scope<ConnectionLimitStats>,
    global_connection_limits: Scope<GlobalConnectionLimitStats>,
    /// Of RBAC filters, under names of their own.
    pub rbac: RbacRegistry,
    /// Istio's standard metrics.
    pub mesh: Arc<Mesh>,
    ext_authz: Scope<ExtAuthzStats>,
    jwt_authn: Scope<JwtStats>,
    tracing: Scope<TracingStats>,
    /// Of all spans that were exported or were to be.
    pub spans: Arc<Counts>,
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

    /// Of the HTTP filters of connection managers with one prefix.
    pub fn filters(&self, name: &Name) -> Arc<Sharded<FilterStats>> {
        get(&self.filters, name)
    }

    /// Of the adaptive concurrency filters among them.
    pub fn gradient(&self, name: &Name) -> Arc<Sharded<GradientStats>> {
        get(&self.gradient, name)
    }

    /// Of the local rate limits with one prefix.
    pub fn local_limits(&self, name: &Name) -> Arc<Sharded<LocalLimitStats>> {
        get(&self.local_limits, name)
    }

    /// Of the local limits of connections with one prefix.
    pub fn connection_limits(&self, name: &Name) -> Arc<Sharded<ConnectionLimitStats>> {
        get(&self.connection_limits, name)
    }

    /// Of the global limits of connections with one prefix.
    pub fn global_connection_limits(&self, name: &Name) -> Arc<Sharded<GlobalConnectionLimitStats>> {
        get(&self.global_connection_limits, name)
    }

    /// Of external authorization filters with one prefix.
    pub fn ext_authz(&self, name: &Name) -> Arc<Sharded<ExtAuthzStats>> {
        get(&self.ext_authz, name)
    }

    /// Of JWT filters with one prefix.
    pub fn jwt_authn(&self, name: &Name) -> Arc<Sharded<JwtStats>> {
        get(&self.jwt_authn, name)
    }

    /// Of the tracing of connection managers with one prefix.
    pub fn tracing(&self, name: &Name) -> Arc<Sharded<TracingStats>> {
        get(&self.tracing, name)
    }

    /// Visits every value as (scope, name, metric, kind, value), scopes being `listener`, `tcp`, `http`
    /// and those of rate limits, none for the process's own.
    pub fn visit(&self, visitor: &mut dyn FnMut(&'static str, &Name, &'static str, Kind, u64)) {
        visit(&self.listeners, "listener", visitor);
        visit(&self.tcp, "tcp", visitor);
        visit(&self.http, "http", visitor);
        visit(&self.filters, "http", visitor);
        visit(&self.gradient, "http", visitor);
        visit(&self.local_limits, "http_local_rate_limit", visitor);
        visit(&self.connection_limits, "local_rate_limit", visitor);
        visit(&self.global_connection_limits, "ratelimit", visitor);
        visit(&self.ext_authz, "http", visitor);
        visit(&self.jwt_authn, "http", visitor);
        visit(&self.tracing, "http", visitor);
        let nobody = Name::from("");
        self.spans.visit(&mut |metric, value| visitor("", &nobody, metric, Kind::Counter, value));
    }

    /// Visits every distribution as (scope, name, metric, values).
    pub fn visit_histograms(&self, visitor: &mut dyn FnMut(&'static str, &Name, &'static str, Distribution)) {
        for (name, block) in held(&self.http) {
            block.distributions().into_iter().for_each(|(metric, values)| visitor("http", &name, metric, values));
        }
    }
}

fn get<T: Block>(scope: &Scope<T>, name: &Name) -> Arc<Sharded<T>> {
    let mut scope = scope.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = scope.by_name.get(name).and_then(Weak::upgrade) {
        return found;
    }
    if scope.by_name.len() >= scope.clean_at {
        scope.by_name.retain(|_, weak| weak.strong_count() > 0);
        scope.clean_at = (scope.by_name.len() * 2).max(CLEAN_AT_LEAST);
    }
    let made = Arc::new(Sharded::default());
    scope.by_name.insert(name.clone(), Arc::downgrade(&made));
    made
}

fn visit<T: Block>(
    scope: &Scope<T>,
    label: &'static str,
    visitor: &mut dyn FnMut(&'static str, &Name, &'static str, Kind, u64),
) {
    for (name, block) in held(scope) {
        for (metric, kind, value) in block.totals() {
            visitor(label, &name, metric, kind, value);
        }
    }
}

/// What has owners, without holding the lock any longer.
fn held<T: Block>(scope: &Scope<T>) -> Vec<(Name, Arc<Sharded<T>>)> {
    let scope = scope.lock().unwrap_or_else(PoisonError::into_inner);
    scope.by_name.iter().filter_map(|(name, weak)| Some((name.clone(), weak.upgrade()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_one_block_and_blocks_without_owners_go() {
        let registry = Registry::default();
        let held = registry.tcp(&"held".into());
        held.local().downstream_cx_total.inc();
        assert!(Arc::ptr_eq(&held, &registry.tcp(&"held".into())));
        for i in 0..10 * CLEAN_AT_LEAST {
            registry.tcp(&format!("gone-{i}").into()).local().downstream_cx_total.inc();
        }
        assert!(registry.tcp.lock().unwrap().by_name.len() <= 2 * CLEAN_AT_LEAST);
        let mut seen = Vec::new();
        registry.visit(&mut |scope, name, metric, _, value| {
            if value > 0 {
                seen.push((scope, name.to_string(), metric, value));
            }
        });
        assert_eq!(seen, [("tcp", "held".to_owned(), "downstream_cx_total", 1)]);
    }
}
