//! External authorization: `envoy.extensions.filters.http.ext_authz.v3`.

use http::{HeaderName, StatusCode};

use super::{
    Fraction, Name,
    format::Template,
    matcher::{Regex, StringMatcher},
    metadata::MetadataMatcher,
    service::{GrpcService, HttpUri},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtAuthz {
    pub service: AuthService,
    /// Requests pass where the service cannot be asked.
    pub failure_mode_allow: bool,
    /// Such requests say so.
    pub failure_mode_header: bool,
    pub body: Option<BodySettings>,
    pub clear_route_cache: bool,
    pub status_on_error: StatusCode,
    pub validate_mutations: bool,
    pub metadata_namespaces: Vec<Box<str>>,
    pub route_metadata_namespaces: Vec<Box<str>>,
    /// `None`: all requests.
    pub enabled: Option<Fraction>,
    pub enabled_metadata: Option<MetadataMatcher>,
    pub deny_at_disable: bool,
    pub include_peer_certificate: bool,
    pub include_tls_session: bool,
    pub stat_prefix: Box<str>,
    /// `None`: all headers.
    pub allowed_headers: Option<Vec<StringMatcher>>,
    pub disallowed_headers: Vec<StringMatcher>,
    /// Header values as they are, not joined.
    pub raw_headers: bool,
    /// `decoder_header_mutation_rules`.
    pub rules: Option<MutationRules>,
    pub ingest_metadata: bool,
    /// Denials count as responses of the route's cluster.
    pub charge_cluster: bool,
    /// Of a denial's body; 0: all of it.
    pub max_denied_body: u32,
    /// Response headers beyond the limit are left out.
    pub enforce_header_limits: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthService {
    Grpc(GrpcService),
    Http(Box<HttpService>),
}

impl AuthService {
    pub fn cluster(&self) -> &Name {
        match self {
            Self::Grpc(service) => &service.cluster,
            Self::Http(service) => &service.uri.cluster,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpService {
    pub uri: HttpUri,
    pub path_prefix: Box<str>,
    /// The whole path.
    pub path_override: Option<Box<str>>,
    pub headers_to_add: Vec<(HeaderName, Template)>,
    /// Response headers that replace request headers, or are added to them.
    pub upstream_headers: Vec<StringMatcher>,
    pub upstream_headers_to_append: Vec<StringMatcher>,
    /// Headers of a denial for the client; `None`: all.
    pub client_headers: Option<Vec<StringMatcher>>,
    pub client_headers_on_success: Vec<StringMatcher>,
    pub metadata_from_headers: Vec<StringMatcher>,
}

/// `BufferSettings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodySettings {
    pub max_bytes: u32,
    /// More is left out; else it is answered with 413.
    pub partial: bool,
    /// As bytes, not as text.
    pub raw: bool,
}

/// `ExtAuthzPerRoute`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthzPerRoute {
    Disabled,
    Check(CheckSettings),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckSettings {
    /// In the order of their keys.
    pub context: Vec<(Box<str>, Box<str>)>,
    pub no_body: bool,
    pub body: Option<BodySettings>,
    /// In place of the filter's.
    pub service: Option<AuthService>,
}

/// `envoy.config.common.mutation_rules.v3.HeaderMutationRules`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MutationRules {
    pub allow_routing: bool,
    pub allow_envoy: bool,
    pub disallow_system: bool,
    pub disallow_all: bool,
    pub allow: Option<Regex>,
    pub disallow: Option<Regex>,
    /// A forbidden change fails the request; else it is left out.
    pub disallow_is_error: bool,
}
