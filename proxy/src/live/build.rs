//! From an [`ir`](crate::ir) snapshot to a [`Live`], reusing every part that did not change.
//!
//! Only what differs from the snapshot before is looked at, so an update of one endpoint costs one cluster however
//! many there are. A part that cannot be built (a listener whose inline certificate does not parse, say) keeps its
//! predecessor, is reported and tried again at the next build; the other parts of the same snapshot take effect.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{Addresses, Live, LiveChain, LiveHcm, LiveListener, LiveTcp, LiveTerminal, Map, diff::differences};
use crate::{
    drain,
    ir::{
        Name,
        cluster::{Cluster as ClusterConfig, Discovery},
        endpoint::Assignment,
        format::AccessLog,
        http::RouteSource,
        listener::{FilterChain, Listener, Terminal},
        snapshot::Snapshot,
    },
    policy::{chain::ChainIndex, router::RouteTable},
    telemetry::{
        access_log::{Logger, Sinks},
        registry::Registry,
    },
    tls::{Secrets, ServerContext},
    upstream::{Cluster, Deps},
};

/// What [`Builder::build`] needs besides the snapshot; lives as long as the process.
pub struct Builder {
    pub secrets: Arc<Secrets>,
    pub registry: Arc<Registry>,
    pub sinks: Arc<Sinks>,
    pub upstream: Deps,
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
        let addresses = if Arc::ptr_eq(&listeners, &previous.listeners) {
            previous.addresses.clone()
        } else {
            // In the order of names, so that a conflict is always decided the same way.
            Arc::new(Addresses::new(snapshot.listeners.keys().filter_map(|name| listeners.get(name))))
        };
        let live = Live {
            version: snapshot.version,
            source: snapshot.clone(),
            resolved: resolved.clone(),
            listeners,
            addresses,
            clusters,
            routes: routes(snapshot, previous),
            failed_clusters,
            failed_listeners,
        };
        (live, problems)
    }

    fn clusters(
        &self,
        snapshot: &Arc<Snapshot>,
        resolved: &Resolved,
        previous: &Live,
        problems: &mut Vec<Problem>,
    ) -> (Arc<Map<Arc<Cluster>>>, Vec<Name>) {
        let (dirty, removed) = dirty_clusters(snapshot, resolved, previous);
        if dirty.is_empty() && removed.is_empty() {
            return (previous.clusters.clone(), Vec::new());
        }
        let mut failed = Vec::new();
        let mut clusters = Map::clone(&previous.clusters);
        removed.iter().for_each(|name| drop(clusters.remove(*name)));
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
        (Arc::new(clusters), failed)
    }

    fn listeners(
        &self,
        snapshot: &Snapshot,
        previous: &Live,
        problems: &mut Vec<Problem>,
    ) -> (Arc<Map<Arc<LiveListener>>>, Vec<Name>) {
        let mut dirty: BTreeSet<&Name> = previous.failed_listeners.iter().collect();
        differences(&previous.source.listeners, &snapshot.listeners, |name, _| dirty.extend([name]));
        if dirty.is_empty() {
            return (previous.listeners.clone(), Vec::new());
        }
        let mut failed = Vec::new();
        let mut listeners = Map::clone(&previous.listeners);
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
        (Arc::new(listeners), failed)
    }

    fn listener(&self, config: &Arc<Listener>, before: Option<&Arc<LiveListener>>) -> Result<LiveListener, String> {
        let index = ChainIndex::new(&config.chains)?;
        let chains = config.chains.iter().map(|c| self.chain(c, before)).collect::<Result<Vec<_>, _>>()?;
        let default_chain = config.default_chain.as_ref().map(|c| self.chain(c, before)).transpose()?;
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
    fn chain(&self, config: &Arc<FilterChain>, before: Option<&Arc<LiveListener>>) -> Result<Arc<LiveChain>, String> {
        let same = |chain: &&Arc<LiveChain>| Arc::ptr_eq(&chain.config, config) || chain.config == *config;
        if let Some(kept) = before.and_then(|l| l.all_chains().find(same)) {
            return Ok(kept.clone());
        }
        let tls = tls(config, &self.secrets)?;
        let terminal = match &config.terminal {
            Terminal::Tcp(tcp) => LiveTerminal::Tcp(Arc::new(LiveTcp {
                stats: self.registry.tcp(&tcp.stat_prefix),
                logs: self.logs(&tcp.access_log),
                config: tcp.clone(),
            })),
            Terminal::Http(hcm) => LiveTerminal::Http(Arc::new(LiveHcm {
                inline_routes: match &hcm.routes {
                    RouteSource::Inline(routes) => Some(Arc::new(RouteTable::new(routes.clone()))),
                    RouteSource::Rds { .. } => None,
                },
                stats: self.registry.http(&hcm.stat_prefix),
                logs: self.logs(&hcm.access_log),
                config: hcm.clone(),
            })),
        };
        Ok(Arc::new(LiveChain { config: config.clone(), tls, terminal, drain: Arc::new(drain::Source::default()) }))
    }

    fn logs(&self, configs: &[AccessLog]) -> Arc<[Logger]> {
        configs.iter().map(|config| Logger::new(config, &self.sinks)).collect()
    }
}

/// Builds what can fail of a snapshot without anything that outlives the call, for a check before the start.
pub fn check(snapshot: &Snapshot, secrets: &Arc<Secrets>) -> Vec<Problem> {
    let deps = Deps { secrets: secrets.clone() };
    let listeners = snapshot.listeners.iter().map(|(name, config)| {
        let chains = config.chains.iter().chain(&config.default_chain);
        let index = ChainIndex::new(&config.chains).map(drop);
        (name, chains.fold(index, |result, chain| result.and_then(|()| tls(chain, secrets).map(drop))))
    });
    let clusters = snapshot.clusters.iter().map(|(name, config)| {
        let endpoints = assignment(config, snapshot, &Resolved::default());
        (name, Cluster::build(config.clone(), endpoints, &deps, None).map(drop))
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
    resolved: &Resolved,
    previous: &'a Live,
) -> (BTreeSet<&'a Name>, Vec<&'a Name>) {
    let (mut dirty, mut removed) = (BTreeSet::new(), Vec::new());
    dirty.extend(previous.failed_clusters.iter().filter(|name| snapshot.clusters.contains_key(*name)));
    differences(&previous.source.clusters, &snapshot.clusters, |name, now| match now {
        Some(_) => dirty.extend([name]),
        None => removed.push(name),
    });
    let mut endpoints: HashSet<&Name, foldhash::fast::RandomState> = HashSet::default();
    differences(&previous.source.endpoints, &snapshot.endpoints, |name, _| endpoints.extend([name]));
    let names_changed = !Arc::ptr_eq(resolved, &previous.resolved);
    if endpoints.is_empty() && !names_changed {
        return (dirty, removed);
    }
    let address = |answers: &Resolved, name: &Name| answers.get(name).map(Arc::as_ptr);
    for (name, config) in &snapshot.clusters {
        let changed = match &config.discovery {
            Discovery::Eds { service_name, .. } => !endpoints.is_empty() && endpoints.contains(service_name),
            Discovery::StrictDns(..) | Discovery::LogicalDns(..) => {
                names_changed && address(resolved, name) != address(&previous.resolved, name)
            }
            Discovery::Static(_) | Discovery::OriginalDst { .. } => false,
        };
        if changed {
            dirty.insert(name);
        }
    }
    (dirty, removed)
}

fn routes(snapshot: &Snapshot, previous: &Live) -> Arc<Map<Arc<RouteTable>>> {
    let mut changed = Vec::new();
    differences(&previous.source.routes, &snapshot.routes, |name, now| changed.push((name, now)));
    if changed.is_empty() {
        return previous.routes.clone();
    }
    let mut routes = Map::clone(&previous.routes);
    for (name, now) in changed {
        match now {
            Some(config) => drop(routes.insert(name.clone(), Arc::new(RouteTable::new(config.clone())))),
            None => drop(routes.remove(name)),
        }
    }
    Arc::new(routes)
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
