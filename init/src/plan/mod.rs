//! From settings to rules: which connections of a Pod are handed to its proxy.
//!
//! Owns the semantics, those of Istio's interception with REDIRECT. Pure: no I/O, no clock; it neither knows what is
//! installed nor whether the kernel can do it. Invariants: loopback is never captured, the proxy's own connections
//! leave uncaptured, and what is captured in one family is captured in the other.

mod iptables;
mod nft;
mod rule;
mod trace;

#[cfg(test)]
pub(crate) mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use iptables::{BuiltinRule, canonical};
pub use nft::{NFT_TABLE, canonical_line};
pub use rule::{Chain, ChainName, Entry, Family, Net, Owner, Ports, Rule, Table, Verdict};
pub use trace::{Fate, Flow};

use crate::options::{Cidr, CidrSelection, HBONE_PORT, Options, PortRange, PortSelection, PortSet};

/// Source address the proxy's inbound side binds when it calls the application: such packets are never captured.
pub const LOOP_GUARD_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
/// The same for IPv6. Unlike 127.0.0.6 it must be added to `lo` before anybody can bind it.
pub const LOOP_GUARD_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// Bit of the connection mark that says: the proxy opened this connection to where the application would be captured.
/// Other bits belong to others.
pub const PROXY_MARK: u32 = 0x0800_0000;

/// Slots of the multiport match; a range takes two.
const MULTIPORT_SLOTS: usize = 15;

/// The complete set of rules for one Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet {
    chains: Vec<Chain>,
    v6: bool,
}

impl RuleSet {
    /// The rules these options ask for, for IPv4 and, if `v6`, for IPv6.
    pub fn build(options: &Options, v6: bool) -> Self {
        let mut chains = vec![
            Chain {
                name: ChainName::InRedirect,
                rules: vec![Rule::new(Verdict::Redirect(options.inbound_port), "to the proxy's inbound port")],
            },
            Chain { name: ChainName::Inbound, rules: inbound(options) },
            Chain {
                name: ChainName::Redirect,
                rules: vec![Rule::new(Verdict::Redirect(options.outbound_port), "to the proxy's outbound port")],
            },
            Chain { name: ChainName::Output, rules: outbound(options) },
        ];
        chains.push(Chain { name: ChainName::PortGuard, rules: port_guard(options) });
        if options.drop_invalid {
            let drop = Rule::new(Verdict::Drop, "out-of-window packets would make the kernel reset the connection");
            chains.push(Chain { name: ChainName::Invalid, rules: vec![drop.invalid()] });
        }
        if !v6 {
            for chain in &mut chains {
                chain.rules.retain(|rule| rule.applies_to(Family::V4));
            }
        }
        Self { chains, v6 }
    }

    /// The same without the guard against reused source ports, for kernels that lack what it takes.
    pub fn without_port_guard(&self) -> Self {
        let mut rules = self.clone();
        rules.chains.retain(|chain| chain.name != ChainName::PortGuard);
        for chain in &mut rules.chains {
            chain.rules.retain(|rule| rule.verdict != Verdict::MarkProxy);
        }
        rules
    }

    /// The chains, each after those it jumps to.
    pub fn chains(&self) -> &[Chain] {
        &self.chains
    }

    /// Whether the rules cover this family.
    pub fn covers(&self, family: Family) -> bool {
        family == Family::V4 || self.v6
    }

    fn chain(&self, name: ChainName) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }
}

fn inbound(options: &Options) -> Vec<Rule> {
    let mut rules = Vec::new();
    for interface in &options.exclude_interfaces {
        rules.push(Rule::new(Verdict::Return, "excluded interface").entering(interface.as_str()));
    }
    for ranges in multiport(&options.inbound_exclusions()) {
        rules.push(Rule::new(Verdict::Return, "excluded inbound ports and the mesh's own").ports(ranges));
    }
    let capture = Verdict::Jump(ChainName::InRedirect);
    match &options.include_inbound_ports {
        PortSelection::All => rules.push(Rule::new(capture, "every other inbound connection")),
        PortSelection::Only(set) => {
            for ranges in multiport(set) {
                rules.push(Rule::new(capture, "included inbound ports").ports(ranges));
            }
        }
    }
    rules
}

fn outbound(options: &Options) -> Vec<Rule> {
    let mut rules = Vec::new();
    for interface in &options.exclude_interfaces {
        rules.push(Rule::new(Verdict::Return, "excluded interface").leaving(interface.as_str()));
    }
    for guard in [IpAddr::V4(LOOP_GUARD_V4), IpAddr::V6(LOOP_GUARD_V6)] {
        rules.push(
            Rule::new(Verdict::Return, "loop guard: the proxy's inbound side calls the application")
                .from(host(guard))
                .leaving("lo"),
        );
    }
    // Before the rules for calls to oneself, as in Istio: an excluded port is left alone whoever calls it.
    for ranges in multiport(&options.exclude_outbound_ports) {
        rules.push(Rule::new(Verdict::Return, "excluded outbound ports").ports(ranges));
    }
    let owners = owners(options);
    for &owner in &owners {
        for loopback in loopbacks() {
            // Through the inbound chain, so that a port excluded there is excluded for calls to oneself as well.
            rules.push(
                Rule::new(Verdict::Jump(ChainName::Inbound), "the Pod calls its own service: in by the inbound side")
                    .not_to(loopback)
                    .leaving("lo")
                    .ports_except(own_service_exceptions(options))
                    .owned_by(owner),
            );
        }
    }
    rules.push(Rule::new(Verdict::Return, "the application talks to itself").leaving("lo"));
    for &owner in &owners {
        rules.push(Rule::new(Verdict::MarkProxy, "known to the port guard as the proxy's").owned_by(owner));
        rules.push(Rule::new(Verdict::Return, "the proxy's own connections").owned_by(owner));
    }
    for loopback in loopbacks() {
        rules.push(Rule::new(Verdict::Return, "loopback, and Docker's DNS on 127.0.0.11").to(loopback));
    }
    rules.push(
        Rule::new(Verdict::Return, "link-local addresses mean nothing without their interface").to(Cidr::new(
            Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into(),
            10,
        )
        .expect("10 bits fit IPv6")),
    );
    for cidr in options.exclude_outbound_cidrs.iter() {
        rules.push(Rule::new(Verdict::Return, "excluded destination").to(*cidr));
    }
    let capture = Verdict::Jump(ChainName::Redirect);
    match &options.include_outbound_ports {
        PortSelection::All => rules.push(Rule::new(capture, "every outbound port is included")),
        PortSelection::Only(set) => {
            for ranges in multiport(set) {
                rules.push(Rule::new(capture, "included outbound ports").ports(ranges));
            }
        }
    }
    match &options.include_outbound_cidrs {
        CidrSelection::All => rules.push(Rule::new(capture, "every other outbound connection")),
        CidrSelection::Only(list) => {
            for cidr in list.iter().filter(|cidr| !cidr.is_loopback()) {
                rules.push(Rule::new(capture, "included destination").to(*cidr));
            }
        }
    }
    rules
}

/// The nat table is asked about the first packet of an entry in connection tracking only. An entry that the proxy left
/// behind (a dial without answer, a peer that vanished) decides for a later connection of the application from the same
/// port to the same destination: it would leave uncaptured. Here it is refused, and tries again from another port.
fn port_guard(options: &Options) -> Vec<Rule> {
    let mut rules: Vec<Rule> = owners(options)
        .into_iter()
        .map(|owner| Rule::new(Verdict::Return, "the proxy's own connections").owned_by(owner))
        .collect();
    rules.push(Rule::new(Verdict::Reset, "the application would leave uncaptured by an entry of the proxy's"));
    rules
}

fn own_service_exceptions(options: &Options) -> Vec<PortRange> {
    let ports = [options.inbound_port, HBONE_PORT].map(PortRange::single);
    PortSet::from_ranges(ports.to_vec()).ranges().to_vec()
}

fn owners(options: &Options) -> Vec<Owner> {
    let users = options.proxy_uid.ids().iter().map(|&id| Owner::Uid(id));
    users.chain(options.proxy_gid.ids().iter().map(|&id| Owner::Gid(id))).collect()
}

fn loopbacks() -> [Cidr; 2] {
    [
        Cidr::new(Ipv4Addr::LOCALHOST.into(), 8).expect("8 bits fit IPv4"),
        Cidr::new(Ipv6Addr::LOCALHOST.into(), 128).expect("128 bits fit IPv6"),
    ]
}

fn host(address: IpAddr) -> Cidr {
    Cidr::new(address, if address.is_ipv6() { 128 } else { 32 }).expect("a host prefix fits its family")
}

/// Splits a set so that each part fits one multiport match.
fn multiport(set: &PortSet) -> Vec<Vec<PortRange>> {
    let mut parts: Vec<Vec<PortRange>> = Vec::new();
    let mut free = 0;
    for &range in set.ranges() {
        let slots = if range.first == range.last { 1 } else { 2 };
        if slots > free {
            parts.push(Vec::new());
            free = MULTIPORT_SLOTS;
        }
        free -= slots;
        parts.last_mut().expect("a part was opened above").push(range);
    }
    parts
}
