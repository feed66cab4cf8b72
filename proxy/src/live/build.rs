//! From an [`ir`](crate::ir) snapshot to a [`Live`], reusing every part that did not change.
//!
//! A part that cannot be built (a listener whose inline certificate does not parse, say) keeps its predecessor and is
//! reported; the other parts of the same snapshot take effect.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{Live, LiveChain, LiveHcm, LiveListener, LiveTcp, LiveTerminal, Map};
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
pub(crate) type Resolved = HashMap<Name, Arc<Assignment>>;

impl Builder {
    /// Compiles `snapshot`. `resolved` holds what DNS answered so far.
    pub fn build(&self, snapshot: &Snapshot, resolved: &Resolved, previous: &Live) -> (Live, Vec<Problem>) {
        let mut problems = Vec::new();
        let assignments: Map<Arc<Assignment>> = snapshot
            .clusters
            .iter()
            .filter_map(|(name, config)| Some((name.clone(), assignment(config, snapshot, resolved)?)))
            .collect();
        let clusters = self.clusters(snapshot, &assignments, previous, &mut problems);
        let routes = snapshot
            .routes
            .iter()
            .map(|(name, config)| {
                let kept = previous.routes.get(name).filter(|table| Arc::ptr_eq(&table.config, config)).cloned();
                (name.clone(), kept.unwrap_or_else(|| Arc::new(RouteTable::new(config.clone()))))
            })
            .collect();
        let mut listeners: Map<Arc<LiveListener>> = Map::default();
        for (name, config) in &snapshot.listeners {
            let before = previous.listeners.get(name);
            if let Some(same) = before.filter(|l| Arc::ptr_eq(&l.config, config)) {
                listeners.insert(name.clone(), same.clone());
                continue;
            }
            match self.listener(config, before) {
                Ok(listener) => {
                    listeners.insert(name.clone(), Arc::new(listener));
                }
                Err(reason) => {
                    problems.push(Problem { resource: name.clone(), reason });
                    if let Some(before) = before {
                        listeners.insert(name.clone(), before.clone());
                    }
                }
            }
        }
        let by_address = listeners.values().flat_map(|l| l.config.addresses.iter().map(|a| (*a, l.clone()))).collect();
        (Live { version: snapshot.version, listeners, by_address, clusters, assignments, routes }, problems)
    }

    fn clusters(
        &self,
        snapshot: &Snapshot,
        assignments: &Map<Arc<Assignment>>,
        previous: &Live,
        problems: &mut Vec<Problem>,
    ) -> Map<Arc<Cluster>> {
        let mut clusters = Map::with_capacity_and_hasher(snapshot.clusters.len(), Default::default());
        for (name, config) in &snapshot.clusters {
            let before = previous.clusters.get(name);
            let assignment = assignments.get(name).cloned();
            let same_endpoints =
                previous.assignments.get(name).map(Arc::as_ptr) == assignment.as_ref().map(Arc::as_ptr);
            if let Some(same) = before.filter(|c| same_endpoints && Arc::ptr_eq(&c.config, config)) {
                clusters.insert(name.clone(), same.clone());
                continue;
            }
            match Cluster::build(config.clone(), assignment, &self.upstream, before) {
                Ok(cluster) => {
                    clusters.insert(name.clone(), cluster);
                }
                Err(reason) => {
                    problems.push(Problem { resource: name.clone(), reason });
                    if let Some(before) = before {
                        clusters.insert(name.clone(), before.clone());
                    }
                }
            }
        }
        clusters
    }

    fn listener(&self, config: &Arc<Listener>, before: Option<&Arc<LiveListener>>) -> Result<LiveListener, String> {
        let index = ChainIndex::new(&config.chains)?;
        let chains = config.chains.iter().map(|c| self.chain(c, before)).collect::<Result<Vec<_>, _>>()?;
        let default_chain = config.default_chain.as_ref().map(|c| self.chain(c, before)).transpose()?;
        Ok(LiveListener {
            index,
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
        if let Some(kept) = before.and_then(|l| l.chains.iter().chain(&l.default_chain).find(same)) {
            return Ok(kept.clone());
        }
        let tls = match &config.tls {
            None => None,
            Some(tls) => Some(
                ServerContext::new(tls.clone(), self.secrets.clone())
                    .map_err(|e| format!("filter chain `{}`: {e}", config.name))?,
            ),
        };
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
        Ok(Arc::new(LiveChain { config: config.clone(), tls, terminal, drain: drain::Source::default() }))
    }

    fn logs(&self, configs: &[AccessLog]) -> Arc<[Logger]> {
        configs.iter().map(|config| Logger::new(config, &self.sinks)).collect()
    }
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

impl Live {
    /// Chains of this configuration that `after` no longer has: their connections are to be drained.
    pub fn removed_chains(&self, after: &Live) -> Vec<Arc<LiveChain>> {
        let kept: HashSet<*const LiveChain> = after.all_chains().map(Arc::as_ptr).collect();
        self.all_chains().filter(|chain| !kept.contains(&Arc::as_ptr(chain))).cloned().collect()
    }

    fn all_chains(&self) -> impl Iterator<Item = &Arc<LiveChain>> {
        self.listeners.values().flat_map(|l| l.chains.iter().chain(&l.default_chain))
    }
}
