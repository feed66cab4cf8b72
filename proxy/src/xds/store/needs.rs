//! What a resource refers to: the edges along which warming and subscriptions run.

use std::{collections::BTreeSet, sync::Arc};

use super::super::decode::Resource;
use crate::ir::{
    ConfigSource, Name,
    cluster::{Cluster, Discovery},
    ext_authz::AuthzPerRoute,
    filters::{Overrides, Setting},
    http::RouteSource,
    listener::{Listener, Terminal},
    network::NetworkFilterKind,
    route::{Action, RouteConfiguration, Target},
    secret::{CertificateSource, CommonTls, SecretRef, ValidationSource},
};

#[cfg(test)]
#[path = "needs_tests.rs"]
mod tests;

/// The references of one resource, each once and in order; as small as can be, for there is one per cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) endpoints: Box<[(Name, ConfigSource)]>,
    pub(super) secrets: Box<[SecretRef]>,
    pub(super) routes: Box<[(Name, ConfigSource)]>,
    pub(super) clusters: Box<[Name]>,
}

impl Needs {
    /// `None` when there are none.
    pub(super) fn of(resource: &Resource) -> Option<Box<Self>> {
        let mut needs = Collected::default();
        match resource {
            Resource::Cluster(cluster) => needs.cluster(cluster),
            Resource::Listener(listener) => needs.listener(listener),
            Resource::Routes { routes, .. } => needs.route_configuration(routes),
            Resource::Endpoints { .. } | Resource::Secret { .. } => {}
        }
        let needs = Self {
            endpoints: needs.endpoints.into_iter().collect(),
            secrets: needs.secrets.into_iter().collect(),
            routes: needs.routes.into_iter().collect(),
            clusters: needs.clusters.into_iter().collect(),
        };
        (needs != Self::default()).then(|| Box::new(needs))
    }
}

#[derive(Default)]
struct Collected {
    endpoints: BTreeSet<(Name, ConfigSource)>,
    secrets: BTreeSet<SecretRef>,
    routes: BTreeSet<(Name, ConfigSource)>,
    clusters: BTreeSet<Name>,
}

impl Collected {
    fn cluster(&mut self, cluster: &Cluster) {
        if let Discovery::Eds { service_name, source } = &cluster.discovery {
            self.endpoints.insert((service_name.clone(), source.clone()));
        }
        let matches = cluster.transport_matches.iter().filter_map(|m| m.tls.as_ref());
        for tls in cluster.tls.iter().chain(matches) {
            self.tls(&tls.common);
        }
    }

    fn listener(&mut self, listener: &Listener) {
        for chain in listener.chains.iter().chain(&listener.default_chain) {
            if let Some(tls) = &chain.tls {
                self.tls(&tls.common);
            }
            let asked = chain.filters.iter().filter_map(|filter| match &filter.kind {
                NetworkFilterKind::RateLimit(limit) => Some(limit.service.cluster.clone()),
                NetworkFilterKind::Rbac(_) | NetworkFilterKind::LocalRateLimit(_) => None,
            });
            self.clusters.extend(asked);
            match &chain.terminal {
                Terminal::Tcp(tcp) => self.clusters.extend(tcp.targets.iter().map(|t| t.cluster.clone())),
                Terminal::Http(http) => {
                    self.clusters.extend(http.filters.iter().flat_map(|f| f.kind.clusters()).cloned());
                    match &http.routes {
                        RouteSource::Inline(routes) => self.route_configuration(routes),
                        RouteSource::Rds { name, source } => drop(self.routes.insert((name.clone(), source.clone()))),
                    }
                }
            }
        }
    }

    /// The services that filters ask for one level of a route.
    fn overrides(&mut self, overrides: &Option<Arc<Overrides>>) {
        for one in overrides.iter().flat_map(|o| &o.filters) {
            if let Setting::ExtAuthz(authz) = &one.setting
                && let AuthzPerRoute::Check(check) = &**authz
            {
                self.clusters.extend(check.service.as_ref().map(|service| service.cluster().clone()));
            }
        }
    }

    fn route_configuration(&mut self, routes: &RouteConfiguration) {
        self.overrides(&routes.overrides);
        routes.virtual_hosts.iter().for_each(|host| self.overrides(&host.overrides));
        for route in routes.virtual_hosts.iter().flat_map(|v| &v.routes) {
            self.overrides(&route.overrides);
            let Action::Forward(forward) = &route.action else { continue };
            match &forward.target {
                Target::Cluster(name) => drop(self.clusters.insert(name.clone())),
                Target::Weighted(targets) => {
                    targets.iter().for_each(|target| self.overrides(&target.overrides));
                    let named = targets.iter().filter(|t| t.cluster_header.is_none());
                    self.clusters.extend(named.map(|t| t.cluster.clone()));
                }
                // Known only per request.
                Target::Header(_) => {}
            }
            self.clusters.extend(forward.mirrors.iter().filter_map(|m| m.target.cluster()).cloned());
        }
    }

    fn tls(&mut self, tls: &CommonTls) {
        for certificate in &tls.certificates {
            if let CertificateSource::Sds(secret) = certificate {
                self.secrets.insert(secret.clone());
            }
        }
        match &tls.validation {
            ValidationSource::Sds(secret) | ValidationSource::Combined { secret, .. } => {
                self.secrets.insert(secret.clone());
            }
            ValidationSource::None | ValidationSource::Static(_) => {}
        }
    }
}
