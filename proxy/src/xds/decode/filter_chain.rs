//! Filter chains: their match, their transport socket, and the network filters down to the terminal one.

use std::{collections::HashMap, sync::Arc, time::Duration};

use outrigger_wire::pb::envoy::config::listener::v3::{
    FilterChain as Pb, FilterChainMatch, filter_chain_match::ConnectionSourceType,
};

use super::{
    address::cidr,
    at::At,
    fields::fields,
    network_filter,
    report::Reject,
    scalar::{bool_or, enumeration, port, positive},
    tls,
};
use crate::ir::{
    Name,
    listener::{ChainMatch, FilterChain, SourceType, Transport},
};

/// Bound on a TLS handshake where the configuration gives none (Envoy then waits for ever).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

pub(crate) fn chains(messages: &[Pb], at: &At<'_>) -> Result<Vec<Arc<FilterChain>>, Reject> {
    let chains = at.each("filter_chains", messages, |m, at| chain(m, at).map(Arc::new))?;
    if let Some((earlier, later)) = overlap(&chains) {
        let name = |i: usize| match &*chains[i].name {
            "" => format!("chain {i}"),
            name => format!("chain {i} ({name:?})"),
        };
        let at = at.index("filter_chains", later);
        let reason = format!("{} has matching rules that overlap with those of {}", name(later), name(earlier));
        return Err(at.field("filter_chain_match").reject(reason));
    }
    Ok(chains)
}

pub(crate) fn default_chain(message: &Pb, at: &At<'_>) -> Result<FilterChain, Reject> {
    if message.filter_chain_match.as_ref().is_some_and(|m| *m != FilterChainMatch::default()) {
        at.field("filter_chain_match").harmless("a default chain takes what no other matches");
    }
    let mut chain = chain(message, at)?;
    chain.matches = ChainMatch::default();
    Ok(chain)
}

fn chain(message: &Pb, at: &At<'_>) -> Result<FilterChain, Reject> {
    fields!(at, message => Pb {
        read: [
            filter_chain_match, filters, use_proxy_proto, transport_socket, transport_socket_connect_timeout, name,
        ],
        harmless: [metadata],
    });
    if bool_or(&message.use_proxy_proto, false) {
        return Err(at.field("use_proxy_proto").reject("the PROXY protocol is not supported by this release"));
    }
    let matches = match &message.filter_chain_match {
        Some(m) => chain_match(m, &at.field("filter_chain_match"))?,
        None => ChainMatch::default(),
    };
    let tls = tls::downstream(&message.transport_socket, &at.field("transport_socket"))?;
    let timeout_at = at.field("transport_socket_connect_timeout");
    let timeout = at.duration("transport_socket_connect_timeout", &message.transport_socket_connect_timeout)?;
    let (filters, terminal) = network_filter::filters(&message.filters, at)?;
    Ok(FilterChain {
        name: Name::from(message.name.as_str()),
        matches,
        tls,
        handshake_timeout: positive(timeout, &timeout_at)?.unwrap_or(HANDSHAKE_TIMEOUT),
        filters,
        terminal,
    })
}

fn chain_match(message: &FilterChainMatch, at: &At<'_>) -> Result<ChainMatch, Reject> {
    fields!(at, message => FilterChainMatch {
        read: [
            destination_port, prefix_ranges, direct_source_prefix_ranges, source_type, source_prefix_ranges,
            source_ports, server_names, transport_protocol, application_protocols,
        ],
        // Envoy does not implement these either, and says so in the same way.
        refuse: [address_suffix, suffix_len],
    });
    let a_port = |value: u32, at: &At<'_>| match port(value, at)? {
        0 => Err(at.reject("must not be 0")),
        port => Ok(port),
    };
    let destination_port = match &message.destination_port {
        Some(p) => Some(a_port(p.value, &at.field("destination_port"))?),
        None => None,
    };
    let server_names = at.each("server_names", &message.server_names, |name, at| {
        let rest = name.strip_prefix("*.").unwrap_or(name);
        if rest.is_empty() || rest.contains('*') {
            return Err(at.reject(format!("{name:?}: partial wildcards are not supported in server_names")));
        }
        Ok(Box::from(name.to_ascii_lowercase()))
    })?;
    let transport = match message.transport_protocol.as_str() {
        "" => None,
        "raw_buffer" => Some(Transport::RawBuffer),
        "tls" => Some(Transport::Tls),
        other => return Err(at.field("transport_protocol").reject(format!("{other:?} is not known here"))),
    };
    Ok(ChainMatch {
        destination_port,
        destination_ranges: at.each("prefix_ranges", &message.prefix_ranges, cidr)?,
        server_names,
        transport,
        application_protocols: message.application_protocols.iter().map(|p| p.as_str().into()).collect(),
        direct_source_ranges: at.each("direct_source_prefix_ranges", &message.direct_source_prefix_ranges, cidr)?,
        source_type: match enumeration(message.source_type, &at.field("source_type"))? {
            ConnectionSourceType::Any => SourceType::Any,
            ConnectionSourceType::SameIpOrLoopback => SourceType::SameIpOrLoopback,
            ConnectionSourceType::External => SourceType::External,
        },
        source_ranges: at.each("source_prefix_ranges", &message.source_prefix_ranges, cidr)?,
        source_ports: at.each("source_ports", &message.source_ports, |p, at| a_port(*p, at))?,
    })
}

/// Two chains that could both claim a connection at the last step of the match, if there are any.
fn overlap(chains: &[Arc<FilterChain>]) -> Option<(usize, usize)> {
    fn meet<T: PartialEq>(a: &[T], b: &[T]) -> bool {
        // Empty is the wildcard, which is a criterion of its own and overlaps only with another wildcard.
        (a.is_empty() && b.is_empty()) || a.iter().any(|x| b.contains(x))
    }
    let mut by_port: HashMap<Option<u16>, Vec<usize>> = HashMap::new();
    for (later, chain) in chains.iter().enumerate() {
        let b = &chain.matches;
        let peers = by_port.entry(b.destination_port).or_default();
        let earlier = peers.iter().copied().find(|i| {
            let a = &chains[*i].matches;
            a.transport == b.transport
                && a.source_type == b.source_type
                && meet(&a.destination_ranges, &b.destination_ranges)
                && meet(&a.server_names, &b.server_names)
                && meet(&a.application_protocols, &b.application_protocols)
                && meet(&a.direct_source_ranges, &b.direct_source_ranges)
                && meet(&a.source_ranges, &b.source_ranges)
                && meet(&a.source_ports, &b.source_ports)
        });
        if let Some(earlier) = earlier {
            return Some((earlier, later));
        }
        peers.push(later);
    }
    None
}
