//! JSON web tokens: `envoy.extensions.filters.http.jwt_authn.v3`.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;

use super::{matcher::StringMatcher, route::RouteMatch, service::HttpUri};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtAuthn {
    /// In the order of their names.
    pub providers: Vec<JwtProvider>,
    /// The first that matches counts.
    pub rules: Vec<JwtRule>,
    /// `requirement_map`, in the order of its names.
    pub requirements: Vec<(Box<str>, Requirement)>,
    pub bypass_cors_preflight: bool,
    pub strip_failure_response: bool,
    pub stat_prefix: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtRule {
    pub matches: RouteMatch,
    /// `None`: nothing is asked for.
    pub requirement: Option<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// By its place among the providers, with audiences in place of its own unless there are none.
    Provider(usize, Vec<Box<str>>),
    Any(Vec<Requirement>),
    All(Vec<Requirement>),
    AllowMissing,
    AllowMissingOrFailed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtProvider {
    pub name: Box<str>,
    /// Empty: any.
    pub issuer: Box<str>,
    /// Empty: any.
    pub audiences: Vec<Box<str>>,
    pub subjects: Option<StringMatcher>,
    pub require_expiration: bool,
    pub max_lifetime: Option<Duration>,
    /// The token goes on to the upstream.
    pub forward: bool,
    /// Where tokens are: headers with what stands before the token, query parameters, cookies.
    pub headers: Vec<(HeaderName, Box<str>)>,
    pub params: Vec<Box<str>>,
    pub cookies: Vec<Box<str>>,
    pub payload_header: Option<HeaderName>,
    pub pad_payload: bool,
    /// Names in the metadata.
    pub payload_key: Box<str>,
    pub header_key: Box<str>,
    pub failed_key: Box<str>,
    /// Claims whose words become a list in the metadata.
    pub space_delimited: Vec<Box<str>>,
    pub clock_skew: u64,
    /// Headers and the claims that they get.
    pub claims: Vec<(HeaderName, Vec<Box<str>>)>,
    pub clear_route_cache: bool,
    pub keys: JwksSource,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwksSource {
    Local(Bytes),
    Remote(Box<RemoteJwks>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteJwks {
    pub uri: HttpUri,
    pub cache: Duration,
    /// `async_fetch`: keys are fetched before they are needed, known ones go on meanwhile; with the pause after a fetch
    /// that failed.
    pub ahead: Option<Duration>,
    pub retries: u32,
    pub backoff: Duration,
}

/// `PerRouteConfig`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtPerRoute {
    Disabled,
    /// By its name in `requirement_map`.
    Requirement(Box<str>),
}
