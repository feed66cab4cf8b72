//! What a connection, and a request on it, would come to, and why: the phases of [`super::serve`] over a description.
//!
//! Decided by the functions that decide on real connections; nothing is dialled, counted or taken. Invariant: no
//! decision is made here.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Instant, SystemTime},
};

use http::{Version, request::Parts};
use serde_json::{Value, json};

use super::rbac;
use crate::{
    ir::{
        cluster::Discovery,
        listener::{Direction, Transport},
    },
    l7,
    live::{Claim, Live, LiveChain, LiveListener, LiveNetwork, LiveNetworkFilter, LiveTcp, LiveTerminal, Publisher},
    policy::{
        chain::{ChainFacts, lack},
        router::pick_weighted,
    },
    telemetry::record::{ConnInfo, PeerInfo},
    tls::Client,
    upstream::{Cluster, PickContext, lb::hash::of_ip, uptime},
};

/// Hosts of a cluster that are listed.
const MOST_HOSTS: usize = 128;

/// A connection somebody asks about.
pub struct Question {
    /// Else the one that has, or captures, the destination.
    pub listener: Option<String>,
    /// Which capturing listener, where no listener has the destination.
    pub direction: Direction,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub tls: bool,
    pub server_name: Option<Box<str>>,
    /// Offered protocols.
    pub alpn: Vec<Box<str>>,
    /// SPIFFE ID, or another URI name, of the peer's certificate.
    pub principal: Option<Box<str>>,
    /// `None`: what is sent is not HTTP.
    pub request: Option<Parts>,
}

/// Everything that would be decided, and the outcome.
pub fn explain(publisher: &Arc<Publisher>, question: Question) -> Value {
    let live = publisher.current();
    let Some((bound, original_dst)) = accepting(&live, &question) else {
        return json!({"outcome": refused("no listener has or captures this destination")});
    };
    let listener = match original_dst {
        Some(dst) if bound.config.use_original_dst => live.hand_off(dst).unwrap_or(bound),
        _ => bound,
    };
    let mut report = json!({"listener": {
        "name": *listener.config.name,
        "accepted_by": *bound.config.name,
        "direction": format!("{:?}", listener.config.direction).to_uppercase(),
        "original_destination": original_dst.map(|dst| dst.to_string()),
    }});
    let limit = listener.config.connection_limit;
    if limit.is_some_and(|limit| listener.open.load(Ordering::Relaxed) >= limit) {
        report["outcome"] = refused("the listener's connection limit is reached");
        return report;
    }
    let (transport, server_name, alpn) = sniffed(listener, &question);
    let facts = ChainFacts {
        destination: question.destination,
        server_name,
        transport,
        alpn: &alpn,
        direct_source: question.source.ip(),
        source: question.source,
    };
    let Some(chain) = listener.choose(&facts) else {
        let lack = lack(&listener.config.chains, &facts);
        report["outcome"] = refused(&format!("filter_chain_not_found: {lack:?}"));
        return report;
    };
    report["filter_chain"] = json!({
        "name": *chain.config.name,
        "tls": chain.tls.is_some(),
        "transport": if transport == Transport::Tls { "tls" } else { "raw_buffer" },
        "alpn": alpn,
    });
    if chain.tls.is_some() && !question.tls {
        report["outcome"] = refused("downstream_transport_failure: the chain asks for TLS");
        return report;
    }
    let client = match (&chain.tls, question.tls) {
        (Some(context), _) => match context.foretell(question.principal.as_deref()) {
            Ok(client) => client,
            Err(reason) => {
                report["outcome"] = refused(&format!("downstream_transport_failure: {reason}"));
                return report;
            }
        },
        // What is sent is a handshake, whatever it would have held.
        (None, true) if matches!(chain.terminal, LiveTerminal::Http(_)) => {
            report["outcome"] = refused("http1.codec_error: TLS comes to a chain that has none");
            return report;
        }
        (None, _) => Client::Anonymous,
    };
    let info = info(listener, chain, &question, (original_dst, client));
    let mut unknown = Vec::new();
    let (filters, refusal) = network(&chain.network, &info, &mut unknown);
    report["network_filters"] = filters.into();
    if let Some(details) = refusal {
        report["outcome"] = refused(&details);
        return report;
    }
    match (&chain.terminal, question.request) {
        (LiveTerminal::Tcp(proxy), _) => {
            report["unknown"] = unknown.into();
            tcp(&live, proxy, &info, &mut report);
        }
        (LiveTerminal::Http(hcm), Some(parts)) => {
            let http = l7::explain::explain(publisher, hcm, info, parts);
            if let (Value::Object(all), Value::Object(more)) = (&mut report, http) {
                all.extend(more);
            }
            if let Some(Value::Array(all)) = report.get_mut("unknown") {
                all.extend(unknown.into_iter().map(Value::from));
            }
        }
        (LiveTerminal::Http(_), None) => report["outcome"] = refused("the chain serves HTTP"),
    }
    report
}

fn refused(details: &str) -> Value {
    json!({"kind": "refused", "details": details})
}

/// The listener that accepts, and the destination that was redirected to it.
fn accepting<'a>(live: &'a Live, question: &Question) -> Option<(&'a Arc<LiveListener>, Option<SocketAddr>)> {
    let destination = question.destination;
    let redirected = |listener: &Arc<LiveListener>| {
        let own = listener.config.addresses.iter().any(|a| a.port() == destination.port() || a.port() == 0);
        let restores = listener.config.use_original_dst || listener.config.inspectors.original_dst;
        (restores && !own).then_some(destination)
    };
    if let Some(name) = &question.listener {
        return live.listener(name).map(|listener| (listener, redirected(listener)));
    }
    let wildcards =
        [SocketAddr::from(([0u8; 4], destination.port())), SocketAddr::from(([0u16; 8], destination.port()))];
    let bound = std::iter::once(destination).chain(wildcards).find_map(|at| live.bound(&Claim::Address(at)));
    if let Some(listener) = bound {
        return Some((listener, None));
    }
    let captures = |listener: &&Arc<LiveListener>| {
        let config = &listener.config;
        let directed = config.direction == question.direction || config.direction == Direction::Unspecified;
        config.bind_to_port && (config.use_original_dst || config.inspectors.original_dst) && directed
    };
    let mut capturing: Vec<_> = live.listeners.values().filter(captures).collect();
    capturing.sort_by(|a, b| a.config.name.cmp(&b.config.name));
    capturing.first().map(|listener| (*listener, Some(destination)))
}

/// What the listener filters would see of the first bytes.
fn sniffed<'q>(listener: &LiveListener, question: &'q Question) -> (Transport, Option<&'q str>, Vec<Box<str>>) {
    let port = question.destination.port();
    let inspectors = &listener.config.inspectors;
    let tls = inspectors.tls.as_ref().is_some_and(|i| i.enabled_for(port));
    if question.tls {
        return match tls {
            true => (Transport::Tls, question.server_name.as_deref(), question.alpn.clone()),
            false => (Transport::RawBuffer, None, Vec::new()),
        };
    }
    let http = inspectors.http.as_ref().is_some_and(|i| i.enabled_for(port));
    let spoken = question.request.as_ref().filter(|_| http).map(|request| match request.version {
        Version::HTTP_10 => "http/1.0",
        Version::HTTP_2 => "h2c",
        _ => "http/1.1",
    });
    (Transport::RawBuffer, None, spoken.into_iter().map(Into::into).collect())
}

fn info(
    listener: &LiveListener,
    chain: &LiveChain,
    question: &Question,
    (original_dst, client): (Option<SocketAddr>, Client),
) -> ConnInfo {
    // Who is not asked for a certificate shows none.
    let principal = question.principal.as_ref().filter(|_| client != Client::Anonymous);
    let tls = chain.tls.is_some().then(|| {
        Arc::new(PeerInfo {
            certificate: principal.map(|_| Arc::from(&b""[..])),
            verified: client == Client::Verified,
            uri_sans: principal.into_iter().cloned().collect(),
            sni: question.server_name.clone(),
            alpn: question.alpn.first().cloned(),
            version: "TLSv1.3",
            ..PeerInfo::default()
        })
    });
    ConnInfo {
        id: 0,
        remote: question.source,
        local: question.destination,
        original_dst,
        direction: listener.config.direction,
        listener: listener.config.name.clone(),
        chain: chain.config.name.clone(),
        server_name: question.server_name.clone(),
        tls,
        started: SystemTime::now(),
        started_at: Instant::now(),
        buffer_limit: listener.config.buffer_limit,
        metadata: Default::default(),
    }
}

/// What the network filters say, and why the connection is closed, if one wants that.
fn network(network: &LiveNetwork, info: &ConnInfo, unknown: &mut Vec<String>) -> (Vec<Value>, Option<String>) {
    let mut all = Vec::new();
    for filter in &network.filters {
        match filter {
            LiveNetworkFilter::Rbac(filter) => {
                let mut entry = json!({"type": "rbac"});
                for (engine, key) in
                    [(&filter.config.rbac.shadow, "shadow"), (&filter.config.rbac.rules, "authorization")]
                {
                    if let Some(engine) = engine {
                        let decision = rbac::decide(engine, info);
                        entry[key] = if decision.allowed { "allowed" } else { "denied" }.into();
                        let policy = if key == "shadow" { "shadow_policy" } else { "policy" };
                        entry[policy] = decision.policy.map(|p| p.to_string()).into();
                    }
                }
                all.push(entry);
                if !rbac::allows(filter, info) {
                    let policy = filter.config.rbac.rules.as_ref().and_then(|engine| rbac::decide(engine, info).policy);
                    return (all, Some(crate::policy::rbac::details(policy)));
                }
            }
            LiveNetworkFilter::LocalRateLimit(limit) => {
                let admits = limit.would_admit(uptime().as_secs_f64());
                all.push(json!({"type": "local_ratelimit", "admits": admits}));
                if !admits {
                    return (all, Some("local_ratelimit_close_over_limit".to_owned()));
                }
            }
            LiveNetworkFilter::RateLimit(limit) => {
                let cluster = &limit.config.service.cluster;
                all.push(json!({"type": "ratelimit", "asks": **cluster}));
                unknown.push(format!("the rate limit service of cluster `{cluster}` decides"));
            }
        }
    }
    (all, None)
}

/// Where a connection to a cluster can go, and how many hosts of it can be chosen.
fn hosts(cluster: &Cluster, context: &PickContext<'_>) -> (Vec<Value>, usize) {
    if let Discovery::OriginalDst { port_override } = cluster.config.discovery {
        let address = context.original_dst.map(|mut address| {
            address.set_port(port_override.unwrap_or(address.port()));
            json!({"address": address.to_string(), "eligible": true})
        });
        return (address.clone().into_iter().collect(), usize::from(address.is_some()));
    }
    let (eligible, _) = cluster.eligible(context);
    let parts = cluster.inspect();
    let hosts = parts.members().iter().enumerate().take(MOST_HOSTS).map(|(place, member)| {
        json!({"address": &*member.endpoint.label, "eligible": eligible.binary_search(&place).is_ok()})
    });
    (hosts.collect(), eligible.len())
}

fn tcp(live: &Live, proxy: &LiveTcp, info: &ConnInfo, report: &mut Value) {
    let random = fastrand::u64(..);
    let Some(target) = pick_weighted(&proxy.config.targets, random) else {
        report["outcome"] = refused("cluster_not_found");
        return;
    };
    let Some(cluster) = live.cluster(&target.cluster) else {
        report["outcome"] = refused(&format!("cluster_not_found: {}", target.cluster));
        return;
    };
    let hashed = cluster.config.lb.is_hashed() && !proxy.config.hash_policy.is_empty();
    let context = PickContext {
        original_dst: info.original_dst,
        random,
        hash: hashed.then(|| of_ip(info.remote.ip())),
        criteria: target.criteria.as_deref(),
        ..PickContext::default()
    };
    let (hosts, eligible) = hosts(cluster, &context);
    let weights = proxy.config.targets.iter().filter(|_| proxy.config.targets.len() > 1);
    report["tcp"] = json!({
        "stat_prefix": *proxy.config.stat_prefix,
        "weighted_clusters": weights.map(|t| json!({"name": *t.cluster, "weight": t.weight})).collect::<Vec<_>>(),
        "max_connect_attempts": proxy.config.max_connect_attempts,
        "idle_timeout_ms": proxy.config.idle_timeout.map(|d| d.as_millis() as u64),
        "eligible": eligible,
        "endpoints": hosts,
    });
    if eligible == 0 {
        report["outcome"] = refused("no_healthy_upstream");
        return;
    }
    report["outcome"] = json!({"kind": "forwarded", "cluster": *cluster.config.name});
}
