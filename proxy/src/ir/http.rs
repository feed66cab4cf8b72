//! The HTTP connection manager (`envoy.extensions.filters.network.http_connection_manager.v3`).

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, StatusCode};

use super::{
    ConfigSource, Name,
    ext_authz::ExtAuthz,
    filters::{Concurrency, Fault, Mutations},
    format::{AccessLog, LogFilter},
    jwt_authn::{JwksSource, JwtAuthn},
    listener::IstioStats,
    matcher::Cidr,
    rate_limit::{GlobalRateLimit, LocalRateLimit},
    rbac::Rbac,
    route::{BodyFormat, HeaderOps, RouteConfiguration},
    tracing::Tracing,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionManager {
    pub stat_prefix: Name,
    pub istio_stats: Option<IstioStats>,
    pub codec: Codec,
    pub routes: RouteSource,
    /// In configured order; the router is last and always there.
    pub filters: Vec<HttpFilter>,
    pub http1: Http1Options,
    pub http2: Http2Options,
    /// Downstream connection without active requests: default one hour, `None` never.
    pub idle_timeout: Option<Duration>,
    pub max_connection_duration: Option<Duration>,
    pub max_requests_per_connection: Option<u32>,
    /// No byte in either direction on a stream: default five minutes, `None` never.
    pub stream_idle_timeout: Option<Duration>,
    /// `stream_flush_timeout`, where it differs.
    pub stream_flush_timeout: Option<Option<Duration>>,
    /// The whole request must have arrived within this.
    pub request_timeout: Option<Duration>,
    pub request_headers_timeout: Option<Duration>,
    pub max_stream_duration: Option<Duration>,
    /// How long a drained connection may go on after `Connection: close` or GOAWAY.
    pub drain_timeout: Duration,
    /// Request header bytes, default 60 KiB.
    pub max_header_bytes: u32,
    /// Request header count, default 100.
    pub max_header_count: u32,
    pub underscores: Underscores,
    pub normalize_path: bool,
    pub merge_slashes: bool,
    pub escaped_slashes: EscapedSlashes,
    pub strip_port: StripPort,
    /// The value of `server` where the proxy sets it.
    pub server_name: HeaderValue,
    pub server_header: ServerHeader,
    /// The value of `via` to append, if any.
    pub via: Box<str>,
    pub use_remote_address: bool,
    pub xff_trusted_hops: u32,
    pub skip_xff_append: bool,
    /// `internal_address_config`: clients from here may steer this proxy with `x-envoy-*` headers. None by default.
    pub internal_networks: Vec<Cidr>,
    pub append_forwarded_port: bool,
    pub client_cert: ForwardClientCert,
    pub client_cert_details: ClientCertDetails,
    pub generate_request_id: bool,
    pub preserve_external_request_id: bool,
    pub request_id_in_response: bool,
    /// Upgrade types that are allowed by default, lower case, with their state (`websocket`, `connect`, ...).
    pub upgrades: Vec<(Box<str>, bool)>,
    pub proxy_100_continue: bool,
    pub access_log: Vec<AccessLog>,
    pub local_reply: Option<Box<LocalReply>>,
    pub tracing: Option<Arc<Tracing>>,
}

/// `local_reply_config`: what becomes of answers that this proxy gives itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalReply {
    /// The first that accepts the exchange counts.
    pub mappers: Vec<ReplyMapper>,
    pub format: Option<BodyFormat>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyMapper {
    pub filter: LogFilter,
    pub status: Option<StatusCode>,
    pub body: Option<Box<str>>,
    /// Additions to the response.
    pub headers: HeaderOps,
    pub format: Option<BodyFormat>,
}

impl ConnectionManager {
    /// Whether the two differ at most in filters that decide who may do what.
    pub fn same_but_policy(&self, other: &Self) -> bool {
        let without = |manager: &Self| {
            let filters = manager.filters.iter().filter(|f| !f.kind.is_policy()).cloned().collect();
            Self { filters, ..manager.clone() }
        };
        without(self) == without(other)
    }

    /// Whether the two differ at most in those, and in what is told of requests, how long they may take and how own
    /// answers look: nothing for which a stream under way would have to end.
    pub fn same_but_settings(&self, other: &Self) -> bool {
        let without = |manager: &Self| Self {
            stat_prefix: "".into(),
            istio_stats: None,
            idle_timeout: None,
            max_connection_duration: None,
            max_requests_per_connection: None,
            stream_idle_timeout: None,
            stream_flush_timeout: None,
            request_timeout: None,
            request_headers_timeout: None,
            max_stream_duration: None,
            drain_timeout: Duration::ZERO,
            request_id_in_response: false,
            access_log: Vec::new(),
            local_reply: None,
            tracing: None,
            ..manager.clone()
        };
        without(self).same_but_policy(&without(other))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// Decided by the first bytes (the HTTP/2 preface) or by ALPN.
    #[default]
    Auto,
    Http1,
    Http2,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteSource {
    Inline(Arc<RouteConfiguration>),
    Rds { name: Name, source: ConfigSource },
}

/// One HTTP filter. Filters that do nothing on the data path are not here: the decoder warns about them once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpFilter {
    pub name: Name,
    pub kind: FilterKind,
    /// Off unless a route switches it on.
    pub disabled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterKind {
    /// Istio's `istio.alpn`: overrides the ALPN that the upstream TLS handshake offers.
    Alpn(AlpnOverride),
    Fault(Arc<Fault>),
    /// Its policies are in the routes.
    Cors,
    HeaderMutation {
        mutations: Arc<Mutations>,
        /// Levels are applied from the least to the most specific one.
        most_specific_wins: bool,
    },
    /// Gathers the whole request, up to so many bytes, before it goes on.
    Buffer(u32),
    AdaptiveConcurrency(Arc<Concurrency>),
    GrpcWeb,
    LocalRateLimit(Arc<LocalRateLimit>),
    RateLimit(Arc<GlobalRateLimit>),
    Rbac(Arc<Rbac>),
    ExtAuthz(Arc<ExtAuthz>),
    JwtAuthn(Arc<JwtAuthn>),
    Router(Router),
}

impl FilterKind {
    /// Whether it decides who may do what, by nothing but the request: a connection can go on under other rules.
    pub fn is_policy(&self) -> bool {
        match self {
            Self::Rbac(_) | Self::LocalRateLimit(_) | Self::RateLimit(_) | Self::ExtAuthz(_) | Self::JwtAuthn(_) => {
                true
            }
            Self::Alpn(_)
            | Self::Fault(_)
            | Self::Cors
            | Self::HeaderMutation { .. }
            | Self::Buffer(_)
            | Self::AdaptiveConcurrency(_)
            | Self::GrpcWeb
            | Self::Router(_) => false,
        }
    }

    /// The clusters of the services that the filter asks.
    pub fn clusters(&self) -> impl Iterator<Item = &Name> {
        let asked = match self {
            Self::ExtAuthz(config) => Some(config.service.cluster()),
            Self::RateLimit(config) => Some(&config.service.cluster),
            _ => None,
        };
        let providers = match self {
            Self::JwtAuthn(config) => &config.providers[..],
            _ => &[],
        };
        let keys = providers.iter().filter_map(|provider| match &provider.keys {
            JwksSource::Remote(remote) => Some(&remote.uri.cluster),
            JwksSource::Local(_) => None,
        });
        asked.into_iter().chain(keys)
    }
}

/// ALPN lists per protocol of the upstream request; an empty list means no override.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlpnOverride {
    pub http10: Arc<[Box<str>]>,
    pub http11: Arc<[Box<str>]>,
    pub http2: Arc<[Box<str>]>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Router {
    /// Do not add `x-envoy-*` headers. Those of internal requests are obeyed all the same.
    pub suppress_envoy_headers: bool,
    pub respect_expected_rq_timeout: bool,
    /// As `tracing.spawn_upstream_span`.
    pub start_child_span: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http1Options {
    pub accept_http_10: bool,
    pub default_host_for_http_10: Box<str>,
    /// Keep the header case of HTTP/1 messages. On by default: applications must not notice.
    pub preserve_case: bool,
    pub trailers: bool,
}

impl Default for Http1Options {
    fn default() -> Self {
        Self { accept_http_10: true, default_host_for_http_10: "".into(), preserve_case: true, trailers: true }
    }
}

/// HTTP/2 settings, down- and upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2Options {
    pub max_concurrent_streams: u32,
    pub stream_window: u32,
    pub connection_window: u32,
    pub keepalive_interval: Option<Duration>,
    pub keepalive_timeout: Duration,
    /// Whether clients may ask for upgrades (RFC 8441).
    pub allow_connect: bool,
}

impl Default for Http2Options {
    /// Envoy's documented secure values where it names any; windows sized for a mesh hop.
    fn default() -> Self {
        Self {
            max_concurrent_streams: 1024,
            stream_window: 1 << 20,
            connection_window: 4 << 20,
            keepalive_interval: None,
            keepalive_timeout: Duration::from_secs(20),
            allow_connect: false,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underscores {
    #[default]
    Allow,
    RejectRequest,
    DropHeader,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    #[default]
    Keep,
    Reject,
    UnescapeAndRedirect,
    UnescapeAndForward,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StripPort {
    #[default]
    No,
    /// Only when it equals the local port.
    Matching,
    Any,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerHeader {
    #[default]
    Overwrite,
    AppendIfAbsent,
    PassThrough,
}

/// `forward_client_cert_details`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardClientCert {
    #[default]
    Sanitize,
    ForwardOnly,
    AppendForward,
    SanitizeSet,
    AlwaysForwardOnly,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCertDetails {
    pub subject: bool,
    pub cert: bool,
    pub chain: bool,
    pub dns: bool,
    pub uri: bool,
}
