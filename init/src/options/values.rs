//! The value types of the settings: port sets, id lists, networks, interface names.
//!
//! Owns their syntax and their canonical form (sorted, merged, masked), so that equal settings make equal rules.
//! Invariant: nothing that was parsed here can break out of the rule text it is rendered into.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Most items a list may have: rules are evaluated one by one for every new connection.
const MAX_ITEMS: usize = 1024;

/// Ports `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

impl PortRange {
    /// A range of one port.
    pub fn single(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Whether the port is in the range.
    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// The range with the separator the rule language wants.
    pub fn render(&self, separator: char) -> String {
        if self.first == self.last { self.first.to_string() } else { format!("{}{separator}{}", self.first, self.last) }
    }
}

/// Ports, sorted, adjacent ones merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSet(Vec<PortRange>);

impl PortSet {
    /// Canonical form of any list of ranges.
    pub fn from_ranges(mut ranges: Vec<PortRange>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<PortRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(previous) if u32::from(range.first) <= u32::from(previous.last) + 1 => {
                    previous.last = previous.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> &[PortRange] {
        &self.0
    }

    /// Whether the port is in the set.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(port))
    }

    /// Whether the set has no port.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the set has every port.
    pub fn covers_all(&self) -> bool {
        matches!(self.0.as_slice(), [all] if all.first <= 1 && all.last == u16::MAX)
    }
}

impl FromStr for PortSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut ranges = Vec::new();
        for item in items(text)? {
            let (first, last) = item.split_once(['-', ':']).unwrap_or((item, item));
            let range = PortRange { first: port(first, item)?, last: port(last, item)? };
            if range.first > range.last {
                return Err(format!("port range {item:?} is backwards"));
            }
            ranges.push(range);
        }
        Ok(Self::from_ranges(ranges))
    }
}

fn port(text: &str, item: &str) -> Result<u16, String> {
    match text.trim().parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{item:?} is neither a port (1 to 65535) nor a range like 8000-8010")),
    }
}

/// All ports or some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortSelection {
    All,
    Only(PortSet),
}

impl PortSelection {
    /// Whether nothing is selected.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::Only(set) if set.is_empty())
    }
}

impl FromStr for PortSelection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "*" { Ok(Self::All) } else { text.parse().map(Self::Only) }
    }
}

/// Numeric user or group ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdList(Vec<u32>);

impl IdList {
    /// The ids, ascending.
    pub fn ids(&self) -> &[u32] {
        &self.0
    }

    /// Whether the id is in the list.
    pub fn contains(&self, id: u32) -> bool {
        self.0.contains(&id)
    }

    /// Whether the list has no id.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for IdList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut ids = Vec::new();
        for item in items(text)? {
            // -1 means "no change" to the kernel's setuid family, it is never an owner.
            let id = item.parse::<u32>().ok().filter(|&id| id != u32::MAX);
            ids.push(id.ok_or_else(|| format!("{item:?} is not a numeric id; names are not looked up here"))?);
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(Self(ids))
    }
}

/// A network of either family, host bits cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// The network of `address` with `prefix` bits; `None` if the family has fewer bits.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let network = match address {
            IpAddr::V4(v4) if prefix <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4((v4.to_bits() & mask).into())
            }
            IpAddr::V6(v6) if prefix <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & mask).into())
            }
            _ => return None,
        };
        Some(Self { network, prefix })
    }

    /// First address of the network.
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// Length of the network part in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether the network has one address only.
    pub fn is_host(&self) -> bool {
        self.prefix == if self.is_ipv6() { 128 } else { 32 }
    }

    /// Whether it is an IPv6 network.
    pub fn is_ipv6(&self) -> bool {
        self.network.is_ipv6()
    }

    /// Whether it lies within loopback.
    pub fn is_loopback(&self) -> bool {
        self.network.is_loopback() && (self.is_ipv6() || self.prefix >= 8)
    }

    /// Whether the address is in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::new(address, self.prefix).is_some_and(|other| other.network == self.network)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let wrong = || format!("{text:?} is not a network like 10.0.0.0/8 or fd00::/8");
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| wrong())?,
            None if address.is_ipv6() => 128,
            None => 32,
        };
        Self::new(address, prefix).ok_or_else(wrong)
    }
}

/// Networks of both families, sorted, those inside another one left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CidrList(Vec<Cidr>);

impl CidrList {
    /// The networks.
    pub fn iter(&self) -> impl Iterator<Item = &Cidr> {
        self.0.iter()
    }

    /// Whether the list has no network.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for CidrList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Vec::new();
        for item in items(text)? {
            all.push(item.parse::<Cidr>()?);
        }
        all.sort_unstable();
        let mut kept: Vec<Cidr> = Vec::with_capacity(all.len());
        for cidr in all {
            // Sorted by network, then prefix: whatever contains this one came before it.
            if !kept.iter().any(|outer| outer.prefix <= cidr.prefix && outer.contains(cidr.network)) {
                kept.push(cidr);
            }
        }
        Ok(Self(kept))
    }
}

/// All destinations or some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CidrSelection {
    All,
    Only(CidrList),
}

impl CidrSelection {
    /// Whether nothing is selected.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::Only(list) if list.is_empty())
    }
}

impl FromStr for CidrSelection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "*" { Ok(Self::All) } else { text.parse().map(Self::Only) }
    }
}

/// The name of a network interface, without wildcards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.trim();
        let clean = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        // The kernel's IFNAMSIZ is 16 with its terminating zero. A leading dash would read as an option.
        if name.is_empty() || name.len() > 15 || !clean || name.starts_with('-') {
            return Err(format!("{text:?} is not an interface name (1 to 15 of letters, digits, '.', '_', '-')"));
        }
        if name == "lo" {
            return Err("lo cannot be excluded: its rules are the guard against loops".into());
        }
        Ok(Self(name.to_owned()))
    }
}

fn items(text: &str) -> Result<Vec<&str>, String> {
    let found: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    if found.len() > MAX_ITEMS {
        return Err(format!("{} items; at most {MAX_ITEMS} are allowed", found.len()));
    }
    Ok(found)
}
