//! Listener filters that look at the first bytes, and the ports on which they must not.
//!
//! An inspector that waits for bytes on a port whose server speaks first would only delay it; one that finds TLS on a
//! port with mutual TLS switched off would keep the application's own TLS from the `raw_buffer` chain.

use std::collections::BTreeSet;

use super::{
    filters::{listener_filter, port_range},
    pb::{any, listener, listener_filters},
};
use listener::listener_filter_chain_match_predicate::{MatchSet, Rule};

type Predicate = listener::ListenerFilterChainMatchPredicate;

pub(super) fn original_dst() -> listener::ListenerFilter {
    let config = any(listener_filters::original_dst::v3::OriginalDst::default());
    listener_filter("envoy.filters.listener.original_dst", config, None)
}

pub(super) fn tls(disabled: Option<Predicate>) -> listener::ListenerFilter {
    let config = any(listener_filters::tls_inspector::v3::TlsInspector::default());
    listener_filter("envoy.filters.listener.tls_inspector", config, disabled)
}

pub(super) fn http(disabled: Option<Predicate>) -> listener::ListenerFilter {
    let config = any(listener_filters::http_inspector::v3::HttpInspector::default());
    listener_filter("envoy.filters.listener.http_inspector", config, disabled)
}

/// Where an inspector is needed: on known ports, and on all others or not.
#[derive(Clone, Debug, Default)]
pub(super) struct Need {
    pub on: BTreeSet<u16>,
    pub off: BTreeSet<u16>,
    pub elsewhere: bool,
}

impl Need {
    pub(super) fn set(&mut self, port: u16, needed: bool) {
        if needed { &mut self.on } else { &mut self.off }.insert(port);
    }

    /// Whether to have the filter at all, and the predicate that switches it off.
    pub(super) fn predicate(&self) -> (bool, Option<Predicate>) {
        if self.elsewhere {
            return (true, any_of(&self.off));
        }
        match any_of(&self.on) {
            Some(ports) => (true, Some(rule(Rule::NotMatch(Box::new(ports))))),
            None => (false, None),
        }
    }
}

fn rule(rule: Rule) -> Predicate {
    Predicate { rule: Some(rule) }
}

fn any_of(ports: &BTreeSet<u16>) -> Option<Predicate> {
    let mut rules: Vec<_> = ports.iter().map(|port| rule(Rule::DestinationPortRange(port_range(*port)))).collect();
    match rules.len() {
        0 => None,
        1 => rules.pop(),
        // Envoy wants at least two.
        _ => Some(rule(Rule::OrMatch(MatchSet { rules }))),
    }
}
