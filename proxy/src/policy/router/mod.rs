//! Which virtual host and route a request takes, and which of a route's clusters.
//!
//! Follows Envoy's order: exact host, longest `*.suffix`, longest `prefix.*`, `*`; then the first route that matches.
//! Pure: the random draw comes in with the facts, so a decision can be replayed.

mod hosts;
mod matches;
pub use matches::{cookie, header as header_matches, joined as header_value};
#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};

use super::rate_limit::limits::RouteLimits;
use crate::ir::route::{Route, RouteConfiguration, RouteMatch, Target, VirtualHost, WeightedTarget};

/// What a routing decision may look at.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// `:authority` or `Host`, as sent.
    pub authority: &'a str,
    /// Path with query; empty for a plain CONNECT.
    pub path: &'a str,
    pub method: &'a Method,
    pub scheme: &'a str,
    pub headers: &'a HeaderMap,
    pub certificate: ClientCertificate,
    /// Uniform draw for fractions.
    pub random: u64,
}

/// What is known of the certificate of a connection's client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    pub presented: bool,
    /// In this connection's own handshake: as in Envoy a resumed session validates nothing.
    pub validated: bool,
}

/// A compiled route configuration.
#[derive(Debug)]
pub struct RouteTable {
    pub config: Arc<RouteConfiguration>,
    /// Header values look at what is else noted for access logs only.
    pub looks_at_notes: bool,
    /// Rate limits of its levels.
    pub limits: RouteLimits,
    hosts: hosts::HostIndex,
}

#[derive(Clone, Copy, Debug)]
pub struct Selected<'a> {
    pub virtual_host: &'a Arc<VirtualHost>,
    pub route: &'a Arc<Route>,
}

/// Why no route was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    NoVirtualHost,
    NoRoute,
}

impl RouteTable {
    pub fn new(config: Arc<RouteConfiguration>) -> Self {
        Self::limited(config, RouteLimits::default())
    }

    /// With the limits that the configuration has.
    pub fn limited(config: Arc<RouteConfiguration>, limits: RouteLimits) -> Self {
        let hosts = hosts::HostIndex::new(&config.virtual_hosts);
        Self { looks_at_notes: config.looks_at_notes(), config, limits, hosts }
    }

    /// The virtual host for an authority.
    pub fn virtual_host(&self, authority: &str) -> Option<&Arc<VirtualHost>> {
        let host = if self.config.ignore_port_in_host { ignoring_port(authority) } else { authority };
        let hosts = &self.config.virtual_hosts;
        self.hosts.find(hosts, host).map(|index| &hosts[index])
    }

    /// Decides virtual host and route.
    pub fn select(&self, facts: &RequestFacts<'_>) -> Result<Selected<'_>, Miss> {
        let virtual_host = self.virtual_host(facts.authority).ok_or(Miss::NoVirtualHost)?;
        let path = matches::PathFacts::new(facts);
        virtual_host
            .routes
            .iter()
            .find(|route| matches::route(&route.matches, facts, &path))
            .map(|route| Selected { virtual_host, route })
            .ok_or(Miss::NoRoute)
    }
}

/// Whether the match of a route, taken by itself, holds.
pub fn matches(rule: &RouteMatch, facts: &RequestFacts<'_>) -> bool {
    matches::route(rule, facts, &matches::PathFacts::new(facts))
}

/// The cluster a route forwards to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen<'a> {
    Cluster(&'a str),
    /// With the name of its cluster.
    Weighted(&'a WeightedTarget, &'a str),
}

impl<'a> Chosen<'a> {
    pub fn cluster(self) -> &'a str {
        match self {
            Self::Cluster(name) | Self::Weighted(_, name) => name,
        }
    }
}

/// Picks among a route's clusters; `None` when a `cluster_header` is absent or not text.
pub fn pick_target<'a>(target: &'a Target, headers: &'a HeaderMap, random: u64) -> Option<Chosen<'a>> {
    match target {
        Target::Cluster(name) => Some(Chosen::Cluster(name)),
        Target::Header(name) => named(name, headers).map(Chosen::Cluster),
        Target::Weighted(targets) => {
            let target = pick_weighted(targets, random)?;
            weighted_cluster(target, headers).map(|cluster| Chosen::Weighted(target, cluster))
        }
    }
}

/// The cluster of a weighted target; `None` when its `cluster_header` is absent or not text.
pub fn weighted_cluster<'a>(target: &'a WeightedTarget, headers: &'a HeaderMap) -> Option<&'a str> {
    match &target.cluster_header {
        Some(name) => named(name, headers),
        None => Some(&target.cluster),
    }
}

fn named<'a>(header: &HeaderName, headers: &'a HeaderMap) -> Option<&'a str> {
    headers.get(header).and_then(|v| v.to_str().ok()).filter(|v| !v.is_empty())
}

/// Picks by weight; `None` only for an empty or all-zero list.
pub fn pick_weighted(targets: &[WeightedTarget], random: u64) -> Option<&WeightedTarget> {
    let total: u64 = targets.iter().map(|t| u64::from(t.weight)).sum();
    if total == 0 {
        return None;
    }
    let mut draw = random % total;
    targets.iter().find(|t| {
        let weight = u64::from(t.weight);
        let hit = draw < weight;
        draw = draw.saturating_sub(weight);
        hit
    })
}

/// The authority without anything behind its last colon, as virtual hosts that ignore ports see it.
fn ignoring_port(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        _ => authority,
    }
}

/// The authority without its port; IPv6 literals keep their brackets.
pub fn strip_port(authority: &str) -> &str {
    match authority.rfind(':') {
        // A colon inside the brackets of `[::1]` is part of the address.
        Some(colon)
            if !authority[colon..].contains(']') && authority[colon + 1..].bytes().all(|b| b.is_ascii_digit()) =>
        {
            &authority[..colon]
        }
        _ => authority,
    }
}
