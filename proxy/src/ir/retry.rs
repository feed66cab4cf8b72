//! Retry policies (`envoy.config.route.v3.RetryPolicy`).

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use http::HeaderName;

use super::{Metadata, matcher::HeaderMatcher};

/// `RetryPolicy`. What is provably safe is replayed without any policy; this is for everything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    pub on: RetryOn,
    /// Retries after the first attempt.
    pub max_retries: u32,
    pub per_try_timeout: Option<Duration>,
    pub per_try_idle_timeout: Option<Duration>,
    pub retriable_status: Vec<u16>,
    pub retriable_headers: Vec<HeaderMatcher>,
    /// Unless it is empty, one of these must match the request for it to be retried.
    pub retriable_request_headers: Vec<HeaderMatcher>,
    pub backoff_base: Duration,
    pub backoff_max: Duration,
    /// `rate_limited_retry_back_off`: where a response says when to come back. In the order they are tried.
    pub reset_headers: Vec<ResetHeader>,
    /// Longer waits than this that a response asks for are not believed.
    pub reset_max: Duration,
    /// `retry_priority: previous_priorities`, with its `update_frequency`.
    pub previous_priorities: Option<NonZeroU32>,
    /// `retry_host_predicate: previous_hosts`.
    pub avoid_previous_hosts: bool,
    /// `retry_host_predicate: omit_canary_hosts`.
    pub omit_canary: bool,
    /// `retry_host_predicate: omit_host_metadata`: a retry avoids hosts with all the values of any of these.
    pub omit_metadata: Vec<Arc<Metadata>>,
    /// `host_selection_retry_max_attempts`.
    pub host_selection_attempts: u32,
}

impl Default for RetryPolicy {
    /// What an empty policy means.
    fn default() -> Self {
        const BASE: Duration = Duration::from_millis(25);
        Self {
            on: RetryOn::default(),
            max_retries: 1,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            retriable_status: Vec::new(),
            retriable_headers: Vec::new(),
            retriable_request_headers: Vec::new(),
            backoff_base: BASE,
            backoff_max: BASE * 10,
            reset_headers: Vec::new(),
            reset_max: Duration::from_secs(300),
            previous_priorities: None,
            avoid_previous_hosts: false,
            omit_canary: false,
            omit_metadata: Vec::new(),
            host_selection_attempts: 1,
        }
    }
}

/// A response header that says how long to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetHeader {
    pub name: HeaderName,
    /// A point in time, in seconds since 1970, and not a number of seconds.
    pub unix_time: bool,
}

/// The conditions of `x-envoy-retry-on` and `x-envoy-retry-grpc-on`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryOn(u32);

impl RetryOn {
    pub const SERVER_ERROR: Self = Self(1);
    pub const GATEWAY_ERROR: Self = Self(1 << 1);
    pub const RESET: Self = Self(1 << 2);
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 3);
    pub const CONNECT_FAILURE: Self = Self(1 << 4);
    pub const REFUSED_STREAM: Self = Self(1 << 5);
    pub const RETRIABLE_4XX: Self = Self(1 << 6);
    pub const RETRIABLE_STATUS: Self = Self(1 << 7);
    pub const RETRIABLE_HEADERS: Self = Self(1 << 8);
    pub const GRPC_CANCELLED: Self = Self(1 << 9);
    pub const GRPC_DEADLINE_EXCEEDED: Self = Self(1 << 10);
    pub const GRPC_INTERNAL: Self = Self(1 << 11);
    pub const GRPC_RESOURCE_EXHAUSTED: Self = Self(1 << 12);
    pub const GRPC_UNAVAILABLE: Self = Self(1 << 13);
    pub const ENVOY_RATE_LIMITED: Self = Self(1 << 14);
    pub const HTTP3_POST_CONNECT_FAILURE: Self = Self(1 << 15);

    /// What `x-envoy-retry-grpc-on` may name; the rest belongs to `x-envoy-retry-on`.
    const GRPC: Self = Self(
        Self::GRPC_CANCELLED.0
            | Self::GRPC_DEADLINE_EXCEEDED.0
            | Self::GRPC_INTERNAL.0
            | Self::GRPC_RESOURCE_EXHAUSTED.0
            | Self::GRPC_UNAVAILABLE.0,
    );

    const NAMES: &[(&str, Self)] = &[
        ("5xx", Self::SERVER_ERROR),
        ("gateway-error", Self::GATEWAY_ERROR),
        ("reset", Self::RESET),
        ("reset-before-request", Self::RESET_BEFORE_REQUEST),
        ("connect-failure", Self::CONNECT_FAILURE),
        ("refused-stream", Self::REFUSED_STREAM),
        ("retriable-4xx", Self::RETRIABLE_4XX),
        ("retriable-status-codes", Self::RETRIABLE_STATUS),
        ("retriable-headers", Self::RETRIABLE_HEADERS),
        ("cancelled", Self::GRPC_CANCELLED),
        ("deadline-exceeded", Self::GRPC_DEADLINE_EXCEEDED),
        ("internal", Self::GRPC_INTERNAL),
        ("resource-exhausted", Self::GRPC_RESOURCE_EXHAUSTED),
        ("unavailable", Self::GRPC_UNAVAILABLE),
        ("envoy-ratelimited", Self::ENVOY_RATE_LIMITED),
        ("http3-post-connect-failure", Self::HTTP3_POST_CONNECT_FAILURE),
    ];

    /// Parses a comma-separated list; the second value lists the names that are not known.
    pub fn parse(list: &str) -> (Self, Vec<&str>) {
        let mut on = Self::default();
        let mut unknown = Vec::new();
        for name in list.split(',').map(str::trim).filter(|n| !n.is_empty()) {
            match Self::NAMES.iter().find(|(known, _)| *known == name) {
                Some((_, flag)) => on.0 |= flag.0,
                None => unknown.push(name),
            }
        }
        (on, unknown)
    }

    /// The names of the conditions.
    pub fn names(self) -> Vec<&'static str> {
        Self::NAMES.iter().filter(|(_, flag)| self.0 & flag.0 != 0).map(|(name, _)| *name).collect()
    }

    /// The conditions on gRPC statuses.
    pub fn grpc(self) -> Self {
        Self(self.0 & Self::GRPC.0)
    }

    /// All but the conditions on gRPC statuses.
    pub fn http(self) -> Self {
        Self(self.0 & !Self::GRPC.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn contains(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
