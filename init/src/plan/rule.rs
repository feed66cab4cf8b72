//! Rules as data, independent of any packet filter's language.
//!
//! Owns the vocabulary (chains, matches, verdicts). It does not know which rules a mesh needs, nor how they are written.
//! Invariant: every own chain is entered by TCP only, so a rule need not say so again unless its language wants it.

use crate::options::{Cidr, PortRange};

/// Address family of a rule set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// Both families.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// As operators write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The family of a network.
    pub fn of(cidr: &Cidr) -> Self {
        if cidr.is_ipv6() { Self::V6 } else { Self::V4 }
    }
}

/// Tables of x_tables in which we have chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    Nat,
    Mangle,
    Filter,
}

impl Table {
    /// All of them, in the order in which they are written.
    pub const ALL: [Self; 3] = [Self::Nat, Self::Mangle, Self::Filter];

    /// The table's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Mangle => "mangle",
            Self::Filter => "filter",
        }
    }
}

/// Our chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainName {
    /// Decides which inbound connections are captured.
    Inbound,
    /// Hands a connection to the inbound port.
    InRedirect,
    /// Decides which outbound connections are captured.
    Output,
    /// Hands a connection to the outbound port.
    Redirect,
    /// Drops what connection tracking calls invalid.
    Invalid,
    /// Refuses a connection of the application that connection tracking takes for one of the proxy's.
    PortGuard,
}

impl ChainName {
    /// The chain's name in the packet filter.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "OUTRIGGER_INBOUND",
            Self::InRedirect => "OUTRIGGER_IN_REDIRECT",
            Self::Output => "OUTRIGGER_OUTPUT",
            Self::Redirect => "OUTRIGGER_REDIRECT",
            Self::Invalid => "OUTRIGGER_INVALID",
            Self::PortGuard => "OUTRIGGER_PORT_GUARD",
        }
    }

    /// The table the chain lives in.
    pub fn table(self) -> Table {
        match self {
            Self::Inbound | Self::InRedirect | Self::Output | Self::Redirect => Table::Nat,
            Self::Invalid => Table::Mangle,
            Self::PortGuard => Table::Filter,
        }
    }

    /// The built-in chain that jumps to it, if any.
    pub fn entered_from(self) -> Option<&'static str> {
        match self {
            Self::Inbound | Self::Invalid => Some("PREROUTING"),
            Self::Output | Self::PortGuard => Some("OUTPUT"),
            Self::InRedirect | Self::Redirect => None,
        }
    }
}

impl ChainName {
    /// Which TCP packets enter it from the built-in chain. What is not for it must leave at the first test: unlike the
    /// nat table's, the others' chains are asked about every packet.
    pub fn entry(self) -> Entry {
        match self {
            Self::PortGuard => Entry::SynOfProxyEntry,
            _ => Entry::Tcp,
        }
    }
}

/// The condition of the rule that leads into a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    Tcp,
    /// A connection's first packet that connection tracking counts to one the proxy opened.
    SynOfProxyEntry,
}

/// Who owns the socket a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Uid(u32),
    Gid(u32),
}

/// A destination port condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    pub negated: bool,
    /// At most 15 slots, where a range takes two: the limit of the multiport match.
    pub ranges: Vec<PortRange>,
}

/// A network condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    pub negated: bool,
    pub cidr: Cidr,
}

/// What happens to a matching connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Return,
    Jump(ChainName),
    Redirect(u16),
    Drop,
    /// Refuses with a TCP reset.
    Reset,
    /// Marks the connection as opened by the proxy; the next rule is asked.
    MarkProxy,
}

/// One rule; absent conditions match everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Only in this family; both if absent.
    pub family: Option<Family>,
    pub source: Option<Net>,
    pub destination: Option<Net>,
    pub input: Option<String>,
    pub output: Option<String>,
    pub ports: Option<Ports>,
    pub owner: Option<Owner>,
    pub invalid_state: bool,
    pub verdict: Verdict,
    /// Why the rule exists, for `print` and for `check`.
    pub why: &'static str,
}

impl Rule {
    /// A rule without conditions.
    pub fn new(verdict: Verdict, why: &'static str) -> Self {
        Self {
            family: None,
            source: None,
            destination: None,
            input: None,
            output: None,
            ports: None,
            owner: None,
            invalid_state: false,
            verdict,
            why,
        }
    }

    /// Only packets from this network.
    pub fn from(mut self, cidr: Cidr) -> Self {
        self.family = Some(Family::of(&cidr));
        self.source = Some(Net { negated: false, cidr });
        self
    }

    /// Only packets to this network. The network of all addresses only fixes the family.
    pub fn to(mut self, cidr: Cidr) -> Self {
        self.family = Some(Family::of(&cidr));
        self.destination = (cidr.prefix() > 0).then_some(Net { negated: false, cidr });
        self
    }

    /// Only packets to elsewhere than this network.
    pub fn not_to(mut self, cidr: Cidr) -> Self {
        self.family = Some(Family::of(&cidr));
        self.destination = Some(Net { negated: true, cidr });
        self
    }

    /// Only packets that came in by this interface.
    pub fn entering(mut self, interface: &str) -> Self {
        self.input = Some(interface.to_owned());
        self
    }

    /// Only packets that leave by this interface.
    pub fn leaving(mut self, interface: &str) -> Self {
        self.output = Some(interface.to_owned());
        self
    }

    /// Only packets to these ports.
    pub fn ports(mut self, ranges: Vec<PortRange>) -> Self {
        self.ports = Some(Ports { negated: false, ranges });
        self
    }

    /// Only packets to ports other than these.
    pub fn ports_except(mut self, ranges: Vec<PortRange>) -> Self {
        self.ports = Some(Ports { negated: true, ranges });
        self
    }

    /// Only packets of this owner.
    pub fn owned_by(mut self, owner: Owner) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Only packets that connection tracking calls invalid.
    pub fn invalid(mut self) -> Self {
        self.invalid_state = true;
        self
    }

    /// Whether the rule exists in this family.
    pub fn applies_to(&self, family: Family) -> bool {
        self.family.is_none_or(|own| own == family)
    }
}

/// A chain with its rules in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub name: ChainName,
    pub rules: Vec<Rule>,
}
