//! What the sidecar of the called workload makes of a request: mutual TLS, tokens, and who may do what.
//!
//! Decides by the filters that [`crate::translate`] sends to that workload and the proxy's own code; the documents are
//! only asked for what a rule lacks.

mod guards;
mod report;
mod rules;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use outrigger_proxy::{
    ir::{Metadata, listener::Transport},
    policy::{
        chain::ChainFacts,
        rbac::{Decision, Facts, PeerInfo, decide},
        router::RequestFacts,
    },
};
use outrigger_wire::pb::envoy::config::listener::v3 as listener;
use serde_json::{Map, Value};

use self::guards::{Guard, Guards};
pub use self::report::{Access, MutualTls, RuleReport, Verdict};
use super::{Explanation, Kind, Request, RouteTaken, decide as by_proxy, read};
use crate::{
    model::{Locality, Mode, Workload, World},
    resources::{ClientKind, Node},
    translate,
};

/// Who calls, as far as it does not follow from the client.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// `spiffe://...`, where it is not that of the client's service account.
    pub principal: Option<String>,
    pub address: Option<IpAddr>,
    /// No mutual TLS, whatever the client would do.
    pub plaintext: bool,
    /// Of a valid token.
    pub claims: Map<String, Value>,
}

/// A call that has arrived at an endpoint.
pub(super) struct Call<'a> {
    pub client: &'a Node,
    pub request: &'a Request,
    pub at: SocketAddr,
    pub mutual_tls: bool,
    pub http: bool,
    pub server_name: String,
}

const NOT_ALLOWED: &str = "no ALLOW policy matches";

/// Endpoints beyond this many are not looked at.
const MAX_ENDPOINTS: usize = 64;

/// How each workload that the request may end at receives it.
pub(super) fn of_targets(
    world: &World,
    client: &Node,
    request: &Request,
    explanation: &mut Explanation,
) -> Result<(), String> {
    let http = explanation.protocol == "http" && request.kind == Kind::Http;
    let mut found: Vec<Access> = Vec::new();
    let ends = explanation.targets.iter().flat_map(|t| t.endpoints.iter().map(move |endpoint| (t, endpoint)));
    for (target, endpoint) in ends.take(MAX_ENDPOINTS) {
        // Names are for the resolver to find.
        let Ok(at) = endpoint.address.parse() else { continue };
        let mutual_tls = endpoint.mutual_tls && !request.caller.plaintext;
        let sni = target.host.as_deref().zip(target.port).filter(|_| mutual_tls);
        let sni = sni.map(|(host, port)| translate::sni(port, target.subset.as_deref(), host));
        let server_name = sni.or_else(|| request.server_name.clone()).unwrap_or_default();
        let call = Call { client, request, at, mutual_tls, http, server_name };
        let access = access(world, &call)?;
        match found.iter_mut().find(|other| other.is_like(&access)) {
            Some(same) => same.addresses.extend(access.addresses),
            None => found.push(access),
        }
    }
    let rewrites = |route: &RouteTaken| {
        ["prefix_rewrite", "regex_rewrite", "host_rewrite_literal"]
            .iter()
            .any(|name| route.wire["route"].get(name).is_some())
    };
    if !found.is_empty() && explanation.route.as_ref().is_some_and(rewrites) {
        explanation.notes.push("the route rewrites the request; policies were asked about it as it is sent".to_owned());
    }
    explanation.access = found;
    Ok(())
}

/// What happens to a call at its endpoint.
pub(super) fn access(world: &World, call: &Call<'_>) -> Result<Access, String> {
    let Some(workload) = world.at(call.at.ip()) else {
        return Ok(Access::unguarded(call.at, None, "the documents know no workload there"));
    };
    if !workload.meshed {
        return Ok(Access::unguarded(call.at, Some(workload), "no sidecar is with it: nobody asks who calls"));
    }
    let node = node(workload);
    let listener = translate::translate(world, &node).listeners;
    let any = listener.get("virtualInbound").ok_or("the called workload has no inbound listener")?;
    let listener: listener::Listener = read(&any.value, "virtualInbound")?;
    let mut access = Access::new(call.at, workload, mutual_tls(world, workload, call));
    let identity = call.mutual_tls.then(|| identity(world, call));
    access.caller.clone_from(&identity);
    let Some(chain) = chain(&listener, call)? else {
        let why = if call.mutual_tls { "takes no mutual TLS" } else { "takes nothing but mutual TLS" };
        access.close(format!("the port {why}"));
        return Ok(access);
    };
    if access.mutual_tls.tried == Some(Mode::Strict) && !call.mutual_tls {
        access.dry_run.push("STRICT would refuse it: the caller has no certificate".to_owned());
    }
    let guards = guards::of(&listener.filter_chains[chain])?;
    walk(world, call, &guards, identity.as_deref(), &mut access);
    let seen = Seen::new(call, &guards, identity.as_deref()).with_token(&guards);
    rules::report(world, &node, &seen, &mut access)?;
    Ok(access)
}

fn node(workload: &Workload) -> Node {
    Node {
        // Its own name tells it from others at its address.
        id: format!("sidecar~0.0.0.0~{}.{}~outriggerctl", workload.name, workload.namespace),
        kind: ClientKind::Outrigger,
        namespace: workload.namespace.clone(),
        service_account: workload.service_account.clone(),
        ips: workload.addresses.iter().filter_map(crate::model::Address::ip).collect(),
        labels: workload.labels.clone(),
        locality: Locality::default(),
    }
}

fn identity(world: &World, call: &Call<'_>) -> String {
    let own = || world.settings.identity(&call.client.namespace, &call.client.service_account);
    match &call.request.caller.principal {
        Some(principal) if principal.starts_with("spiffe://") => principal.clone(),
        Some(principal) => format!("spiffe://{principal}"),
        None => own(),
    }
}

fn mutual_tls(world: &World, workload: &Workload, call: &Call<'_>) -> MutualTls {
    let port = call.at.port();
    let of = |dry_run| world.peer_authentication(&workload.namespace, &workload.labels, dry_run);
    let (chosen, tried) = (of(false), of(true));
    let (mode, would_be) = (chosen.policy().of(port), tried.policy().of(port));
    MutualTls {
        mode,
        decided_by: chosen.decides(port).map(report::place),
        used: call.mutual_tls,
        tried: (mode != would_be).then_some(would_be),
    }
}

fn source(call: &Call<'_>) -> SocketAddr {
    let known = call.request.caller.address.or(call.client.ips.first().copied());
    SocketAddr::new(known.unwrap_or(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1))), 1024)
}

/// The place of the chain that takes the call.
fn chain(listener: &listener::Listener, call: &Call<'_>) -> Result<Option<usize>, String> {
    let alpn: &[&str] = match (call.mutual_tls, call.http) {
        (true, true) => &["istio-http/1.1", "istio-h2", "istio"],
        (true, false) => &["istio"],
        (false, true) => &["http/1.1"],
        (false, false) => &[],
    };
    let alpn: Vec<Box<str>> = alpn.iter().map(|name| (*name).into()).collect();
    let tls = call.mutual_tls || call.request.kind == Kind::Tls;
    let facts = ChainFacts {
        destination: call.at,
        server_name: Some(call.server_name.as_str()).filter(|name| tls && !name.is_empty()),
        transport: if tls { Transport::Tls } else { Transport::RawBuffer },
        alpn: &alpn,
        direct_source: source(call).ip(),
        source: source(call),
    };
    by_proxy::chain(listener, &facts)
}

/// The facts of a call, as the proxy would have them.
struct Seen<'a> {
    call: &'a Call<'a>,
    peer: Option<PeerInfo>,
    path: String,
    authority: String,
    metadata: Metadata,
}

impl<'a> Seen<'a> {
    fn new(call: &'a Call<'a>, guards: &Guards, identity: Option<&str>) -> Self {
        let peer = identity.map(|uri| PeerInfo { verified: true, uri_sans: vec![uri.into()], ..PeerInfo::default() });
        let path = guards.normalized(&call.request.path);
        Self { call, peer, path, authority: call.request.authority(), metadata: Metadata::default() }
    }

    fn facts(&self) -> Facts<'_> {
        let Request { method, scheme, headers, .. } = self.call.request;
        let (path, authority) = (self.path.as_str(), self.authority.as_str());
        let http =
            RequestFacts { authority, path, method, scheme, headers, certificate: Default::default(), random: 0 };
        Facts {
            tls: self.peer.as_ref(),
            local: self.call.at,
            peer: source(self.call),
            client: source(self.call),
            server_name: &self.call.server_name,
            http: self.call.http.then_some(http),
            dynamic: Some(&self.metadata),
            route: None,
        }
    }

    /// With the claims of the call's token, if `guards` check tokens and know its issuer.
    fn with_token(mut self, guards: &Guards) -> Self {
        for guard in &guards.all {
            if let Guard::Tokens(tokens) = guard
                && let Ok(Some(payload)) = guards::token(tokens, &self.call.request.caller.claims)
            {
                self.metadata.insert("envoy.filters.http.jwt_authn".to_owned(), payload);
            }
        }
        self
    }
}

/// Goes through the filters in their order, until one refuses.
fn walk(world: &World, call: &Call<'_>, guards: &Guards, identity: Option<&str>, access: &mut Access) {
    let mut seen = Seen::new(call, guards, identity);
    let mut asked: Option<String> = None;
    for guard in &guards.all {
        match guard {
            Guard::Tokens(tokens) => match guards::token(tokens, &call.request.caller.claims) {
                Ok(Some(payload)) => {
                    seen.metadata.insert("envoy.filters.http.jwt_authn".to_owned(), payload);
                }
                Ok(None) => {}
                Err(reason) => return access.deny(reason, None),
            },
            Guard::Provider(cluster) => {
                if let Some(policy) = asked.take() {
                    access.asked.push(format!("{cluster}, for {}", report::name(world, &policy)));
                }
            }
            Guard::Rbac(rbac) => {
                let facts = seen.facts();
                if let Some(shadow) = &rbac.shadow {
                    let decision = decide(shadow, &facts);
                    match &*rbac.shadow_prefix {
                        "istio_ext_authz_" => asked = decision.policy.map(|name| name.to_string()),
                        "" => {}
                        _ => access.dry_run.push(would(world, decision)),
                    }
                }
                let Some(rules) = &rbac.rules else { continue };
                let decision = decide(rules, &facts);
                let by = decision.policy.map(|name| report::name(world, name));
                if decision.log == Some(true) {
                    access.audited.extend(by);
                } else if !decision.allowed {
                    let why = by.as_ref().map_or_else(|| NOT_ALLOWED.to_owned(), |by| format!("DENY by {by}"));
                    return access.deny(why, by);
                } else if let Some(by) = by {
                    access.allow(format!("ALLOW by {by}"), by);
                }
            }
        }
    }
    if !access.asked.is_empty() {
        access.verdict = Verdict::Asked;
    }
}

fn would(world: &World, decision: Decision<'_>) -> String {
    let by = decision.policy.map(|name| report::name(world, name));
    match (decision.allowed, by) {
        (true, Some(by)) => format!("would be allowed by {by}"),
        (true, None) => "would not be denied".to_owned(),
        (false, Some(by)) => format!("would be denied by {by}"),
        (false, None) => "would be denied: no ALLOW policy that is tried matches".to_owned(),
    }
}
