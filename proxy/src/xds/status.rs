//! What the subscription says about itself: for readiness, statistics and people.

use std::{collections::BTreeMap, time::SystemTime};

use super::{kind::Kind, saved::SavedStatus};
use crate::ir::Name;

/// A consistent picture of the subscription.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    pub kinds: BTreeMap<Kind, KindStatus>,
    /// By a printable name of the source: `ads:CLUSTER`, `grpc:CLUSTER/sds`, `path:FILE`.
    pub sources: BTreeMap<Box<str>, SourceStatus>,
    pub identity: Option<IdentityStatus>,
    /// Of the last good configuration on disk, where it is kept.
    pub saved: Option<SavedStatus>,
    /// LDS has answered, if only with refused resources, or is not configured.
    pub listeners_received: bool,
    /// The same of CDS.
    pub clusters_received: bool,
    /// Clusters, route configurations and listeners that wait, each with what for.
    pub warming: Vec<(Kind, Name, String)>,
}

impl Status {
    /// Whether LDS and CDS have delivered and, where an identity is configured, there is one.
    pub fn ready(&self) -> bool {
        self.not_ready_reason().is_none()
    }

    /// What readiness still waits for.
    pub fn not_ready_reason(&self) -> Option<String> {
        if self.identity.as_ref().is_some_and(|i| i.not_after.is_none()) {
            let error = self.identity.as_ref().and_then(|i| i.last_error.as_deref()).unwrap_or("not answered yet");
            return Some(format!("no workload certificate: {error}"));
        }
        let missing = match (self.clusters_received, self.listeners_received) {
            (true, true) => return None,
            (false, true) => "clusters",
            (true, false) => "listeners",
            (false, false) => "clusters and listeners",
        };
        let errors: Vec<String> =
            self.sources.iter().filter_map(|(name, s)| Some(format!("{name}: {}", s.last_error.as_ref()?))).collect();
        let refused = self.saved.as_ref().and_then(|saved| saved.refused.as_ref());
        let refused = refused.map(|reason| format!("; the configuration kept on disk is not used: {reason}"));
        let refused = refused.unwrap_or_default();
        Some(match errors.is_empty() {
            true => format!("no {missing} received yet{refused}"),
            false => format!("no {missing} received yet ({}){refused}", errors.join("; ")),
        })
    }
}

/// One resource type, over all its sources.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KindStatus {
    /// Version of the last response that applied completely.
    pub version: Box<str>,
    /// Version and nonce of the last response of any outcome.
    pub last_version: Box<str>,
    pub nonce: Box<str>,
    /// Whether the last response was acknowledged; `None` before the first.
    pub acked: Option<bool>,
    /// Resources of the last response that were refused.
    pub rejected: Vec<Rejected>,
    /// Names asked for; `None` is the wildcard.
    pub subscribed: Option<usize>,
    /// Resources known, static ones included.
    pub known: usize,
    pub update_attempt: u64,
    pub update_success: u64,
    pub update_rejected: u64,
    pub update_failure: u64,
    pub last_updated: Option<SystemTime>,
}

/// A resource that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub name: Box<str>,
    /// With the field's path.
    pub reason: String,
}

/// One stream or file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceStatus {
    /// `None` while there is no connection.
    pub connected_since: Option<SystemTime>,
    pub last_error: Option<Box<str>>,
    /// Connections made.
    pub connects: u64,
    /// Connection attempts and streams that failed.
    pub failures: u64,
}

/// The workload's own certificate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IdentityStatus {
    pub spiffe_id: Option<Box<str>>,
    pub serial: Box<str>,
    pub not_before: Option<SystemTime>,
    pub not_after: Option<SystemTime>,
    pub next_renewal: Option<SystemTime>,
    pub last_error: Option<Box<str>>,
    /// The certificate is not valid yet by our clock, or was expired on arrival: the clock is suspect.
    pub clock_skewed: bool,
    pub renewals: u64,
    pub failures: u64,
    /// The trusted roots: serial number and end.
    pub roots: Vec<(Box<str>, SystemTime)>,
}

impl IdentityStatus {
    /// Why no handshake can succeed with the certificate at `now`: a short code, and the reason for people.
    pub fn unusable(&self, now: SystemTime) -> Option<(&'static str, String)> {
        let error = self.last_error.as_deref().unwrap_or("no error so far");
        match (self.not_before, self.not_after) {
            (Some(from), _) if from > now => {
                let behind = from.duration_since(now).unwrap_or_default().as_secs();
                let reason = format!(
                    "the workload certificate is not valid for another {behind} s: this machine's clock is behind the \
                     authority's"
                );
                Some(("clock_skewed", reason))
            }
            (_, Some(until)) if until <= now => {
                let since = now.duration_since(until).unwrap_or_default().as_secs();
                Some(("certificate_expired", format!("the workload certificate expired {since} s ago: {error}")))
            }
            (_, None) if self.clock_skewed => Some(("clock_skewed", error.to_owned())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_certificate_outside_its_time_is_named_with_the_reason() {
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(s);
        let mut identity =
            IdentityStatus { not_before: Some(at(100)), not_after: Some(at(200)), ..IdentityStatus::default() };
        assert_eq!(identity.unusable(at(150)), None);
        let (code, reason) = identity.unusable(at(40)).unwrap();
        assert_eq!(code, "clock_skewed");
        assert!(reason.contains("60 s"), "{reason}");
        identity.last_error = Some("the authority is away".into());
        let (code, reason) = identity.unusable(at(230)).unwrap();
        assert_eq!(code, "certificate_expired");
        assert!(reason.contains("30 s") && reason.contains("is away"), "{reason}");
        let none = IdentityStatus { clock_skewed: true, last_error: Some("ahead".into()), ..IdentityStatus::default() };
        assert_eq!(none.unusable(at(0)), Some(("clock_skewed", "ahead".to_owned())));
        assert_eq!(IdentityStatus::default().unusable(at(0)), None);
    }
}
