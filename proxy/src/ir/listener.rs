//! Listeners and filter chains (`envoy.config.listener.v3`).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{
    Name,
    format::AccessLog,
    http::ConnectionManager,
    matcher::Cidr,
    network::NetworkFilter,
    route::{HashPolicy, WeightedTarget},
    secret::DownstreamTls,
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    #[default]
    Unspecified,
    Inbound,
    Outbound,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub name: Name,
    /// The primary address first, then `additional_addresses`.
    pub addresses: Vec<SocketAddr>,
    pub bind_to_port: bool,
    /// Hand accepted connections to the listener that matches their original destination.
    pub use_original_dst: bool,
    pub direction: Direction,
    pub inspectors: Inspectors,
    /// `None` is Envoy's 0: wait for ever. The data path still applies its own documented upper bound.
    pub inspection_timeout: Option<Duration>,
    pub continue_on_inspection_timeout: bool,
    pub chains: Vec<Arc<FilterChain>>,
    pub default_chain: Option<Arc<FilterChain>>,
    /// Hard cap of open connections of this listener over all workers; `None` is unlimited.
    pub connection_limit: Option<u64>,
    pub stat_prefix: Name,
    /// Bound on bytes buffered per direction.
    pub buffer_limit: u32,
    pub backlog: u32,
    pub transparent: bool,
    pub freebind: bool,
    pub keepalive: Option<Keepalive>,
    pub access_log: Vec<AccessLog>,
}

/// The listener filters that are present, each with the predicate that switches it off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspectors {
    pub original_dst: bool,
    pub tls: Option<Inspector>,
    pub http: Option<Inspector>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspector {
    /// `filter_disabled`: the filter is skipped where this holds.
    pub disabled: Option<PortPredicate>,
}

impl Inspector {
    /// Whether the filter runs for a connection to `destination_port`.
    pub fn enabled_for(&self, destination_port: u16) -> bool {
        !self.disabled.as_ref().is_some_and(|p| p.matches(destination_port))
    }
}

/// `ListenerFilterChainMatchPredicate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortPredicate {
    Any,
    Or(Vec<PortPredicate>),
    And(Vec<PortPredicate>),
    Not(Box<PortPredicate>),
    /// Half-open range of destination ports.
    DestinationPort {
        start: u32,
        end: u32,
    },
}

impl PortPredicate {
    pub fn matches(&self, port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::Or(rules) => rules.iter().any(|r| r.matches(port)),
            Self::And(rules) => rules.iter().all(|r| r.matches(port)),
            Self::Not(rule) => !rule.matches(port),
            Self::DestinationPort { start, end } => (*start..*end).contains(&u32::from(port)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    pub probes: Option<u32>,
    pub time: Option<Duration>,
    pub interval: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterChain {
    pub name: Name,
    pub matches: ChainMatch,
    /// `None`: plaintext (`raw_buffer`).
    pub tls: Option<Arc<DownstreamTls>>,
    /// `transport_socket_connect_timeout`: bound on the TLS handshake.
    pub handshake_timeout: Duration,
    /// Serves plaintext only until STRICT mutual TLS is enforced: whoever comes here is counted and named.
    pub strict_trial: bool,
    /// Before the terminal one, in configured order.
    pub filters: Vec<NetworkFilter>,
    pub terminal: Terminal,
}

impl FilterChain {
    /// Whether the two differ at most in who may do what: connections need not end for it.
    pub fn same_but_policy(&self, other: &Self) -> bool {
        let Self { name, matches, tls, handshake_timeout, strict_trial: _, filters: _, terminal } = self;
        *name == other.name
            && *matches == other.matches
            && *tls == other.tls
            && *handshake_timeout == other.handshake_timeout
            && match (terminal, &other.terminal) {
                (Terminal::Tcp(a), Terminal::Tcp(b)) => a == b,
                (Terminal::Http(a), Terminal::Http(b)) => a.same_but_policy(b),
                (Terminal::Tcp(_) | Terminal::Http(_), _) => false,
            }
    }
}

impl FilterChain {
    /// Whether the two differ at most in who may do what, in what is told of it and how long it may take: new connections
    /// are to come by the other one, those under way need not end.
    pub fn same_but_settings(&self, other: &Self) -> bool {
        let Self { name: _, matches, tls, handshake_timeout: _, strict_trial: _, filters: _, terminal } = self;
        let tcp = |proxy: &TcpProxy| TcpProxy {
            stat_prefix: "".into(),
            istio_stats: None,
            idle_timeout: None,
            max_connection_duration: None,
            max_connect_attempts: 1,
            access_log: Vec::new(),
            ..proxy.clone()
        };
        *matches == other.matches
            && *tls == other.tls
            && match (terminal, &other.terminal) {
                (Terminal::Tcp(a), Terminal::Tcp(b)) => tcp(a) == tcp(b),
                (Terminal::Http(a), Terminal::Http(b)) => a.same_but_settings(b),
                (Terminal::Tcp(_) | Terminal::Http(_), _) => false,
            }
    }
}

/// `FilterChainMatch`; empty lists and `None` match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainMatch {
    pub destination_port: Option<u16>,
    pub destination_ranges: Vec<Cidr>,
    /// Lower case; `*.example.com` is a suffix match.
    pub server_names: Vec<Box<str>>,
    pub transport: Option<Transport>,
    pub application_protocols: Vec<Box<str>>,
    pub direct_source_ranges: Vec<Cidr>,
    pub source_type: SourceType,
    pub source_ranges: Vec<Cidr>,
    pub source_ports: Vec<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    RawBuffer,
    Tls,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceType {
    #[default]
    Any,
    SameIpOrLoopback,
    External,
}

/// The last network filter of a chain, the one that consumes the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Terminal {
    Tcp(Arc<TcpProxy>),
    Http(Arc<ConnectionManager>),
}

/// `istio.stats`: Istio's standard metrics are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IstioStats {
    /// A service without another name is called by the host that a request asks for.
    pub host_fallback: bool,
    /// How often the bytes of an open TCP connection are counted.
    pub tcp_interval: Duration,
}

/// `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpProxy {
    pub stat_prefix: Name,
    /// Of the chain.
    pub istio_stats: Option<IstioStats>,
    /// At least one; a plain `cluster` is one target of weight 1.
    pub targets: Vec<WeightedTarget>,
    /// Default one hour; `None` never.
    pub idle_timeout: Option<Duration>,
    pub max_connection_duration: Option<Duration>,
    /// `max_connect_attempts`, at least 1.
    pub max_connect_attempts: u32,
    pub hash_policy: Vec<HashPolicy>,
    pub access_log: Vec<AccessLog>,
}
