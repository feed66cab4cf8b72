//! The labels of one pair of peers, written out once.

use std::{borrow::Cow, fmt::Write, sync::Arc};

use outrigger_wire::naming::UNKNOWN;

use super::{Service, Workload};

/// From which side a request or connection was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// Beside the client.
    Source,
    /// Beside the server.
    Destination,
}

impl Reporter {
    /// Whose labels these are.
    pub(super) fn of_labels(labels: &str) -> Self {
        if labels.starts_with("reporter=\"source\"") { Self::Source } else { Self::Destination }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// A label value between its quotes.
pub fn escape(value: &str) -> Cow<'_, str> {
    if value.contains(['\\', '"', '\n']) {
        value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into()
    } else {
        value.into()
    }
}

/// What the labels are made of.
pub(super) struct Peers<'a> {
    pub reporter: Reporter,
    /// The one at our side.
    pub own: &'a Workload,
    pub peer: &'a Workload,
    pub own_principal: Option<&'a str>,
    pub peer_principal: Option<&'a str>,
    pub service: &'a Service,
}

impl Peers<'_> {
    /// As they stand between braces, without those that say how it went.
    pub(super) fn write(&self) -> Arc<str> {
        // The certificate knows better than anybody else where a peer belongs.
        let from_certificate = self.peer_principal.and_then(namespace_of);
        let peer_namespace = from_certificate.unwrap_or(&self.peer.namespace);
        let inbound = self.reporter == Reporter::Destination;
        let (source, destination) = if inbound { (self.peer, self.own) } else { (self.own, self.peer) };
        let principals = (self.own_principal.unwrap_or(UNKNOWN), self.peer_principal.unwrap_or(UNKNOWN));
        let (source_principal, destination_principal) = if inbound { (principals.1, principals.0) } else { principals };
        let (source_namespace, destination_namespace) =
            if inbound { (peer_namespace, &*self.own.namespace) } else { (&*self.own.namespace, peer_namespace) };
        let stand_in = if inbound { &*self.own.canonical_service } else { UNKNOWN };
        let host = self.service.host.as_deref().unwrap_or(stand_in);
        let name = self.service.name.as_deref().unwrap_or(stand_in);
        let mutual = self.own_principal.is_some() && self.peer_principal.is_some();
        let security = match (inbound, mutual) {
            // A client cannot know what its peer asked for.
            (false, _) => UNKNOWN,
            (true, true) => "mutual_tls",
            (true, false) => "none",
        };
        let mut text = format!("reporter=\"{}\"", self.reporter.as_str());
        let mut label = |name: &str, value: &str| {
            let _ = write!(text, ",{name}=\"{}\"", escape(value));
        };
        label("source_workload", &source.name);
        label("source_canonical_service", &source.canonical_service);
        label("source_canonical_revision", &source.canonical_revision);
        label("source_workload_namespace", source_namespace);
        label("source_principal", source_principal);
        label("source_app", &source.app);
        label("source_version", &source.version);
        label("source_cluster", &source.cluster);
        label("destination_workload", &destination.name);
        label("destination_workload_namespace", destination_namespace);
        label("destination_principal", destination_principal);
        label("destination_app", &destination.app);
        label("destination_version", &destination.version);
        label("destination_service", host);
        label("destination_canonical_service", &destination.canonical_service);
        label("destination_canonical_revision", &destination.canonical_revision);
        label("destination_service_name", name);
        label("destination_service_namespace", destination_namespace);
        label("destination_cluster", &destination.cluster);
        label("connection_security_policy", security);
        text.into()
    }
}

/// The labels of what is counted beyond the bound: every one says so but the reporter.
pub(super) fn overflow(reporter: Reporter) -> Arc<str> {
    let names = [
        "source_workload",
        "source_canonical_service",
        "source_canonical_revision",
        "source_workload_namespace",
        "source_principal",
        "source_app",
        "source_version",
        "source_cluster",
        "destination_workload",
        "destination_workload_namespace",
        "destination_principal",
        "destination_app",
        "destination_version",
        "destination_service",
        "destination_canonical_service",
        "destination_canonical_revision",
        "destination_service_name",
        "destination_service_namespace",
        "destination_cluster",
        "connection_security_policy",
    ];
    let labels = names.map(|name| format!(",{name}=\"overflow\"")).concat();
    format!("reporter=\"{}\"{labels}", reporter.as_str()).into()
}

/// The namespace in a SPIFFE identity of Istio's form, `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
fn namespace_of(principal: &str) -> Option<&str> {
    let mut parts = principal.strip_prefix("spiffe://")?.split('/').skip(1);
    (parts.next()? == "ns").then(|| parts.next()).flatten().filter(|name| !name.is_empty())
}
