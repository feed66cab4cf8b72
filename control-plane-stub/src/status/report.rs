//! The JSON of `/status`: written by the server, read by `outriggerctl`.

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Proxy, Status};
use crate::{ratelimit::stats::LimitsReport, resources::ClientKind};

/// The whole report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub version: u64,
    /// Content hash of the served configuration.
    pub served: String,
    /// Content hash of the directory when last looked at.
    pub observed: String,
    pub problems: Vec<ProblemReport>,
    pub loaded_at: Option<String>,
    pub started_at: String,
    #[serde(default)]
    pub rate_limits: Option<LimitsReport>,
    pub proxies: Vec<ProxyReport>,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct ProblemReport {
    pub file: String,
    pub document: usize,
    pub path: String,
    pub reason: String,
}

/// One connected client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProxyReport {
    pub id: String,
    pub kind: String,
    pub namespace: String,
    pub service_account: String,
    pub identity: Option<String>,
    pub proof: Option<String>,
    pub peer: String,
    pub variant: String,
    pub connected_since: String,
    /// The newest generation all of which has been sent.
    pub sent: u64,
    /// By short name: CDS, EDS, LDS, RDS, SDS, or a foreign type's URL.
    pub types: BTreeMap<String, TypeReport>,
}

/// One resource type of one client.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TypeReport {
    pub sent: String,
    pub acked: String,
    /// What the client runs: what it acknowledged, since an ACK means applied.
    #[serde(default)]
    pub applied: String,
    /// A response has not been answered yet.
    pub waiting: bool,
    /// A refusal still stands.
    pub refused: bool,
    pub resources: usize,
    pub pushes: u64,
    pub nacks: u64,
    pub last_nack: Option<Nack>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Nack {
    pub version: String,
    pub message: String,
    pub at: String,
}

impl Report {
    pub fn of(status: &Status) -> Self {
        let config = status.config();
        let problems = config.problems.iter().map(|p| ProblemReport {
            file: p.file.display().to_string(),
            document: p.document,
            path: p.path.clone(),
            reason: p.reason.clone(),
        });
        Self {
            version: config.version,
            served: config.served.clone(),
            observed: config.observed.clone(),
            problems: problems.collect(),
            loaded_at: config.loaded_at.map(rfc3339),
            started_at: rfc3339(status.started),
            rate_limits: status.rate_limits.get().map(|limits| limits.report()),
            proxies: status.proxies().iter().map(|p| ProxyReport::of(p)).collect(),
        }
    }
}

impl ProxyReport {
    fn of(proxy: &Proxy) -> Self {
        let state = proxy.state();
        let types = state.types.into_iter().map(|(kind, mut report)| {
            report.applied.clone_from(&report.acked);
            let name = if kind.short() == "other" { kind.as_str() } else { kind.short() };
            (name.to_owned(), report)
        });
        Self {
            id: proxy.node.id.clone(),
            kind: kind(proxy.node.kind).to_owned(),
            namespace: proxy.node.namespace.clone(),
            service_account: proxy.node.service_account.clone(),
            identity: proxy.caller.as_ref().map(|c| c.identity.uri()),
            proof: proxy.caller.as_ref().map(|c| c.proof.as_str().to_owned()),
            peer: proxy.peer.to_string(),
            variant: proxy.variant.to_owned(),
            connected_since: rfc3339(proxy.connected),
            sent: state.sent,
            types: types.collect(),
        }
    }

    /// Why this client is not at generation `version` yet; `None` if it is.
    pub fn behind(&self, version: u64) -> Option<String> {
        for (name, report) in &self.types {
            if report.refused {
                let text = report.last_nack.as_ref().map_or("", |n| n.message.as_str());
                return Some(format!("{name} refused: {text}"));
            }
        }
        if self.sent < version {
            return Some(format!("was sent generation {} of {version}", self.sent));
        }
        let waiting: Vec<&str> = self.types.iter().filter(|(_, r)| r.waiting).map(|(n, _)| n.as_str()).collect();
        (!waiting.is_empty()).then(|| format!("has not acknowledged {}", waiting.join(", ")))
    }

    /// Does a refusal stand? Waiting does not heal it.
    pub fn refuses(&self) -> bool {
        self.types.values().any(|report| report.refused)
    }
}

/// The name of a client kind, as label and in JSON.
pub fn kind(kind: ClientKind) -> &'static str {
    match kind {
        ClientKind::Envoy => "envoy",
        ClientKind::Outrigger => "outrigger",
        ClientKind::Grpc => "grpc",
    }
}

/// A time in RFC 3339, UTC, whole seconds.
pub fn rfc3339(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let time = time.replace_nanosecond(0).unwrap_or(time);
    time.format(&Rfc3339).unwrap_or_else(|_| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_names_the_reason() {
        let mut proxy: ProxyReport = serde_json::from_value(serde_json::json!({
            "id": "x", "kind": "envoy", "namespace": "n", "service_account": "s", "identity": null, "proof": null,
            "peer": "p", "variant": "delta", "connected_since": "t", "sent": 3,
            "types": {"CDS": {"sent": "b", "acked": "b", "waiting": false, "refused": false, "resources": 1,
                      "pushes": 1, "nacks": 0, "last_nack": null}}
        }))
        .unwrap();
        assert_eq!(proxy.behind(3), None);
        assert!(proxy.behind(4).unwrap().contains("3 of 4"));
        proxy.types.get_mut("CDS").unwrap().waiting = true;
        assert!(proxy.behind(3).unwrap().contains("acknowledged CDS"));
        proxy.types.get_mut("CDS").unwrap().refused = true;
        assert!(proxy.behind(3).unwrap().contains("refused") && proxy.refuses());
    }

    #[test]
    fn times_are_whole_utc_seconds() {
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1500)), "1970-01-01T00:00:01Z");
    }
}
