//! Which policies of a large set can match at all, by what a request certainly has.
//!
//! A policy is filed under keys of which a matching request has at least one (a peer's name, a path, a source network);
//! one that has no such keys is always asked. Pruning only: whoever looks up still asks every policy found.

use std::{collections::BTreeSet, net::IpAddr};

use foldhash::{HashMap, HashMapExt};
use smallvec::SmallVec;

use super::{Policy, Rule, SanKind, SanMatcher};
use crate::ir::matcher::{Cidr, HeaderRule, Pattern, StringMatcher};

/// Fewer policies are asked one by one.
const LEAST: usize = 8;

/// Something that only some requests have.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    /// A name of the peer.
    Name(Box<str>),
    /// What stands between `/ns/` and the next slash of a name of the peer.
    Namespace(Box<str>),
    Path(Box<str>),
    Prefix(Box<str>),
    /// The authority in lower case.
    Host(Box<str>),
    Header(Box<str>, Box<str>),
    Peer(Cidr),
    Client(Cidr),
    Port(u16),
}

impl Key {
    /// The less, the fewer requests have such a key.
    fn weight(&self) -> u8 {
        match self {
            Self::Name(_) => 0,
            Self::Path(_) => 1,
            Self::Peer(_) | Self::Client(_) => 2,
            Self::Header(..) => 3,
            Self::Namespace(_) => 4,
            Self::Prefix(_) => 5,
            Self::Host(_) => 6,
            Self::Port(_) => 7,
        }
    }
}

/// Places of policies, in order.
pub type Places = SmallVec<[u32; 16]>;

type Filed<K> = HashMap<K, Box<[u32]>>;

/// See the module's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// `false`: every policy has to be asked, in order.
    pub useful: bool,
    always: Box<[u32]>,
    names: Filed<Box<str>>,
    namespaces: Filed<Box<str>>,
    paths: Filed<Box<str>>,
    prefixes: Filed<Box<str>>,
    /// Of the prefixes, ascending.
    prefix_lengths: Box<[usize]>,
    hosts: Filed<Box<str>>,
    headers: Box<[Header]>,
    peers: Networks,
    clients: Networks,
    ports: Filed<u16>,
}

/// A header's name, and policies by its value.
type Header = (Box<str>, Filed<Box<str>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Networks {
    filed: Filed<Cidr>,
    /// Whether the family is IPv6, and the length.
    lengths: Box<[(bool, u8)]>,
}

impl Networks {
    fn find(&self, ip: IpAddr, found: &mut Places) {
        for (_, length) in self.lengths.iter().filter(|(v6, _)| *v6 == ip.is_ipv6()) {
            if let Some(places) = Cidr::new(ip, *length).and_then(|net| self.filed.get(&net)) {
                found.extend_from_slice(places);
            }
        }
    }
}

impl Index {
    pub(super) fn new(policies: &[Policy]) -> Self {
        let mut index = Self::default();
        let mut filed: HashMap<Key, Vec<u32>> = HashMap::new();
        let mut always = Vec::new();
        for (place, policy) in (0u32..).zip(policies) {
            let keys =
                [&policy.permissions, &policy.principals].into_iter().filter_map(necessary).min_by_key(|k| cost(k));
            match keys {
                Some(keys) => keys.into_iter().for_each(|key| filed.entry(key).or_default().push(place)),
                None => always.push(place),
            }
        }
        if policies.len() < LEAST || always.len() == policies.len() {
            return index;
        }
        index.useful = true;
        index.always = always.into();
        let mut headers: HashMap<Box<str>, Filed<Box<str>>> = HashMap::new();
        for (key, places) in filed {
            let places: Box<[u32]> = places.into();
            match key {
                Key::Name(name) => drop(index.names.insert(name, places)),
                Key::Namespace(name) => drop(index.namespaces.insert(name, places)),
                Key::Path(path) => drop(index.paths.insert(path, places)),
                Key::Prefix(path) => drop(index.prefixes.insert(path, places)),
                Key::Host(host) => drop(index.hosts.insert(host, places)),
                Key::Header(name, value) => drop(headers.entry(name).or_default().insert(value, places)),
                Key::Peer(net) => drop(index.peers.filed.insert(net, places)),
                Key::Client(net) => drop(index.clients.filed.insert(net, places)),
                Key::Port(port) => drop(index.ports.insert(port, places)),
            }
        }
        let mut headers: Vec<_> = headers.into_iter().collect();
        headers.sort_by(|a, b| a.0.cmp(&b.0));
        index.headers = headers.into();
        let lengths: BTreeSet<usize> = index.prefixes.keys().map(|p| p.len()).collect();
        index.prefix_lengths = lengths.into_iter().collect();
        for networks in [&mut index.peers, &mut index.clients] {
            let lengths: BTreeSet<_> = networks.filed.keys().map(|n| (n.address.is_ipv6(), n.prefix_len)).collect();
            networks.lengths = lengths.into_iter().collect();
        }
        index
    }

    /// Begins a look-up with the policies that are always asked.
    pub fn begin(&self) -> Places {
        Places::from_slice(&self.always)
    }

    pub fn name(&self, name: &str, found: &mut Places) {
        extend(&self.names, name, found);
        if !self.namespaces.is_empty() {
            for (at, marker) in name.match_indices(NAMESPACE) {
                if let Some((namespace, _)) = name[at + marker.len()..].split_once('/') {
                    extend(&self.namespaces, namespace, found);
                }
            }
        }
    }

    /// `path` has neither query nor fragment.
    pub fn path(&self, path: &str, found: &mut Places) {
        extend(&self.paths, path, found);
        for length in self.prefix_lengths.iter().take_while(|length| **length <= path.len()) {
            if let Some(prefix) = path.get(..*length) {
                extend(&self.prefixes, prefix, found);
            }
        }
    }

    pub fn host(&self, authority: &str, found: &mut Places) {
        if self.hosts.is_empty() {
            return;
        }
        if authority.bytes().any(|b| b.is_ascii_uppercase()) {
            extend(&self.hosts, &authority.to_ascii_lowercase(), found);
        } else {
            extend(&self.hosts, authority, found);
        }
    }

    /// Headers that policies are filed under.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        self.headers.iter().map(|(name, _)| &**name)
    }

    pub fn header(&self, name: &str, value: &str, found: &mut Places) {
        if let Some((_, filed)) = self.headers.iter().find(|(known, _)| **known == *name) {
            extend(filed, value, found);
        }
    }

    pub fn peer(&self, ip: IpAddr, found: &mut Places) {
        self.peers.find(ip, found);
    }

    pub fn client(&self, ip: IpAddr, found: &mut Places) {
        self.clients.find(ip, found);
    }

    pub fn port(&self, port: u16, found: &mut Places) {
        if let Some(places) = self.ports.get(&port) {
            found.extend_from_slice(places);
        }
    }
}

fn extend(filed: &Filed<Box<str>>, key: &str, found: &mut Places) {
    if let Some(places) = filed.get(key) {
        found.extend_from_slice(places);
    }
}

fn cost(keys: &[Key]) -> (u8, usize) {
    (keys.iter().map(Key::weight).max().unwrap_or_default(), keys.len())
}

/// Keys of which every request that `rule` matches has at least one; `None` where there are no such keys.
fn necessary(rule: &Rule) -> Option<Vec<Key>> {
    let exact = |matcher: &StringMatcher| match &matcher.pattern {
        Pattern::Exact(text) if !matcher.ignore_case => Some(text.clone()),
        _ => None,
    };
    match rule {
        Rule::All(rules) => rules.iter().filter_map(necessary).min_by_key(|k| cost(k)),
        Rule::OneOf(rules) => {
            let mut keys = BTreeSet::new();
            for rule in rules {
                keys.extend(necessary(rule)?);
            }
            Some(keys.into_iter().collect())
        }
        Rule::Path(matcher) => match &matcher.pattern {
            Pattern::Exact(text) if !matcher.ignore_case => Some(vec![Key::Path(text.clone())]),
            Pattern::Prefix(text) if !matcher.ignore_case => Some(vec![Key::Prefix(text.clone())]),
            _ => None,
        },
        Rule::Header(header) => {
            let HeaderRule::Value(matcher) = &header.rule else { return None };
            if header.invert || header.treat_missing_as_empty {
                return None;
            }
            match (&*header.name, &matcher.pattern) {
                (":authority", Pattern::Exact(text)) => Some(vec![Key::Host(text.to_ascii_lowercase().into())]),
                (name, _) if name.starts_with(':') => None,
                (name, _) => Some(vec![Key::Header(name.into(), exact(matcher)?)]),
            }
        }
        Rule::Authenticated(Some(matcher))
        | Rule::PeerPrincipal(matcher)
        | Rule::Mtls(Some(SanMatcher { kind: SanKind::Uri, matcher })) => match &matcher.pattern {
            Pattern::Regex(regex) => namespace(regex.as_str()).map(|n| vec![Key::Namespace(n.into())]),
            _ => exact(matcher).map(|name| vec![Key::Name(name)]),
        },
        Rule::Peer(net) => Some(vec![Key::Peer(*net)]),
        Rule::Client(net) => Some(vec![Key::Client(*net)]),
        Rule::DestinationPort { start, end } if *end == *start + 1 => {
            u16::try_from(*start).ok().map(|port| vec![Key::Port(port)])
        }
        Rule::Any
        | Rule::Not(_)
        | Rule::Template(_)
        | Rule::DestinationIp(_)
        | Rule::DestinationPort { .. }
        | Rule::ServerName(_)
        | Rule::Authenticated(None)
        | Rule::Mtls(_)
        | Rule::Metadata(..) => None,
    }
}

const NAMESPACE: &str = "/ns/";

/// The namespace that names matching this expression have, where it is the one Istio writes for a namespace.
fn namespace(anchored: &str) -> Option<&str> {
    let source = anchored.strip_prefix("^(?:")?.strip_suffix(")$")?;
    let name = source.strip_prefix(".*")?.strip_prefix(NAMESPACE)?.strip_suffix("/.*")?;
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    plain.then_some(name)
}
