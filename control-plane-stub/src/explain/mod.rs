//! Which way a described request would take, and why: listener, chain, virtual host, route, cluster, policy, endpoints.
//!
//! Offline and pure. It looks at what [`crate::translate`] would send to the client, and leaves every decision to the
//! proxy's own code ([`decide`]), so that an explanation cannot say anything else than what happens. Knows nothing of
//! command lines.

mod access;
#[cfg(test)]
mod access_tests;
mod decide;
#[cfg(test)]
mod envoy_tests;
mod limits;
mod reach;
mod report;
mod routes;
mod targets;
#[cfg(test)]
mod task_tests;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

/// What asks a running proxy for its decisions.
pub use outrigger_proxy::policy::debug::{DebugKeys, LONGEST, Signed};
use outrigger_wire::pb::envoy::config::listener::v3 as listener;

pub use self::access::{Access, Caller, MutualTls, RuleReport, Verdict};
pub use self::report::{Client, Explanation, Outcome, Passed, RouteTaken, Target};
use crate::{
    model::World,
    resources::{Node, Resources},
    translate::{self, Sources},
};

/// What is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Http,
    Tcp,
    /// The application's own TLS.
    Tls,
}

/// A request or connection of which the way is asked.
#[derive(Clone, Debug)]
pub struct Request {
    pub kind: Kind,
    /// A name as the application writes it, or an address.
    pub host: String,
    pub port: u16,
    pub server_name: Option<String>,
    pub method: http::Method,
    pub scheme: String,
    pub path: String,
    /// `Host` or `:authority`; from host and port if none.
    pub authority: Option<String>,
    pub headers: http::HeaderMap,
    /// What the called side sees of the caller.
    pub caller: Caller,
}

impl Request {
    /// As HTTP clients write it: the port only where it is not the usual one.
    pub fn authority(&self) -> String {
        let bracketed = match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => self.host.clone(),
        };
        match (&self.authority, self.port, self.scheme.as_str()) {
            (Some(authority), ..) => authority.clone(),
            (None, 80, "http") | (None, 443, "https") => bracketed,
            (None, port, _) => format!("{bracketed}:{port}"),
        }
    }
}

/// The way of `request` from the client `node`. Fails only where what is sent cannot be read.
pub fn explain(world: &World, node: &Node, request: &Request) -> Result<Explanation, String> {
    let resources = translate::translate(world, node);
    let reached = reach::reach(world, node, request);
    let mut sources = translate::sources(world, node, reached.service.map(|s| s.host.as_str()));
    let mut explanation = Explanation::new(world, node, &reached, &sources);
    let (name, listener) = reach::listener(&resources, &reached)?;
    explanation.listener = name;
    let chain = reach::chain(&listener, &reached, request)?;
    let Some(chain) = chain else {
        explanation.outcome = Outcome::Closed;
        explanation.notes.push("no filter chain of the listener takes the connection".to_owned());
        return Ok(explanation);
    };
    match reach::end(chain)? {
        reach::End::Http(routes) => {
            explanation.protocol = "http";
            if request.kind != Kind::Http {
                explanation.notes.push("the port is HTTP: opaque bytes would be answered with 400".to_owned());
            }
            http(world, node, request, (&resources, &routes), &mut explanation, &mut sources)?;
        }
        reach::End::Tcp(proxy) => {
            explanation.protocol = "tcp";
            explanation.targets = targets::of_tcp(world, node, &resources, &proxy);
            explanation.outcome = outcome(&explanation.targets);
            let own = |t: &Target| t.subset.is_none() && t.host == explanation.service && t.port == Some(request.port);
            if let [only] = explanation.targets.as_slice()
                && own(only)
            {
                // Where it would go without any route.
                sources.virtual_service = None;
            }
        }
    }
    explanation.limits = limits::met(world, request, explanation.protocol == "http", &explanation.targets);
    if let Some(object) = sources.virtual_service {
        explanation.virtual_service = Some(object);
    }
    access::of_targets(world, node, request, &mut explanation)?;
    Ok(explanation)
}

fn http(
    world: &World,
    node: &Node,
    request: &Request,
    (resources, name): (&Resources, &str),
    explanation: &mut Explanation,
    sources: &mut Sources,
) -> Result<(), String> {
    let found = routes::route(resources, name, request)?;
    explanation.route_configuration = Some(name.to_owned());
    explanation.virtual_host.clone_from(&found.virtual_host);
    explanation.passed = found.passed;
    let by_name = found.virtual_host.as_deref().and_then(|name| name.rsplit_once(':')).map(|(host, _)| host);
    *sources = translate::sources(world, node, by_name);
    explanation.destination_host = by_name.map(str::to_owned);
    let named = |route: &RouteTaken| {
        let rules = by_name.and_then(|host| world.virtual_service(&node.namespace, host));
        rules.is_some_and(|o| o.spec.http.iter().any(|rule| rule.name.as_deref() == Some(route.name.as_str())))
    };
    if found.taken.as_ref().is_some_and(|route| route.name == translate::DEFAULT_ROUTE && !named(route)) {
        sources.virtual_service = None;
    }
    let Some(taken) = found.taken else {
        explanation.outcome = Outcome::NoRoute;
        return Ok(());
    };
    explanation.targets = targets::of_route(world, node, resources, &taken.wire);
    explanation.mirrors = targets::mirrors(world, node, resources, &taken.wire);
    explanation.outcome = match taken.wire.get("redirect").or(taken.wire.get("direct_response")) {
        Some(_) if taken.wire.get("redirect").is_some() => Outcome::Redirected,
        Some(answer) => Outcome::Answered { status: answer["status"].as_u64().unwrap_or_default() },
        None => outcome(&explanation.targets),
    };
    explanation.route = Some(taken);
    Ok(())
}

fn outcome(targets: &[Target]) -> Outcome {
    match targets {
        [only] if only.cluster == "BlackHoleCluster" => Outcome::Blocked,
        [only] if only.cluster == "PassthroughCluster" => Outcome::PassedThrough,
        _ => Outcome::Forwarded,
    }
}

/// Reads one message of what is sent.
fn read<M: prost::Message + Default>(bytes: &[u8], what: &str) -> Result<M, String> {
    M::decode(bytes).map_err(|e| format!("{what} cannot be read: {e}"))
}

type Listener = listener::Listener;
