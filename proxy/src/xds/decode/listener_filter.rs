//! Listener filters: the inspectors, and where each is switched off.

use outrigger_wire::pb::envoy::{
    config::listener::v3::{
        ListenerFilter, ListenerFilterChainMatchPredicate,
        listener_filter::ConfigType,
        listener_filter_chain_match_predicate::{MatchSet, Rule},
    },
    extensions::filters::listener::{
        http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst, tls_inspector::v3::TlsInspector,
    },
};

use super::{at::At, extension, fields::fields, report::Reject};
use crate::ir::listener::{FilterChain, Inspector, Inspectors, PortPredicate, Transport};

pub(crate) fn inspectors(messages: &[ListenerFilter], at: &At<'_>) -> Result<Inspectors, Reject> {
    let mut found = Inspectors::default();
    for (i, message) in messages.iter().enumerate() {
        let at = at.index("listener_filters", i);
        let any = match &message.config_type {
            Some(ConfigType::TypedConfig(any)) => any,
            Some(ConfigType::ConfigDiscovery(_)) => {
                return Err(at.field("config_discovery").reject("is not supported by this release"));
            }
            None => return Err(at.field("typed_config").reject("is required")),
        };
        let inner = at.field("typed_config");
        let extension = extension::open(any, &inner)?;
        let disabled = match &message.filter_disabled {
            Some(m) => Some(predicate(m, &at.field("filter_disabled"))?),
            None => None,
        };
        if extension.is::<OriginalDst>() {
            if disabled.is_some() {
                return Err(at.field("filter_disabled").reject("original_dst cannot be switched off by port"));
            }
            found.original_dst = true;
        } else if extension.is::<TlsInspector>() {
            let tls: TlsInspector = extension.message(&inner)?;
            fields!(&inner, &tls => TlsInspector {
                read: [],
                harmless: [initial_read_buffer_size, max_client_hello_size],
                unsupported: [
                    enable_ja3_fingerprinting, enable_ja4_fingerprinting, close_connection_on_client_hello_parsing_errors,
                ],
            });
            found.tls = Some(Inspector { disabled });
        } else if extension.is::<HttpInspector>() {
            found.http = Some(Inspector { disabled });
        } else {
            return Err(extension.refuse("listener filter", &inner));
        }
    }
    Ok(found)
}

/// The recursion is bounded by the protobuf decoder's own limit.
fn predicate(message: &ListenerFilterChainMatchPredicate, at: &At<'_>) -> Result<PortPredicate, Reject> {
    let set = |name: &str, set: &MatchSet| {
        let at = at.field(name);
        if set.rules.len() < 2 {
            return Err(at.field("rules").reject("must have at least two rules"));
        }
        at.each("rules", &set.rules, predicate)
    };
    Ok(match at.required("rule", &message.rule)? {
        Rule::OrMatch(rules) => PortPredicate::Or(set("or_match", rules)?),
        Rule::AndMatch(rules) => PortPredicate::And(set("and_match", rules)?),
        Rule::NotMatch(rule) => PortPredicate::Not(Box::new(predicate(rule, &at.field("not_match"))?)),
        Rule::AnyMatch(true) => PortPredicate::Any,
        Rule::AnyMatch(false) => return Err(at.field("any_match").reject("must be true")),
        Rule::DestinationPortRange(range) => {
            let bound = |name: &str, value: i32| {
                let port = u32::try_from(value).ok().filter(|p| *p <= 65_536);
                port.ok_or_else(|| at.field("destination_port_range").field(name).reject(format!("{value} is no port")))
            };
            PortPredicate::DestinationPort { start: bound("start", range.start)?, end: bound("end", range.end)? }
        }
    })
}

/// Whether the chains ask for what only the TLS inspector knows: Envoy then adds the inspector by itself.
pub(crate) fn needs_tls_inspector<'c>(chains: impl Iterator<Item = &'c FilterChain>) -> bool {
    chains.map(|c| &c.matches).any(|m| match m.transport {
        Some(Transport::Tls) => true,
        Some(Transport::RawBuffer) => false,
        None => !m.server_names.is_empty() || !m.application_protocols.is_empty(),
    })
}
