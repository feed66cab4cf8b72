//! What the parts of a bootstrap say about each other: streams to clusters, static secrets, routes to clusters.

use std::collections::{HashMap, HashSet};

use super::Bootstrap;
use crate::{
    ir::{
        ConfigSource,
        cluster::{Cluster, Discovery},
        ext_authz::AuthService,
        http::{FilterKind, RouteSource},
        listener::{FilterChain, Listener, Terminal},
        network::NetworkFilterKind,
        route::{Action, RouteConfiguration, Target},
        secret::{CertificateSource, CommonTls, SecretRef, ValidationSource},
    },
    xds::decode::{Reject, at::At},
};

struct Known<'a> {
    clusters: HashMap<&'a str, &'a Cluster>,
    secrets: HashSet<&'a str>,
    ads: bool,
    /// Whether clusters may still come.
    open: bool,
}

pub(super) fn check(bootstrap: &Bootstrap, at: &At<'_>) -> Result<(), Reject> {
    let known = Known {
        clusters: bootstrap.clusters.iter().map(|c| (&*c.name, &**c)).collect(),
        secrets: bootstrap.secrets.iter().map(|(name, _)| &**name).collect(),
        ads: bootstrap.dynamic.ads.is_some(),
        open: bootstrap.dynamic.cds.is_some(),
    };
    let dynamic = at.field("dynamic_resources");
    if let Some(ads) = &bootstrap.dynamic.ads {
        known.stream(&ads.cluster, &dynamic.field("ads_config"))?;
    }
    for (name, source) in [("lds_config", &bootstrap.dynamic.lds), ("cds_config", &bootstrap.dynamic.cds)] {
        match source {
            Some(ConfigSource::SelfSource) => return Err(dynamic.field(name).reject("`self` means nothing here")),
            Some(source) => known.source(source, &dynamic.field(name))?,
            None => {}
        }
    }
    let statics = at.field("static_resources");
    for (i, cluster) in bootstrap.clusters.iter().enumerate() {
        known.cluster(cluster, &statics.index("clusters", i))?;
    }
    for (i, listener) in bootstrap.listeners.iter().enumerate() {
        known.listener(listener, &statics.index("listeners", i))?;
    }
    Ok(())
}

impl Known<'_> {
    /// A cluster that carries configuration must be there before any configuration is.
    fn stream(&self, cluster: &str, at: &At<'_>) -> Result<(), Reject> {
        match self.clusters.get(cluster).map(|c| &c.discovery) {
            Some(Discovery::Eds { source: ConfigSource::Path { .. }, .. }) => Ok(()),
            Some(Discovery::Eds { .. } | Discovery::OriginalDst { .. }) => {
                let reason =
                    format!("cluster {cluster:?} must be STATIC, STRICT_DNS or LOGICAL_DNS to carry configuration");
                Err(at.reject(reason))
            }
            Some(_) => Ok(()),
            None => Err(at.reject(format!("cluster {cluster:?} is not one of the static clusters"))),
        }
    }

    fn source(&self, source: &ConfigSource, at: &At<'_>) -> Result<(), Reject> {
        match source {
            ConfigSource::Grpc { cluster, .. } => self.stream(cluster, at),
            ConfigSource::Ads if !self.ads => Err(at.reject("`ads` needs dynamic_resources.ads_config")),
            ConfigSource::SelfSource => Err(at.reject("`self` means nothing in a static resource")),
            _ => Ok(()),
        }
    }

    fn cluster(&self, cluster: &Cluster, at: &At<'_>) -> Result<(), Reject> {
        if let Discovery::Eds { source, .. } = &cluster.discovery {
            self.source(source, &at.field("eds_cluster_config"))?;
        }
        if let Some(tls) = &cluster.tls {
            self.tls(&tls.common, &at.field("transport_socket"))?;
        }
        for (i, matched) in cluster.transport_matches.iter().enumerate() {
            if let Some(tls) = &matched.tls {
                self.tls(&tls.common, &at.index("transport_socket_matches", i))?;
            }
        }
        Ok(())
    }

    fn listener(&self, listener: &Listener, at: &At<'_>) -> Result<(), Reject> {
        for (i, chain) in listener.chains.iter().enumerate() {
            self.chain(chain, &at.index("filter_chains", i))?;
        }
        match &listener.default_chain {
            Some(chain) => self.chain(chain, &at.field("default_filter_chain")),
            None => Ok(()),
        }
    }

    fn chain(&self, chain: &FilterChain, at: &At<'_>) -> Result<(), Reject> {
        if let Some(tls) = &chain.tls {
            self.tls(&tls.common, &at.field("transport_socket"))?;
        }
        let at = at.field("filters");
        for filter in &chain.filters {
            if let NetworkFilterKind::RateLimit(limit) = &filter.kind {
                self.asked(&limit.service.cluster, &at);
            }
        }
        match &chain.terminal {
            Terminal::Tcp(tcp) => tcp.targets.iter().for_each(|t| self.target(&t.cluster, &at)),
            Terminal::Http(http) => {
                for filter in &http.filters {
                    self.service(&filter.kind, &at.field("http_filters"))?;
                }
                match &http.routes {
                    RouteSource::Rds { source, .. } => self.source(source, &at)?,
                    RouteSource::Inline(routes) => self.routes(routes, &at.field("route_config"))?,
                }
            }
        }
        Ok(())
    }

    /// As Envoy: a gRPC service that can never be asked is an error; one over HTTP fails when it is asked.
    fn service(&self, filter: &FilterKind, at: &At<'_>) -> Result<(), Reject> {
        for cluster in filter.clusters().filter(|c| !self.open && !self.clusters.contains_key(&***c)) {
            match filter {
                FilterKind::RateLimit(_) => return Err(at.reject(format!("unknown gRPC client cluster {cluster:?}"))),
                FilterKind::ExtAuthz(config) if matches!(config.service, AuthService::Grpc(_)) => {
                    return Err(at.reject(format!("unknown gRPC client cluster {cluster:?}")));
                }
                _ => self.asked(cluster, at),
            }
        }
        Ok(())
    }

    /// As Envoy: an inline route to a cluster that can never exist is an error, a TCP proxy's target is not.
    fn routes(&self, routes: &RouteConfiguration, at: &At<'_>) -> Result<(), Reject> {
        let check = |cluster: &str| {
            let known = self.open || routes.unknown_clusters_allowed || self.clusters.contains_key(cluster);
            if known { Ok(()) } else { Err(at.reject(format!("unknown cluster {cluster:?}"))) }
        };
        for route in routes.virtual_hosts.iter().flat_map(|v| &v.routes) {
            let Action::Forward(forward) = &route.action else { continue };
            match &forward.target {
                Target::Cluster(name) => check(name)?,
                Target::Weighted(targets) => {
                    let named = targets.iter().filter(|t| t.cluster_header.is_none());
                    named.map(|t| &*t.cluster).try_for_each(check)?;
                }
                Target::Header(_) => {}
            }
            forward.mirrors.iter().filter_map(|m| m.target.cluster()).try_for_each(|name| check(name))?;
        }
        Ok(())
    }

    fn asked(&self, cluster: &str, at: &At<'_>) {
        if !self.open && !self.clusters.contains_key(cluster) {
            at.unsupported(format!("cluster {cluster:?} does not exist: nobody can be asked there"));
        }
    }

    fn target(&self, cluster: &str, at: &At<'_>) {
        if !self.open && !self.clusters.contains_key(cluster) {
            at.unsupported(format!("cluster {cluster:?} does not exist: its traffic is refused"));
        }
    }

    fn tls(&self, tls: &CommonTls, at: &At<'_>) -> Result<(), Reject> {
        for certificate in &tls.certificates {
            if let CertificateSource::Sds(secret) = certificate {
                self.secret(secret, at)?;
            }
        }
        match &tls.validation {
            ValidationSource::Sds(secret) | ValidationSource::Combined { secret, .. } => self.secret(secret, at),
            ValidationSource::None | ValidationSource::Static(_) => Ok(()),
        }
    }

    fn secret(&self, secret: &SecretRef, at: &At<'_>) -> Result<(), Reject> {
        if secret.source == ConfigSource::Static && !self.secrets.contains(&*secret.name) {
            return Err(at.reject(format!("unknown static secret: {:?}", secret.name)));
        }
        self.source(&secret.source, at)
    }
}
