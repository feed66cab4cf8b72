//! The mesh as one load saw it: services with their endpoints, workloads, and the policies over them.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    attachment::{Attached, Place},
    authorization::AuthorizationPolicy,
    destination_rule::DestinationRule,
    document::{Object, Source},
    mesh_config::MeshConfig,
    names::Visibility,
    peer_authentication::{self, Chosen, PeerAuthentication, Policy},
    protocol::Protocol,
    rate_limit::RateLimit,
    request_authentication::RequestAuthentication,
    settings::Settings,
    sidecar::{self, Sidecar},
    virtual_service::{self, VirtualService},
    workload::{Address, Locality, Workload},
};

/// The validated, immutable state of the mesh as one load of the configuration saw it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct World {
    pub settings: Settings,
    /// By host.
    pub services: BTreeMap<String, Service>,
    pub workloads: Vec<Workload>,
    /// With absolute hosts and destinations, delegates resolved, and their visibility. Oldest first.
    pub virtual_services: Vec<(Visibility, Object<VirtualService>)>,
    pub destination_rules: Vec<(Visibility, Object<DestinationRule>)>,
    /// Oldest first, as all that follow.
    pub peer_authentications: Vec<Object<PeerAuthentication>>,
    pub authorization_policies: Vec<Object<AuthorizationPolicy>>,
    pub request_authentications: Vec<Object<RequestAuthentication>>,
    pub mesh: MeshConfig,
    pub sidecars: Vec<Object<Sidecar>>,
    /// By namespace and name.
    pub rate_limits: Vec<Object<RateLimit>>,
    /// What the operator should know although it is no error.
    pub notes: Vec<String>,
    /// How many documents it was read from, those of other kinds too.
    pub documents: usize,
    pub(super) by_address: HashMap<IpAddr, Vec<usize>>,
    pub(super) routes: Index,
    pub(super) rules: Index,
}

/// A service of the mesh, whoever declared it.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    pub host: String,
    pub name: String,
    pub namespace: String,
    /// Declared by a Kubernetes Service, so it has short names.
    pub kubernetes: bool,
    /// Virtual addresses, or the prefixes a ServiceEntry covers.
    pub addresses: Vec<Cidr>,
    /// `clusterIP: None`: clients see and choose the addresses of the Pods.
    pub headless: bool,
    pub ports: Vec<Port>,
    pub resolution: Resolution,
    /// Outside of the mesh: no mutual TLS of ours.
    pub external: bool,
    pub visibility: Visibility,
    pub subject_alt_names: Vec<String>,
    /// `trafficDistribution` asks for near endpoints while there are any.
    pub prefers_close: bool,
    /// Sorted by address.
    pub endpoints: Vec<Endpoint>,
    /// The addresses and ports of a Kubernetes Service's workloads, of those too that take no traffic yet or any more:
    /// what is for the Service holds there, as callers need not come by its endpoints.
    pub behind: Vec<(Address, Vec<u16>)>,
    pub(super) source: Source,
}

impl Service {
    /// The port with that number.
    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    pub name: String,
    pub number: u16,
    pub protocol: Protocol,
}

/// How the addresses behind a service are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    Endpoints,
    Dns,
    DnsRoundRobin,
    /// Where the client pointed.
    OriginalDst,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    pub address: Address,
    /// By number of the service's port.
    pub ports: BTreeMap<u16, EndpointPort>,
    pub namespace: String,
    pub service_account: String,
    pub labels: BTreeMap<String, String>,
    pub weight: u32,
    pub locality: Locality,
    pub hostname: Option<String>,
    /// What it belongs to (a Deployment, say), for metrics; may be empty.
    pub workload: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// Where the application listens.
    pub number: u16,
    /// A sidecar takes mutual TLS here.
    pub mtls: bool,
}

/// An address prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    pub address: IpAddr,
    pub length: u8,
}

impl Cidr {
    /// The prefix of one address.
    pub fn host(address: IpAddr) -> Self {
        Self { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// An address or `address/length`; bits beyond the length are cleared.
    pub fn parse(text: &str) -> Option<Self> {
        let Some((address, length)) = text.split_once('/') else {
            return text.parse().ok().map(Self::host);
        };
        let (address, length): (IpAddr, u8) = (address.parse().ok()?, length.parse().ok()?);
        let address = match address {
            IpAddr::V4(ip) if length <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask))
            }
            IpAddr::V6(ip) if length <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
            }
            _ => return None,
        };
        Some(Self { address, length })
    }

    /// The one address it covers, if it covers one.
    pub fn single(&self) -> Option<IpAddr> {
        (*self == Self::host(self.address)).then_some(self.address)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl World {
    /// The workload of `namespace` at one of `addresses`. Namespaces part: an address alone proves nothing. Of several
    /// one with the client's service account, which is proven, goes before others; then one with its name; then the first.
    pub fn workload(
        &self,
        (namespace, service_account, name): (&str, &str, Option<&str>),
        addresses: &[IpAddr],
    ) -> Option<&Workload> {
        let at = addresses.iter().filter_map(|ip| self.by_address.get(ip)).flatten();
        let here = at.map(|index| &self.workloads[*index]).filter(|workload| workload.namespace == namespace);
        // Of equals `min_by_key` takes the first.
        here.min_by_key(|w| (w.service_account != service_account, name != Some(w.name.as_str())))
    }

    /// The first workload at an address, of those that take traffic if there is one.
    pub fn at(&self, ip: IpAddr) -> Option<&Workload> {
        let here = self.by_address.get(&ip)?.iter().map(|index| &self.workloads[*index]);
        here.min_by_key(|workload| !workload.ready)
    }

    /// The trust domain and its other names.
    pub fn trust_domains(&self) -> impl Iterator<Item = &str> {
        let aliases = self.mesh.trust_domain_aliases.iter().map(|alias| alias.0.as_str());
        std::iter::once(self.settings.trust_domain.as_str()).chain(aliases)
    }

    /// What PeerAuthentication demands of a workload.
    pub fn peer_policy(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Policy {
        self.peer_authentication(namespace, labels, false).policy()
    }

    /// The PeerAuthentications that count for a workload. With `dry_run`, those which are only tried count before the
    /// others of their level, in whose place they are meant to come.
    pub fn peer_authentication(&self, namespace: &str, labels: &BTreeMap<String, String>, dry_run: bool) -> Chosen<'_> {
        let tried = self.peer_authentications.iter().filter(|object| dry_run && object.is_dry_run());
        let in_force = self.peer_authentications.iter().filter(|object| !object.is_dry_run());
        peer_authentication::choose(tried.chain(in_force), &self.settings, namespace, labels)
    }

    /// The AuthorizationPolicies that hold at a port.
    pub fn authorization<'a>(&'a self, place: Place<'a>) -> impl Iterator<Item = &'a Object<AuthorizationPolicy>> {
        self.holding(&self.authorization_policies, place)
    }

    /// The RequestAuthentications that hold at a port.
    pub fn request_authentication<'a>(
        &'a self,
        place: Place<'a>,
    ) -> impl Iterator<Item = &'a Object<RequestAuthentication>> {
        self.holding(&self.request_authentications, place)
    }

    /// Whether some policy is for what lies behind a Service.
    pub(crate) fn has_policies_of_services(&self) -> bool {
        fn any<T: Attached>(objects: &[Object<T>]) -> bool {
            objects.iter().any(|object| object.spec.target_refs().next().is_some())
        }
        any(&self.authorization_policies) || any(&self.request_authentications)
    }

    /// Whether some policy is for what lies behind `service`.
    pub(crate) fn has_policies_of(&self, service: &Service) -> bool {
        fn any<T: Attached>(objects: &[Object<T>], service: &Service) -> bool {
            let own = |object: &&Object<T>| object.meta.namespace == service.namespace;
            let mut targets = objects.iter().filter(own).flat_map(|object| object.spec.target_refs());
            service.kubernetes && targets.any(|target| target.is_service() && target.name == service.name)
        }
        any(&self.authorization_policies, service) || any(&self.request_authentications, service)
    }

    fn holding<'a, T: Attached>(
        &'a self,
        objects: &'a [Object<T>],
        place: Place<'a>,
    ) -> impl Iterator<Item = &'a Object<T>> {
        objects.iter().filter(move |object| object.holds_at(&self.settings, place))
    }

    /// The VirtualServices for `host` that sidecars of `namespace` see, those that count before others first: exact
    /// names before longer wildcards before shorter, narrower visibility before wider, older before younger.
    pub fn virtual_services(&self, namespace: &str, host: &str) -> impl Iterator<Item = &Object<VirtualService>> {
        let seen = move |(visibility, object): &&(Visibility, Object<VirtualService>)| {
            visibility.includes(namespace) && virtual_service::for_mesh(&object.spec.gateways)
        };
        self.routes.by_pattern(host).flat_map(move |places| {
            let mut found: Vec<_> = places.iter().map(|index| &self.virtual_services[*index]).filter(seen).collect();
            found.sort_by_key(|(visibility, object)| visibility.width(&object.meta.namespace));
            found.into_iter().map(|(_, object)| object)
        })
    }

    /// The first of [`Self::virtual_services`].
    pub fn virtual_service(&self, namespace: &str, host: &str) -> Option<&Object<VirtualService>> {
        self.virtual_services(namespace, host).next()
    }

    /// The Sidecar that holds for a workload.
    pub fn sidecar(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Option<&Object<Sidecar>> {
        sidecar::resolve(&self.sidecars, |ns| self.settings.is_root(ns), namespace, labels)
    }

    /// The DestinationRule for calls to `host`, which namespace `owner` declares, by a workload of `namespace` with
    /// `labels`: the caller's before the owner's before the mesh's, one for these callers before one for all.
    pub fn destination_rule(
        &self,
        (namespace, labels): (&str, &BTreeMap<String, String>),
        owner: &str,
        host: &str,
    ) -> Option<&Object<DestinationRule>> {
        let of = |wanted: &dyn Fn(&str) -> bool| {
            self.rules.by_pattern(host).find_map(|places| {
                let seen = |(seen, object): &&(Visibility, Object<DestinationRule>)| {
                    wanted(&object.meta.namespace) && seen.includes(namespace)
                };
                let mut found = places.iter().map(|index| &self.destination_rules[*index]).filter(seen);
                let mut whole = None;
                let chosen = found.find(|(_, object)| match object.spec.callers() {
                    Some(callers) => peer_authentication::subset(callers, labels),
                    None => {
                        whole = whole.or(Some(object));
                        false
                    }
                });
                chosen.map(|(_, object)| object).or(whole)
            })
        };
        let own = of(&|ns| ns == namespace).or_else(|| of(&|ns| ns == owner));
        own.or_else(|| of(&|ns| self.settings.is_root(ns)))
    }

    /// The RateLimits for a workload: those of its namespace, and those of a root namespace.
    pub fn rate_limits<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a Object<RateLimit>> {
        self.rate_limits.iter().filter(move |object| self.limits(object, namespace, labels))
    }

    /// Whether `object` is for a workload of `namespace` with `labels`.
    pub fn limits(&self, object: &Object<RateLimit>, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        let here = object.meta.namespace == namespace || self.settings.is_root(&object.meta.namespace);
        here && object.spec.selects(labels)
    }

    /// To be called once both lists are complete.
    pub(super) fn index(&mut self) {
        let hosts = self.virtual_services.iter().map(|(_, object)| object.spec.hosts.as_slice());
        self.routes = Index::new(hosts);
        let hosts = self.destination_rules.iter().map(|(_, object)| std::slice::from_ref(&object.spec.host));
        self.rules = Index::new(hosts);
    }

    /// Whether some DestinationRule for `host` that calls of `namespace` may follow has the subset.
    pub fn has_subset(&self, namespace: &str, host: &str, name: &str) -> bool {
        let mut rules = self.rules.by_pattern(host).flatten().map(|index| &self.destination_rules[*index]);
        rules.any(|(seen, object)| {
            seen.includes(namespace) && object.spec.subsets.iter().any(|subset| subset.name == name)
        })
    }
}

/// Places in a list by the host patterns that lead to them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Index(HashMap<String, Vec<usize>>);

impl Index {
    fn new<'a>(hosts: impl Iterator<Item = &'a [String]>) -> Self {
        let mut index: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, patterns) in hosts.enumerate() {
            for pattern in patterns {
                index.entry(pattern.clone()).or_default().push(place);
            }
        }
        Self(index)
    }

    /// Those whose pattern covers `host`, by pattern, the most specific first.
    fn by_pattern(&self, host: &str) -> impl Iterator<Item = &Vec<usize>> {
        let suffixes = host.match_indices('.').map(|(at, _)| format!("*{}", &host[at..]));
        let patterns = std::iter::once(host.to_owned()).chain(suffixes).chain(["*".to_owned()]);
        patterns.filter_map(|pattern| self.0.get(&pattern))
    }
}
