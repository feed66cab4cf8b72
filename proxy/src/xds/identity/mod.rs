//! The workload's identity without an agent: its own key, a certificate from the mesh's authority, renewed in time.
//!
//! The key is made here and never leaves the process or touches a disk. [`issue`] asks and checks the answer,
//! [`schedule`] says when to ask again; this file is the loop around them. [`workload`] is the other way to an identity:
//! a SPIFFE agent hands it over. The invariant: the certificate in use is
//! replaced only by one that is checked, and kept for as long as there is no better one.

mod issue;
mod schedule;
#[cfg(test)]
mod tests;
pub(super) mod workload;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::mpsc, time::sleep};

use self::issue::Issued;
use super::{
    client::{backoff::Backoff, grpc::Dialer},
    decode::Resource,
    driver::Event,
    status::IdentityStatus,
};
use crate::ir::{
    Name,
    secret::{Certificate, DataSource, Secret, Validation},
};

/// The SDS names that are answered here, whatever their configured source: certificate and trust anchors.
pub const NAMES: [&str; 2] = ["default", "ROOTCA"];

/// Where certificates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityConfig {
    /// The cluster that reaches the authority, as the transport knows it.
    pub ca_cluster: Name,
    /// The bearer token that says who we are, read anew for every request.
    pub token_file: Option<PathBuf>,
    /// PEM trust anchors added to the root that the authority returns; read anew when it changes.
    pub root_file: Option<PathBuf>,
    /// The certificate must carry this SPIFFE id; also put into the request.
    pub spiffe_id: Option<Box<str>>,
    /// Wanted validity.
    pub ttl: Duration,
    /// More gRPC metadata, such as Istio's `ClusterID`.
    pub metadata: Vec<(Box<str>, Box<str>)>,
}

/// Largest trust anchor file read.
const MAX_ROOTS: u64 = 4 << 20;

/// Keeps the identity until the driver is gone; cancel safe.
pub(super) async fn run(config: IdentityConfig, dialer: Arc<Dialer>, events: mpsc::Sender<Event>) {
    let mut backoff = Backoff::new(dialer.options.backoff_base, dialer.options.backoff_max);
    let mut status = IdentityStatus::default();
    let mut current: Option<Issued> = None;
    let mut extra = read_roots(&config).await;
    loop {
        let due = match issue::request(&config, &dialer).await {
            Ok(issued) => {
                backoff.reset();
                let now = SystemTime::now();
                let due = schedule::renewal(issued.not_before, issued.not_after, now, fastrand::f64());
                adopt(&mut status, &issued, Some(due), now);
                extra = read_roots(&config).await.or(extra);
                status.roots = issue::anchors(&bundle(&issued, extra.as_deref()));
                if publish(&events, &issued, extra.as_deref()).await.is_err() {
                    return;
                }
                current = Some(issued);
                due
            }
            Err(failure) => {
                complain(&mut status, current.as_ref(), &failure);
                SystemTime::now() + backoff.next(fastrand::f64())
            }
        };
        status.next_renewal = Some(due);
        if events.send(Event::Identity(status.clone())).await.is_err() {
            return;
        }
        // In steps, by the wall clock: a suspended machine or a corrected clock must not postpone a renewal.
        while let Some(rest) = schedule::rest(due, SystemTime::now()) {
            sleep(rest).await;
            let roots = read_roots(&config).await;
            if roots.is_some() && roots != extra {
                extra = roots;
                let Some(current) = &current else { continue };
                status.roots = issue::anchors(&bundle(current, extra.as_deref()));
                let told = events.send(Event::Identity(status.clone())).await;
                if told.is_err() || publish(&events, current, extra.as_deref()).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn adopt(status: &mut IdentityStatus, issued: &Issued, due: Option<SystemTime>, now: SystemTime) {
    let skewed = issued.not_before > now;
    if skewed {
        let ahead = issued.not_before.duration_since(now).unwrap_or_default();
        tracing::error!(?ahead, "the new certificate is not valid yet: this machine's clock is behind the authority's");
    }
    tracing::info!(spiffe_id = %issued.spiffe_id, serial = %issued.serial, "workload certificate issued");
    *status = IdentityStatus {
        spiffe_id: Some(issued.spiffe_id.clone()),
        serial: issued.serial.clone(),
        not_before: Some(issued.not_before),
        not_after: Some(issued.not_after),
        next_renewal: due,
        last_error: None,
        clock_skewed: skewed,
        renewals: status.renewals + 1,
        failures: status.failures,
        roots: issue::anchors(&issued.root),
    };
}

fn complain(status: &mut IdentityStatus, current: Option<&Issued>, failure: &issue::Failure) {
    status.failures += 1;
    status.clock_skewed |= failure.clock_skewed;
    status.last_error = Some(failure.reason.as_str().into());
    let reason = failure.reason.as_str();
    match current.map(|c| c.not_after.duration_since(SystemTime::now())) {
        None => tracing::warn!(reason, "no workload certificate yet"),
        Some(Ok(left)) => tracing::warn!(reason, ?left, "workload certificate not renewed; the current one goes on"),
        Some(Err(_)) => tracing::error!(reason, "the workload certificate HAS EXPIRED and cannot be renewed"),
    }
}

async fn publish(events: &mpsc::Sender<Event>, issued: &Issued, extra: Option<&str>) -> Result<(), ()> {
    let inline = |text: &str| DataSource::Inline(Arc::from(text.as_bytes()));
    let certificate = Certificate {
        chain: inline(&issued.chain),
        key: DataSource::Inline(Arc::clone(&issued.key)),
        watched_directory: None,
    };
    let roots = bundle(issued, extra);
    let secrets = [Arc::new(Secret::Certificate(Arc::new(certificate))), validation(&roots)];
    let named = NAMES.into_iter().zip(secrets);
    let resources = named.map(|(name, secret)| Resource::Secret { name: name.into(), secret });
    events.send(Event::Local(resources.collect())).await.map_err(drop)
}

/// All roots to trust: the authority's, and those of the operator.
fn bundle(issued: &Issued, extra: Option<&str>) -> String {
    issued.root.clone() + extra.unwrap_or_default()
}

/// Trust in PEM roots.
fn validation(roots: &str) -> Arc<Secret> {
    let trusted_ca = Some(DataSource::Inline(Arc::from(roots.as_bytes())));
    Arc::new(Secret::Validation(Arc::new(Validation { trusted_ca, ..Validation::default() })))
}

/// The additional trust anchors; `None` when there are none or they cannot be read at the moment.
async fn read_roots(config: &IdentityConfig) -> Option<String> {
    let path = config.root_file.clone()?;
    let shown = path.display().to_string();
    let read = move || {
        let mut text = String::new();
        let file = std::fs::File::open(&path)?;
        std::io::Read::read_to_string(&mut std::io::Read::take(file, MAX_ROOTS), &mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    match tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other).and_then(|r| r) {
        Ok(text) if text.contains("-----BEGIN CERTIFICATE-----") => Some(text),
        Ok(_) => {
            tracing::warn!(path = shown, "no certificate in the trust anchor file");
            None
        }
        Err(error) => {
            tracing::warn!(path = shown, %error, "trust anchor file not readable");
            None
        }
    }
}
