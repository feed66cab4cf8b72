//! What the HTTP filters of one connection manager share over all workers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use super::{Admission, LiveJwt, RbacCounts};
use crate::{
    ir::{
        Name,
        filters::Fault,
        format::AccessLog,
        http::{ConnectionManager, FilterKind, HttpFilter},
        jwt_authn::JwtAuthn,
        rbac::Engine,
    },
    policy::{debug::DebugKeys, rate_limit::limits::LocalLimit},
    telemetry::{
        filters::{ExtAuthzStats, FilterStats},
        metrics::Sharded,
        registry::Registry,
    },
    upstream::lb::Callers,
};

/// See the module's head. Lives as long as the filter chain's configuration stays the same.
#[derive(Default)]
pub struct LiveFilters {
    config: Option<Arc<ConnectionManager>>,
    /// There are filters that a route may have something to say about.
    pub any: bool,
    /// There are filters that act whatever the routes say.
    pub always: bool,
    /// They write header values of what is else noted for access logs only.
    pub look_at_notes: bool,
    /// RBAC rules look at headers, routes apart.
    pub reads_headers: bool,
    /// What filters note of their results is read by somebody, routes apart.
    pub results_are_read: bool,
    pub stats: Arc<Sharded<FilterStats>>,
    faults: Arc<AtomicU64>,
    /// By the place of their filter in the chain.
    admissions: Vec<(usize, Arc<Admission>)>,
    /// Likewise.
    rbac: Vec<(usize, RbacCounts)>,
    /// Likewise.
    limits: Vec<(usize, Arc<LocalLimit>)>,
    /// Likewise.
    globals: Vec<(usize, LiveGlobalLimit)>,
    /// Who this proxy is, and how many others like it there are.
    pub callers: Arc<Callers>,
    /// Likewise.
    ext_authz: Vec<(usize, Arc<Sharded<ExtAuthzStats>>)>,
    /// Likewise.
    jwt: Vec<(usize, Arc<LiveJwt>)>,
    /// What requests are signed with that want to know what was decided on them.
    pub debug: Option<Arc<DebugKeys>>,
}

impl LiveFilters {
    /// `before` are the filters of the former version of the chain: equal rate limits keep their buckets.
    pub fn new(
        config: &Arc<ConnectionManager>,
        (registry, callers): (&Registry, &Arc<Callers>),
        before: Option<&Self>,
        now: Instant,
    ) -> Self {
        let stats = registry.filters(&config.stat_prefix);
        let gradient = registry.gradient(&config.stat_prefix);
        let (mut any, mut always, mut look_at_notes) = (false, false, false);
        let admissions = config.filters.iter().enumerate().filter_map(|(place, filter)| match &filter.kind {
            FilterKind::AdaptiveConcurrency(c) => {
                Some((place, Arc::new(Admission::new(c.clone(), gradient.clone(), now))))
            }
            _ => None,
        });
        let admissions = admissions.collect();
        let rbac = config.filters.iter().enumerate().filter_map(|(place, filter)| match &filter.kind {
            FilterKind::Rbac(rbac) => Some((place, RbacCounts::new(rbac, true, &config.stat_prefix, &registry.rbac))),
            _ => None,
        });
        let rbac = rbac.collect();
        let limits = config.filters.iter().enumerate().filter_map(|(place, filter)| match &filter.kind {
            FilterKind::LocalRateLimit(c) => {
                let known = before.and_then(|b| b.limits.iter().find(|(_, limit)| limit.config == *c));
                let made = || LocalLimit::new(c, registry.local_limits(&c.stat_prefix));
                Some((place, known.map_or_else(made, |(_, limit)| limit.clone())))
            }
            _ => None,
        });
        let limits: Vec<(usize, Arc<LocalLimit>)> = limits.collect();
        let globals = config.filters.iter().enumerate().filter_map(|(place, filter)| match &filter.kind {
            FilterKind::RateLimit(_) => Some((place, LiveGlobalLimit::new(config, &filter.name, &limits))),
            _ => None,
        });
        let globals = globals.collect();
        for filter in &config.filters {
            let acts = match &filter.kind {
                FilterKind::Alpn(_) | FilterKind::Router(_) => continue,
                FilterKind::Fault(fault) => **fault != Fault::default(),
                FilterKind::Cors => false,
                FilterKind::Rbac(rbac) => rbac.rules.is_some() || rbac.shadow.is_some(),
                FilterKind::HeaderMutation { mutations, .. } => {
                    look_at_notes |= mutations.look_at_notes();
                    !mutations.is_empty()
                }
                FilterKind::LocalRateLimit(limit) => {
                    look_at_notes |= limit.look_at_notes();
                    limit.enabled.numerator > 0
                }
                FilterKind::RateLimit(limit) => {
                    look_at_notes |= limit.look_at_notes();
                    limit.enabled.numerator > 0
                }
                FilterKind::Buffer(_)
                | FilterKind::AdaptiveConcurrency(_)
                | FilterKind::GrpcWeb
                | FilterKind::JwtAuthn(_) => true,
                FilterKind::ExtAuthz(authz) => {
                    look_at_notes |= authz.service.look_at_notes();
                    true
                }
            };
            any = true;
            always |= acts && !filter.disabled;
        }
        look_at_notes |= config.local_reply.is_some();
        let own_name = |own: &str| match own {
            "" => config.stat_prefix.clone(),
            own => format!("{}.{own}", config.stat_prefix).into(),
        };
        let (mut ext_authz, mut jwt) = (Vec::new(), Vec::new());
        for (place, filter) in config.filters.iter().enumerate() {
            match &filter.kind {
                FilterKind::ExtAuthz(c) => ext_authz.push((place, registry.ext_authz(&own_name(&c.stat_prefix)))),
                FilterKind::JwtAuthn(c) => {
                    // Keys that were fetched outlive whatever else of the chain changes.
                    let former =
                        before.filter(|b| b.config.as_ref().is_some_and(|o| o.stat_prefix == config.stat_prefix));
                    let known = former.and_then(|b| b.jwt.iter().find(|(at, _)| b.is_jwt(*at, c)));
                    let made = || Arc::new(LiveJwt::new(c, registry.jwt_authn(&own_name(&c.stat_prefix))));
                    jwt.push((place, known.map_or_else(made, |(_, live)| live.clone())));
                }
                _ => {}
            }
        }
        let results_are_read = look_at_notes
            || config.access_log.iter().any(AccessLog::reads_metadata)
            || config.filters.iter().any(|filter| reads_metadata(&filter.kind));
        let reads_headers = config.filters.iter().any(|filter| match &filter.kind {
            FilterKind::Rbac(rbac) => rbac.rules.as_ref().is_some_and(Engine::reads_headers),
            _ => false,
        });
        Self {
            reads_headers,
            results_are_read,
            config: Some(config.clone()),
            any,
            always,
            look_at_notes,
            stats,
            faults: Arc::default(),
            admissions,
            rbac,
            limits,
            globals,
            callers: callers.clone(),
            ext_authz,
            jwt,
            debug: None,
        }
    }

    /// The filters in configured order.
    pub fn list(&self) -> &[HttpFilter] {
        self.config.as_ref().map_or(&[], |config| &config.filters)
    }

    /// Whether both let the same requests through, as far as filters decide that for themselves and their routes.
    pub fn authorize_alike(&self, other: &Self) -> bool {
        let deciding = |filters: &Self| -> Vec<HttpFilter> {
            let decides = |kind: &FilterKind| {
                matches!(kind, FilterKind::Rbac(_) | FilterKind::ExtAuthz(_) | FilterKind::JwtAuthn(_))
            };
            filters.list().iter().filter(|filter| decides(&filter.kind)).cloned().collect()
        };
        deciding(self) == deciding(other)
    }

    /// Whether the filter at this place is this JWT filter.
    fn is_jwt(&self, place: usize, config: &JwtAuthn) -> bool {
        matches!(self.list().get(place).map(|f| &f.kind), Some(FilterKind::JwtAuthn(own)) if **own == *config)
    }

    /// What is kept for the JWT filter at this place of the chain.
    pub fn jwt(&self, place: usize) -> Option<&Arc<LiveJwt>> {
        self.jwt.iter().find(|(at, _)| *at == place).map(|(_, jwt)| jwt)
    }

    /// What is kept for each JWT filter.
    pub fn all_jwt(&self) -> impl Iterator<Item = &Arc<LiveJwt>> {
        self.jwt.iter().map(|(_, jwt)| jwt)
    }

    /// The statistics of the external authorization filter at this place of the chain.
    pub fn ext_authz(&self, place: usize) -> Option<&Arc<Sharded<ExtAuthzStats>>> {
        self.ext_authz.iter().find(|(at, _)| *at == place).map(|(_, stats)| stats)
    }

    /// The adaptive concurrency limit of the filter at this place of the chain.
    pub fn admission(&self, place: usize) -> Option<&Arc<Admission>> {
        self.admissions.iter().find(|(at, _)| *at == place).map(|(_, admission)| admission)
    }

    /// The statistics of the RBAC filter at this place of the chain.
    pub fn rbac(&self, place: usize) -> Option<&RbacCounts> {
        self.rbac.iter().find(|(at, _)| *at == place).map(|(_, counts)| counts)
    }

    /// The local rate limit of the filter at this place of the chain.
    pub fn limit(&self, place: usize) -> Option<&Arc<LocalLimit>> {
        self.limits.iter().find(|(at, _)| *at == place).map(|(_, limit)| limit)
    }

    /// What belongs to the global rate limit at this place of the chain.
    pub fn global(&self, place: usize) -> Option<&LiveGlobalLimit> {
        self.globals.iter().find(|(at, _)| *at == place).map(|(_, global)| global)
    }

    /// Requests signed with the key are told what was decided on them: they all have to be looked at for that.
    pub fn explained_to(mut self, key: Option<Arc<DebugKeys>>) -> Self {
        self.any |= key.is_some();
        self.always |= key.is_some();
        self.debug = key;
        self
    }

    /// Whether one more request may have faults injected.
    pub fn fault_fits(&self, max: u32) -> bool {
        self.faults.load(Relaxed) < u64::from(max)
    }

    /// Counts a request with faults until the guard is dropped.
    pub fn hold_fault(&self) -> ActiveFault {
        self.faults.fetch_add(1, Relaxed);
        self.stats.local().active_faults.inc();
        ActiveFault { stats: self.stats.clone(), faults: self.faults.clone() }
    }
}

/// What belongs to a global rate limit filter.
pub struct LiveGlobalLimit {
    /// The filter that stands in for the service, and its local limit where the chain has it.
    pub fallback_name: Name,
    pub fallback: Option<Arc<LocalLimit>>,
    /// The cluster of those that share the local limit.
    pub replicas: Name,
}

impl LiveGlobalLimit {
    fn new(config: &ConnectionManager, filter: &str, limits: &[(usize, Arc<LocalLimit>)]) -> Self {
        let fallback_name: Name = format!("{filter}.fallback").into();
        let named = |(place, _): &&(usize, _)| config.filters[*place].name == fallback_name;
        Self {
            fallback: limits.iter().find(named).map(|(_, limit)| limit.clone()),
            fallback_name,
            replicas: format!("{filter}.replicas").into(),
        }
    }
}

/// Whether a filter may look at metadata.
fn reads_metadata(kind: &FilterKind) -> bool {
    match kind {
        FilterKind::Rbac(rbac) => rbac.reads_metadata(),
        // What is counted may be chosen by the routes.
        FilterKind::LocalRateLimit(_) | FilterKind::RateLimit(_) => true,
        // It may be told of them.
        FilterKind::ExtAuthz(_) => true,
        FilterKind::JwtAuthn(_)
        | FilterKind::Alpn(_)
        | FilterKind::Fault(_)
        | FilterKind::Cors
        | FilterKind::HeaderMutation { .. }
        | FilterKind::Buffer(_)
        | FilterKind::AdaptiveConcurrency(_)
        | FilterKind::GrpcWeb
        | FilterKind::Router(_) => false,
    }
}

/// See [`LiveFilters::hold_fault`].
pub struct ActiveFault {
    stats: Arc<Sharded<FilterStats>>,
    faults: Arc<AtomicU64>,
}

impl Drop for ActiveFault {
    fn drop(&mut self) {
        self.faults.fetch_sub(1, Relaxed);
        self.stats.local().active_faults.dec();
    }
}
