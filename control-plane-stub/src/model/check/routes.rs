//! VirtualServices: destinations that exist, routes that make sense, hosts that are followed.

use std::collections::{HashMap, HashSet};

use super::{known_port, place};
use crate::model::{
    Destination, HttpRoute, Object, Problem, Retries, StringMatch, VirtualService,
    join::Declared,
    names::is_host,
    virtual_service::{L4Destination, for_mesh},
    world::{Cidr, World},
};

pub(super) fn check(world: &World, declared: &Declared, notes: &mut Vec<String>, problems: &mut Vec<Problem>) {
    for (_, object) in &declared.virtual_services {
        Report { world, object, problems }.virtual_service();
    }
    shadowed(world, notes);
    delegates(declared, notes);
}

/// Of several VirtualServices for a host, a sidecar follows one: Istio's rule, which an operator may not expect.
fn shadowed(world: &World, notes: &mut Vec<String>) {
    let mut owners: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, (visibility, object)) in world.virtual_services.iter().enumerate() {
        if !for_mesh(&object.spec.gateways) {
            continue;
        }
        for host in &object.spec.hosts {
            let others = owners.entry(host).or_default();
            let conflict = others.iter().map(|i| &world.virtual_services[*i]).find(|(v, _)| v.overlaps(visibility));
            if let Some((_, other)) = conflict {
                notes.push(format!(
                    "VirtualService {} for {host} is not followed where {} is seen too: the one with the narrower \
                     exportTo, then the older, then the first by name counts; merge the two",
                    place(object),
                    place(other)
                ));
            }
            others.push(index);
        }
    }
}

fn delegates(declared: &Declared, notes: &mut Vec<String>) {
    let mut named = HashSet::new();
    for (_, root) in &declared.virtual_services {
        let delegates = root.spec.http.iter().filter_map(|route| route.delegate.as_ref());
        named.extend(delegates.map(|d| (d.namespace.as_deref().unwrap_or(&root.meta.namespace), d.name.as_str())));
    }
    let orphan = |object: &&Object<VirtualService>| {
        object.spec.hosts.is_empty() && !named.contains(&(object.meta.namespace.as_str(), object.meta.name.as_str()))
    };
    let orphans = declared.virtual_services.iter().map(|(_, object)| object).filter(orphan);
    notes.extend(orphans.map(|object| {
        format!("VirtualService {} has no hosts, and none delegates to it: it has no effect", place(object))
    }));
}

pub(super) struct Report<'a> {
    pub world: &'a World,
    pub object: &'a Object<VirtualService>,
    pub problems: &'a mut Vec<Problem>,
}

impl Report<'_> {
    pub(super) fn problem(&mut self, path: impl AsRef<str>, reason: impl Into<String>) {
        self.problems.push(self.object.source.problem(path, reason));
    }

    fn virtual_service(&mut self) {
        let spec = &self.object.spec;
        if spec.hosts.is_empty() {
            self.delegate();
        }
        if spec.http.is_empty() && spec.tcp.is_empty() && spec.tls.is_empty() {
            self.problem("spec", "needs at least one route under http, tcp or tls");
        }
        for (index, host) in spec.hosts.iter().enumerate() {
            if !is_host(host) && host != "*" {
                self.problem(format!("spec.hosts[{index}]"), format!("`{host}` is not a DNS name"));
            }
            if host == "*" && for_mesh(&spec.gateways) {
                self.problem(
                    format!("spec.hosts[{index}]"),
                    "`*` is for gateways only: name the host, or give a wildcard such as *.example.com",
                );
            }
        }
        for (index, route) in spec.http.iter().enumerate() {
            self.http(&format!("spec.http[{index}]"), route);
        }
        for (index, route) in spec.tcp.iter().enumerate() {
            let path = format!("spec.tcp[{index}]");
            self.l4(&path, &route.route);
            for (m, condition) in route.matches.iter().enumerate() {
                self.subnets(&format!("{path}.match[{m}]"), &condition.destination_subnets);
            }
        }
        for (index, route) in spec.tls.iter().enumerate() {
            let path = format!("spec.tls[{index}]");
            self.l4(&path, &route.route);
            if route.matches.is_empty() {
                self.problem(format!("{path}.match"), "needs at least one match with sniHosts");
            }
            for (m, condition) in route.matches.iter().enumerate() {
                let path = format!("{path}.match[{m}]");
                self.subnets(&path, &condition.destination_subnets);
                if condition.sni_hosts.is_empty() {
                    self.problem(format!("{path}.sniHosts"), "needs at least one name");
                }
                for (h, host) in condition.sni_hosts.iter().enumerate() {
                    let covered = spec.hosts.iter().any(|own| crate::model::names::covers(own, host));
                    if !is_host(host) || !covered {
                        let reason = format!("`{host}` is not a DNS name that one of spec.hosts covers");
                        self.problem(format!("{path}.sniHosts[{h}]"), reason);
                    }
                }
            }
        }
    }

    fn subnets(&mut self, path: &str, subnets: &[String]) {
        for (index, text) in subnets.iter().enumerate() {
            if Cidr::parse(text).is_none() {
                let reason = format!("`{text}` is neither an IP address nor a prefix");
                self.problem(format!("{path}.destinationSubnets[{index}]"), reason);
            }
        }
    }

    fn l4(&mut self, path: &str, route: &[L4Destination]) {
        if route.is_empty() {
            self.problem(format!("{path}.route"), "needs at least one destination");
        }
        for (index, target) in route.iter().enumerate() {
            self.destination(&format!("{path}.route[{index}].destination"), &target.destination);
        }
        self.weights(path, route.len(), route.iter().map(|r| u64::from(r.weight)).sum());
    }

    fn weights(&mut self, path: &str, destinations: usize, sum: u64) {
        if destinations > 1 && sum == 0 {
            self.problem(format!("{path}.route"), "the weights of several destinations must not all be 0");
        }
        if sum > u64::from(u32::MAX) {
            self.problem(format!("{path}.route"), "the sum of the weights exceeds 32 bits");
        }
    }

    fn http(&mut self, path: &str, route: &HttpRoute) {
        let delegated = route.delegate.is_some();
        let actions = [!route.route.is_empty(), route.redirect.is_some(), route.direct_response.is_some(), delegated];
        if actions.iter().filter(|there| **there).count() != 1 {
            self.problem(path, "needs exactly one of route, redirect, directResponse, delegate");
        }
        if route.redirect.is_some() || route.direct_response.is_some() {
            let forwarding = [route.rewrite.is_some(), route.retries.is_some(), route.timeout.is_some()];
            if forwarding.contains(&true) || route.mirror.is_some() || !route.mirrors.is_empty() {
                let reason = "rewrite, retries, timeout and mirror need a route: there is nothing to send elsewhere";
                self.problem(path, reason);
            }
        }
        if route.retries.as_ref().is_some_and(Retries::is_idle) {
            let reason = "attempts is missing or 0, which switches retries off: give attempts, or remove the rest";
            self.problem(format!("{path}.retries.attempts"), reason);
        }
        self.traffic(path, route);
        for (index, target) in route.route.iter().enumerate() {
            let path = format!("{path}.route[{index}]");
            self.destination(&format!("{path}.destination"), &target.destination);
            self.headers(&path, &target.headers);
        }
        let weights = route.route.iter().map(|r| u64::from(r.weight.unwrap_or(0)));
        self.weights(path, route.route.len(), weights.sum());
        self.headers(path, &route.headers);
        self.elsewhere(path, route);
        for (index, condition) in route.matches.iter().enumerate() {
            let path = format!("{path}.match[{index}]");
            if condition
                .uri
                .as_ref()
                .is_some_and(|uri| matches!(uri, StringMatch::Exact(u) | StringMatch::Prefix(u) if !u.starts_with('/')))
            {
                self.problem(format!("{path}.uri"), "must start with /");
            }
            for (name, value) in &condition.query_params {
                if matches!(value, StringMatch::Prefix(text) if text.is_empty()) || name.is_empty() {
                    self.problem(format!("{path}.queryParams.{name}"), "must not be empty");
                }
            }
        }
    }

    /// Rewrites and redirects.
    fn elsewhere(&mut self, path: &str, route: &HttpRoute) {
        let mut texts = Vec::new();
        if let Some(rewrite) = &route.rewrite {
            texts.extend([("rewrite.uri", &rewrite.uri), ("rewrite.authority", &rewrite.authority)]);
            if rewrite.uri.is_some() && rewrite.uri_regex_rewrite.is_some() {
                self.problem(format!("{path}.rewrite"), "give uri or uriRegexRewrite, not both");
            }
            if rewrite.uri_regex_rewrite.as_ref().is_some_and(|regex| !regex.is_valid()) {
                let reason = r"after \ must come the number of a group of match, or \";
                self.problem(format!("{path}.rewrite.uriRegexRewrite.rewrite"), reason);
            }
        }
        if let Some(redirect) = &route.redirect {
            texts.extend([("redirect.uri", &redirect.uri), ("redirect.authority", &redirect.authority)]);
            if redirect.port.is_some() && redirect.derive_port.is_some() {
                self.problem(format!("{path}.redirect"), "give port or derivePort, not both");
            }
            if redirect.scheme.as_deref().is_some_and(|s| s != "http" && s != "https") {
                self.problem(format!("{path}.redirect.scheme"), "must be http or https");
            }
        }
        for (field, text) in texts {
            if text.as_ref().is_some_and(|text| text.is_empty() || http::HeaderValue::from_str(text).is_err()) {
                self.problem(format!("{path}.{field}"), "must not be empty nor hold control characters");
            }
        }
    }

    fn headers(&mut self, path: &str, headers: &crate::model::Headers) {
        for (direction, operations) in headers.operations() {
            let host = |name: &str| name.eq_ignore_ascii_case("host") || name == ":authority";
            let names =
                operations.add.0.keys().map(|n| ("add", n)).chain(operations.remove.iter().map(|n| ("remove", n)));
            let set = operations.set.0.keys().filter(|_| direction == "response").map(|n| ("set", n));
            for (operation, name) in names.chain(set) {
                let path = format!("{path}.headers.{direction}.{operation}");
                if host(name) {
                    self.problem(path, "the host can only be changed by headers.request.set or rewrite.authority");
                } else if crate::model::scalars::header_name(name).is_err() {
                    self.problem(path, format!("`{name}` is not a header name"));
                }
            }
        }
    }

    /// Without hosts it is the delegate of another, which says for whom and when.
    fn delegate(&mut self) {
        let spec = &self.object.spec;
        if !spec.tcp.is_empty() || !spec.tls.is_empty() || !spec.gateways.is_empty() {
            self.problem("spec.hosts", "needs at least one host: a delegate has nothing but http routes");
        }
        for (index, route) in spec.http.iter().enumerate() {
            let path = format!("spec.http[{index}]");
            if route.delegate.is_some() {
                self.problem(format!("{path}.delegate"), "a delegate must not delegate again");
            }
            for (m, condition) in route.matches.iter().enumerate() {
                let sources = !condition.source_labels.is_empty()
                    || condition.source_namespace.is_some()
                    || !condition.gateways.is_empty();
                if sources {
                    let reason = "sourceLabels, sourceNamespace and gateways belong to the route that delegates";
                    self.problem(format!("{path}.match[{m}]"), reason);
                }
            }
        }
    }

    /// The host must be a known service, the subset one of its DestinationRule, the port one of its ports.
    pub(super) fn destination(&mut self, path: &str, destination: &Destination) {
        let Destination { host, subset, port } = destination;
        let namespace = &self.object.meta.namespace;
        let Some(service) = self.world.services.get(host) else {
            let reason = format!(
                "no Service or ServiceEntry declares {host}: correct the name (a short name means namespace \
                 {namespace}; other namespaces need name.namespace.svc.{}), or declare it",
                self.world.settings.cluster_domain
            );
            return self.problem(format!("{path}.host"), reason);
        };
        if !service.visibility.includes(namespace) {
            let reason = format!("{host} is not exported to namespace {namespace}");
            self.problem(format!("{path}.host"), reason);
        }
        if let Some(name) = subset
            && !self.world.has_subset(namespace, host, name)
        {
            let reason = format!("no DestinationRule that {namespace} sees for {host} has a subset {name}: add it");
            self.problem(format!("{path}.subset"), reason);
        }
        match port {
            Some(port) => {
                if let Err(reason) = known_port(service, port.number) {
                    self.problem(format!("{path}.port.number"), reason);
                }
            }
            None if service.ports.len() > 1 && !self.ports_agree(service) => {
                let reason = format!("{host} has several ports: say which, none of them is that of the routed host");
                self.problem(format!("{path}.port"), reason);
            }
            None => {}
        }
    }

    /// Without a port, the port that the client called counts: it must exist at the destination.
    fn ports_agree(&self, service: &crate::model::Service) -> bool {
        let hosts = self.object.spec.hosts.iter().filter_map(|host| self.world.services.get(host));
        let mut ports = hosts.flat_map(|s| &s.ports).peekable();
        ports.peek().is_none() || ports.any(|port| service.port(port.number).is_some())
    }
}
