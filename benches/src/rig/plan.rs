//! What a scenario asks the proxies to do, in no contender's language.

use std::{net::Ipv4Addr, path::Path};

use serde_json::Value;

use super::Origin;

/// What travels between the two proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Between {
    /// HTTP/2 in mutual TLS.
    Http2,
    /// HTTP/1.1 in mutual TLS.
    Http1,
    /// Bytes in mutual TLS.
    TcpTls,
    /// Bytes.
    Tcp,
}

/// What the application speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum App {
    Http1,
    /// Cleartext with prior knowledge, as gRPC does.
    Http2,
}

/// How connections between the proxies come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sessions {
    /// Kept and shared by requests.
    Pooled,
    /// One for each request, with TLS resumption.
    Resumed,
    /// One for each request, with a full handshake.
    Full,
    /// As `Full`, with the post-quantum hybrid key exchange.
    FullPostQuantum,
}

impl Sessions {
    pub(crate) fn resumes(self) -> bool {
        matches!(self, Self::Pooled | Self::Resumed)
    }

    /// The key exchange of everybody, by Envoy's name: defaults differ, and the work has to be the same.
    pub(crate) fn group(self) -> &'static str {
        if self == Self::FullPostQuantum { "X25519MLKEM768" } else { "X25519" }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Features {
    /// Routes, least request, retries, statistics.
    Usual,
    /// Besides, an access log to a file on both sides.
    AccessLog,
    /// The same as JSON, with the fields of Istio's format.
    JsonLog,
}

/// Where the endpoints come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    File,
    /// Delta ADS from the bench's own control plane.
    Xds,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) between: Between,
    pub(crate) app: App,
    pub(crate) sessions: Sessions,
    pub(crate) features: Features,
    pub(crate) origin: Origin,
    /// Services in the outbound proxy's configuration besides the one that is used.
    pub(crate) services: usize,
    pub(crate) via: Via,
    /// Pods of the service that is used; more than one only with an origin of the bench's own.
    pub(crate) replicas: usize,
    /// What contenders with Envoy's configuration get besides.
    pub(crate) extra: Extra,
}

/// Pieces of Envoy's configuration that take the place of the usual or come besides: objects, or null.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extra {
    /// Fields of the cluster that is used.
    pub(crate) cluster: Value,
    /// Fields of the outbound routes' action.
    pub(crate) action: Value,
    /// HTTP filters of the inbound proxy before its router.
    pub(crate) filters: Vec<Value>,
    /// Fields of the inbound route's action.
    pub(crate) inbound: Value,
    /// Clusters of the inbound proxy.
    pub(crate) clusters: Vec<Value>,
    /// Fields of all routes.
    pub(crate) routes: Value,
    /// What the proxies of both sides get.
    pub(crate) both: Both,
}

/// Pieces for both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Both {
    /// Fields of the connection managers.
    pub(crate) manager: Value,
    /// HTTP filters before the router.
    pub(crate) filters: Vec<Value>,
    pub(crate) clusters: Vec<Value>,
}

impl Extra {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Plan {
    pub(crate) fn http(between: Between) -> Self {
        Self {
            between,
            app: App::Http1,
            sessions: Sessions::Pooled,
            features: Features::Usual,
            origin: Origin::Nginx,
            services: 0,
            via: Via::File,
            replicas: 1,
            extra: Extra::default(),
        }
    }

    pub(crate) fn is_http(&self) -> bool {
        matches!(self.between, Between::Http1 | Between::Http2)
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.between != Between::Tcp && self.via == Via::File
    }

    /// A cheap request that every origin answers.
    pub(crate) fn ready_path(&self) -> &'static str {
        if self.origin == Origin::Bulk { "/1" } else { "/" }
    }
}

/// Where a proxy runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// Certificates, logs, configuration.
    pub(crate) dir: &'a Path,
    /// The service's Pods.
    pub(crate) servers: &'a [Ipv4Addr],
    pub(crate) workers: u32,
}
