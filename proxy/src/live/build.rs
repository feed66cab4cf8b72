//! From an [`ir`](crate::ir) snapshot to a [`Live`], reusing every part that did not change.
//!
//! Only what differs from the snapshot before is looked at, so an update of one endpoint costs one cluster however
//! many there are. A part that cannot be built (a listener whose inline certificate does not parse, say) keeps its
//! predecessor, is reported and tried again at the next build; the other parts of the same snapshot take effect.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Instant,
};

use super::{
    Addresses, Live, LiveChain, LiveFilters, LiveHcm, LiveListener, LiveNetwork, LiveTcp, LiveTerminal, Standing,
};
use crate::{
    ir::{
        Name,
        cluster::{Cluster as ClusterConfig, Discovery},
        endpoint::Assignment,
        format::AccessLog,
        http::RouteSource,
        listener::{FilterChain, IstioStats, Listener, Terminal},
        name_map::NameMap,
        route::RouteConfiguration,
        snapshot::Snapshot,
    },
    policy::{
        chain::ChainIndex,
        debug::DebugKeys,
        dry_run::StrictTrial,
        rate_limit::limits::{FindStats, RouteLimits},
        router::RouteTable,
    },
    telemetry::{
        access_log::{Logger, Loggers, Sinks},
        mesh::{Reporting, only_cluster},
        registry::Registry,
        trace::Tracers,
    },
    tls::{Secrets, ServerContext},
    upstream::{Cluster, Deps},
};

/// What [`Builder::build`] needs besides the snapshot; lives as long as the process.
pub struct Builder {
    pub secrets: Arc<Secrets>,
    pub registry: Arc<Registry>,
    pub sinks: Arc<Sinks>,
    pub tracers: Arc<Tracers>,
    pub upstream: Deps,
    /// What requests are signed with that want to know what was decided on them.
    pub debug: Option<Arc<DebugKeys>>,
}

/// A part that kept its predecessor, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub resource: Name,
    pub reason: String,
}

/// Resolved endpoints of DNS clusters, by cluster name.
pub type Resolved = Arc<HashMap<Name, Arc<Assignment>>>;

impl Builder {
    /// Compiles `snapshot`. `resolved` holds what DNS answered so far.
    pub fn build(&self, snapshot: &Arc<Snapshot>, resolved: &Resolved, previous: &Live) -> (Live, Vec<Problem>) {
        let mut problems = Vec::new();
        let (clusters, failed_clusters) = self.clusters(snapshot, resolved, previous, &mut problems);
        let (listeners, failed_listeners) = self.listeners(snapshot, previous, &mut problems);
        let addresses = if listeners.is_same(&previous.listeners) {
            previous.addresses.clone()
        } else {
            // In the order of names, so that a conflict is always decided the same way.
            let names = snapshot.listeners.sorted().into_iter();
            Arc::new(Addresses::new(names.filter_map(|(name, _)| listeners.get(name))))
        };
        let live = Live {
            version: snapshot.version,
            source: snapshot.clone(),
            resolved: resolved.clone(),
            listeners,
            addresses,
            clusters,
            services: services(snapshot, previous),
            routes: self.routes(snapshot, previous),
            failed_clusters,
            failed_listeners,
        };
        (live, problems)
    }

    /// `previous` with some of its clusters compiled anew: what is known of the health of their hosts changed, and
    /// nothing else.
    pub fn refresh(&self, names: &[Name], previous: &Live) -> Live {
        let mut live = previous.clone();
        for before in names.iter().filter_map(|name| previous.clusters.get(name)) {
            let config = &before.config;
            let assignment = assignment(config, &previous.source, &previous.resolved);
            // It was built from the same a moment ago.
            if let Ok(cluster) = Cluster::build(config.clone(), assignment, &self.upstream, Some(before)) {
                live.clusters.insert(config.name.clone(), cluster);
            }
        }
        live
    }

    fn clusters(
        &self,
        snapshot: &Arc<Snapshot>,
        resolved: &Resolved,
        previous: &Live,
        problems: &mut Vec<Problem>,
    ) -> (NameMap<Arc<Cluster>>, Vec<Name>) {
        let (dirty, removed) = dirty_clusters(snapshot, resolved, previous);
        let mut failed = Vec::new();
        let mut clusters = previous.clusters.clone();
        removed.iter().for_each(|name| drop(clusters.remove(name)));
        for name in dirty {
            let Some(config) = snapshot.clusters.get(name) else { continue };
            let assignment = assignment(config, snapshot, resolved);
            match Cluster::build(config.clone(), assignment, &self.upstream, clusters.get(name)) {
                Ok(cluster) => drop(clusters.insert(name.clone(), cluster)),
                Err(reason) => {
                    problems.push(Problem { resource: name.clone(), reason });
                    failed.push(name.clone());
                }
            }
        }
        (clusters, failed)
    }

    fn listeners(
        &self,
        snapshot: &Snapshot,
        previous: &Live,
        problems: &mut Vec<Problem>,
    ) -> (NameMap<Arc<LiveListener>>, Vec<Name>) {
        let mut dirty: BTreeSet<&Name> = previous.failed_listeners.iter().collect();
        previous.source.listeners.differences(&snapshot.listeners, |name, _| dirty.extend([name]));
        let mut failed = Vec::new();
        let mut listeners = previous.listeners.clone();
        for name in dirty {
            let Some(config) = snapshot.listeners.get(name) else {
                listeners.remove(name);
                continue;
            };
            match self.listener(config, listeners.get(name)) {
                Ok(listener) => drop(listeners.insert(name.clone(), Arc::new(listener))),
                Err(reason) => {
                    problems.push(Problem { resource: name.clone(), reason });
                    failed.push(name.clone());
                }
            }
        }
        (listeners, failed)
    }

    fn listener(&self, config: &Arc<Listener>, before: Option<&Arc<LiveListener>>) -> Result<LiveListener, String> {
        let index = ChainIndex::new(&config.chains)?;
        let former = |c: &FilterChain| before?.chains.iter().find(|chain| chain.config.matches == c.matches);
        let chains = config.chains.iter().map(|c| self.chain(c, before, former(c))).collect::<Result<Vec<_>, _>>()?;
        let default = config.default_chain.as_ref();
        let former = before.and_then(|l| l.default_chain.as_ref());
        let default_chain = default.map(|c| self.chain(c, before, former)).transpose()?;
        Ok(LiveListener {
            index,
            terminates_tls: chains.iter().chain(&default_chain).any(|c| c.tls.is_some()),
            chains,
            default_chain,
            stats: self.registry.listener(&config.stat_prefix),
            open: before.map(|l| l.open.clone()).unwrap_or_default(),
            logs: self.logs(&config.access_log),
            config: config.clone(),
        })
    }

    /// Builds a chain, or takes over the former one with an equal configuration.
    /// `former` is its version before: its connections obey this one's filters.
    fn chain(
        &self,
        config: &Arc<FilterChain>,
        before: Option<&Arc<LiveListener>>,
        former: Option<&Arc<LiveChain>>,
    ) -> Result<Arc<LiveChain>, String> {
        let same = |chain: &&Arc<LiveChain>| Arc::ptr_eq(&chain.config, config) || chain.config == *config;
        if let Some(kept) = before.and_then(|l| l.all_chains().find(same)) {
            return Ok(kept.clone());
        }
        let standing = former.map(|chain| chain.standing.clone()).unwrap_or_default();
        let network = match former.filter(|chain| chain.config.filters == config.filters) {
            Some(chain) => chain.network.clone(),
            None => Arc::new(LiveNetwork::new(&config.filters, &self.registry, former.map(|chain| &**chain))),
        };
        // Where only who may do what differs, connections go on, and with them what they are counted and drained by.
        let kept = former.filter(|chain| chain.config.same_but_policy(config));
        let drain = kept.map(|chain| chain.drain.clone()).unwrap_or_default();
        let tls = match kept {
            Some(chain) => chain.tls.clone(),
            None => tls(config, &self.secrets)?,
        };
        let terminal = match kept.filter(|chain| chain.config.terminal == config.terminal) {
            Some(chain) => chain.terminal.clone(),
            None => self.terminal(config, &standing, former),
        };
        let strict_trial = (config.strict_trial && tls.is_none()).then(StrictTrial::default);
        let config = config.clone();
        let chain = Arc::new(LiveChain { config, tls, strict_trial, network, terminal, standing, drain });
        if former.is_none() {
            // Nobody came through it yet; later versions take effect with their publication.
            chain.enforce();
        }
        Ok(chain)
    }

    fn terminal(
        &self,
        config: &FilterChain,
        standing: &Arc<Standing>,
        former: Option<&Arc<LiveChain>>,
    ) -> LiveTerminal {
        let former = former.and_then(|chain| match &chain.terminal {
            LiveTerminal::Http(http) => http.inline_routes.as_ref(),
            LiveTerminal::Tcp(_) => None,
        });
        match &config.terminal {
            Terminal::Tcp(tcp) => LiveTerminal::Tcp(Arc::new(LiveTcp {
                stats: self.registry.tcp(&tcp.stat_prefix),
                mesh: self.reporting(tcp.istio_stats, || None),
                logs: self.logs(&tcp.access_log),
                config: tcp.clone(),
            })),
            Terminal::Http(hcm) => LiveTerminal::Http(Arc::new(LiveHcm {
                inline_routes: match &hcm.routes {
                    RouteSource::Inline(routes) => Some(Arc::new(self.table(routes, former))),
                    RouteSource::Rds { .. } => None,
                },
                stats: self.registry.http(&hcm.stat_prefix),
                mesh: self.reporting(hcm.istio_stats, || match &hcm.routes {
                    RouteSource::Inline(routes) => only_cluster(routes),
                    RouteSource::Rds { .. } => None,
                }),
                logs: self.logs(&hcm.access_log),
                tracing: hcm.tracing.as_ref().and_then(|config| {
                    let stats = || self.registry.tracing(&hcm.stat_prefix);
                    self.tracers.tracing(config, stats).map(Arc::new)
                }),
                filters: Arc::new({
                    let (own, before) = ((&*self.registry, &self.upstream.callers), standing.http());
                    LiveFilters::new(hcm, own, before.as_deref(), Instant::now()).explained_to(self.debug.clone())
                }),
                standing: standing.clone(),
                config: hcm.clone(),
            })),
        }
    }

    fn reporting(&self, wanted: Option<IstioStats>, cluster: impl FnOnce() -> Option<Name>) -> Option<Arc<Reporting>> {
        let IstioStats { host_fallback, tcp_interval } = wanted?;
        let (mesh, cluster) = (self.registry.mesh.clone(), cluster());
        Some(Arc::new(Reporting { mesh, host_fallback, tcp_interval, cluster }))
    }

    fn routes(&self, snapshot: &Snapshot, previous: &Live) -> NameMap<Arc<RouteTable>> {
        let mut routes = previous.routes.clone();
        previous.source.routes.differences(&snapshot.routes, |name, now| match now {
            Some(config) => {
                let table = self.table(config, routes.get(name));
                routes.insert(name.clone(), Arc::new(table));
            }
            None => drop(routes.remove(name)),
        });
        routes
    }

    fn table(&self, config: &Arc<RouteConfiguration>, previous: Option<&Arc<RouteTable>>) -> RouteTable {
        let stats: FindStats<'_> = &|name| self.registry.local_limits(name);
        let limits = RouteLimits::new(config, previous.map(|table| &table.limits), stats);
        RouteTable::limited(config.clone(), limits)
    }

    fn logs(&self, configs: &[AccessLog]) -> Arc<Loggers> {
        Arc::new(Loggers::new(configs.iter().map(|config| Logger::new(config, &self.sinks)).collect()))
    }
}

/// Builds what can fail of a snapshot without anything that outlives the call, for a check before the start.
pub fn check(snapshot: &Snapshot, secrets: &Arc<Secrets>) -> Vec<Problem> {
    let deps = Deps { secrets: secrets.clone(), ..Deps::default() };
    let listeners = snapshot.listeners.sorted().into_iter().map(|(name, config)| {
        let chains = config.chains.iter().chain(&config.default_chain);
        let index = ChainIndex::new(&config.chains).map(drop);
        (name, chains.fold(index, |result, chain| result.and_then(|()| tls(chain, secrets).map(drop))))
    });
    let mut seen = Vec::with_capacity(snapshot.clusters.len());
    let clusters = snapshot.clusters.sorted().into_iter().map(|(name, config)| {
        let endpoints = assignment(config, snapshot, &Resolved::default());
        // Kept until all are seen: what clusters have in common is read once.
        (name, Cluster::build(config.clone(), endpoints, &deps, None).map(|cluster| seen.push(cluster)))
    });
    let results = listeners.chain(clusters);
    results.filter_map(|(name, result)| Some(Problem { resource: name.clone(), reason: result.err()? })).collect()
}

fn tls(config: &FilterChain, secrets: &Arc<Secrets>) -> Result<Option<Arc<ServerContext>>, String> {
    let Some(tls) = &config.tls else { return Ok(None) };
    let context = ServerContext::new(tls.clone(), secrets.clone());
    context.map(Some).map_err(|e| format!("filter chain `{}`: {e}", config.name))
}

/// The clusters to build anew, and those that are gone.
fn dirty_clusters<'a>(
    snapshot: &'a Snapshot,
    resolved: &'a Resolved,
    previous: &'a Live,
) -> (BTreeSet<&'a Name>, Vec<&'a Name>) {
    let (mut dirty, mut removed) = (BTreeSet::new(), Vec::new());
    dirty.extend(previous.failed_clusters.iter().filter(|name| snapshot.clusters.contains_key(name)));
    previous.source.clusters.differences(&snapshot.clusters, |name, now| match now {
        Some(_) => dirty.extend([name]),
        None => removed.push(name),
    });
    // Who uses an EDS resource: the cluster of its name, and those that an index knows. Users that came or changed with
    // this very snapshot are in the difference already.
    previous.source.endpoints.differences(&snapshot.endpoints, |service, _| {
        let uses = |config: &Arc<ClusterConfig>| {
            matches!(&config.discovery, Discovery::Eds { service_name, .. } if service_name == service)
        };
        dirty.extend(snapshot.clusters.get(service).filter(|config| uses(config)).map(|_| service));
        dirty.extend(previous.services.get(service).into_iter().flat_map(|users| users.iter()));
    });
    if !Arc::ptr_eq(resolved, &previous.resolved) {
        let same = |name: &Name, is: &Arc<Assignment>| previous.resolved.get(name).is_some_and(|w| Arc::ptr_eq(w, is));
        dirty.extend(resolved.iter().filter(|(name, is)| !same(name, is)).map(|(name, _)| name));
        dirty.extend(previous.resolved.keys().filter(|name| !resolved.contains_key(*name)));
    }
    (dirty, removed)
}

/// The EDS resource of a cluster, if it has another name than the cluster.
fn service(config: &ClusterConfig) -> Option<&Name> {
    match &config.discovery {
        Discovery::Eds { service_name, .. } if *service_name != config.name => Some(service_name),
        _ => None,
    }
}

fn services(snapshot: &Snapshot, previous: &Live) -> NameMap<Arc<[Name]>> {
    let mut services = previous.services.clone();
    let mut set = |service: &Name, change: &dyn Fn(&mut BTreeSet<Name>)| {
        let mut users: BTreeSet<Name> = services.get(service).map(|u| u.iter().cloned().collect()).unwrap_or_default();
        change(&mut users);
        if users.is_empty() {
            services.remove(service);
        } else {
            services.insert(service.clone(), users.into_iter().collect());
        }
    };
    previous.source.clusters.differences(&snapshot.clusters, |name, now| {
        let was = previous.source.clusters.get(name).and_then(|config| service(config));
        let is = now.and_then(|config| service(config));
        if was != is {
            was.into_iter().for_each(|service| set(service, &|users| users.retain(|user| user != name)));
            is.into_iter().for_each(|service| set(service, &|users| users.extend([name.clone()])));
        }
    });
    services
}

/// The endpoints that are in force for a cluster, `None` when none are known (yet).
fn assignment(config: &ClusterConfig, snapshot: &Snapshot, resolved: &Resolved) -> Option<Arc<Assignment>> {
    match &config.discovery {
        Discovery::Static(assignment) => Some(assignment.clone()),
        Discovery::Eds { service_name, .. } => snapshot.endpoints.get(service_name).cloned(),
        Discovery::StrictDns(..) | Discovery::LogicalDns(..) => resolved.get(&config.name).cloned(),
        Discovery::OriginalDst { .. } => None,
    }
}
