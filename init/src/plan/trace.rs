//! What the rules do with one connection, decided without a kernel.
//!
//! Owns the evaluation of rules as a packet filter does it (first match, RETURN goes back to the caller). `check`
//! uses it to choose destinations that must be captured; the tests use it to prove the semantics.
//! Invariant: it reads the same data that is rendered, so it can only be wrong where a rendering is wrong.

use std::net::{IpAddr, SocketAddr};

use super::{ChainName, Family, Owner, Rule, RuleSet, Verdict};

/// A connection about to be opened or arriving.
#[derive(Clone, Debug)]
pub struct Flow<'a> {
    pub source: IpAddr,
    pub destination: SocketAddr,
    pub uid: u32,
    pub gid: u32,
    /// Interface it arrives by; locally made connections have none.
    pub input: Option<&'a str>,
    /// Interface it leaves by; arriving connections have none.
    pub output: Option<&'a str>,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Handed to the proxy's port.
    Captured { port: u16, why: &'static str },
    /// Left alone.
    Untouched { why: &'static str },
}

impl Fate {
    /// The proxy's port, if captured.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Captured { port, .. } => Some(*port),
            Self::Untouched { .. } => None,
        }
    }
}

enum Step {
    Decided(Fate),
    Returned(&'static str),
}

impl RuleSet {
    /// The fate of a connection: from the outside if it has an input interface, else from within.
    pub fn trace(&self, flow: &Flow<'_>) -> Fate {
        let family = if flow.destination.is_ipv6() { Family::V6 } else { Family::V4 };
        if !self.covers(family) {
            return Fate::Untouched { why: "IPv6 is left alone" };
        }
        let entry = if flow.input.is_some() { ChainName::Inbound } else { ChainName::Output };
        match self.run(entry, flow, "", 0) {
            Step::Decided(fate) => fate,
            Step::Returned(why) => Fate::Untouched { why },
        }
    }

    fn run(&self, name: ChainName, flow: &Flow<'_>, why: &'static str, depth: u8) -> Step {
        let end = Step::Returned("no rule includes it");
        // Our chains are three deep; a deeper recursion could only come from a cycle.
        let (Some(chain), true) = (self.chain(name), depth < 8) else { return end };
        for rule in chain.rules.iter().filter(|rule| matches(rule, flow)) {
            match rule.verdict {
                Verdict::Return => return Step::Returned(rule.why),
                Verdict::Drop | Verdict::Reset => return Step::Returned(rule.why),
                Verdict::MarkProxy => {}
                Verdict::Redirect(port) => return Step::Decided(Fate::Captured { port, why }),
                Verdict::Jump(next) => {
                    if let decided @ Step::Decided(_) = self.run(next, flow, rule.why, depth + 1) {
                        return decided;
                    }
                }
            }
        }
        end
    }
}

fn matches(rule: &Rule, flow: &Flow<'_>) -> bool {
    let family = if flow.destination.is_ipv6() { Family::V6 } else { Family::V4 };
    let port = flow.destination.port();
    rule.applies_to(family)
        && rule.source.is_none_or(|net| net.cidr.contains(flow.source) != net.negated)
        && rule.destination.is_none_or(|net| net.cidr.contains(flow.destination.ip()) != net.negated)
        && rule.input.as_deref().is_none_or(|name| flow.input == Some(name))
        && rule.output.as_deref().is_none_or(|name| flow.output == Some(name))
        && rule
            .ports
            .as_ref()
            .is_none_or(|ports| ports.ranges.iter().any(|range| range.contains(port)) != ports.negated)
        && rule.owner.is_none_or(|owner| match owner {
            Owner::Uid(id) => flow.input.is_none() && flow.uid == id,
            Owner::Gid(id) => flow.input.is_none() && flow.gid == id,
        })
        // A connection being opened is NEW, never INVALID.
        && !rule.invalid_state
}
