//! Services that filters ask: the cluster that reaches them and what a question carries.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::{Name, format::Template};

/// `envoy.config.core.v3.GrpcService` with an Envoy client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcService {
    pub cluster: Name,
    /// In place of the cluster's name.
    pub authority: Option<HeaderValue>,
    /// `None` never.
    pub timeout: Option<Duration>,
    /// `initial_metadata`.
    pub metadata: Vec<(HeaderName, Template)>,
    /// Of an answer, in bytes.
    pub max_message: Option<u32>,
}

/// `envoy.config.core.v3.HttpUri`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUri {
    pub uri: Box<str>,
    pub cluster: Name,
    /// `None` never.
    pub timeout: Option<Duration>,
}
