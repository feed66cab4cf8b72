//! The identity that a SPIFFE agent (SPIRE's) gives: its stream of SVIDs, each answer complete and checked as a whole.
//!
//! The agent decides when to renew; here is only the stream around it. Invariants: what is in use is replaced only by
//! an answer in which everything fits together, and stays while the agent is away. The bundle of another trust domain is
//! never trusted for our own: it is a secret of its own, named by that domain's SPIFFE id, and trusts nobody once the
//! agent gives none that can be used. A foreign bundle never stands in the way of our own identity.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use outrigger_wire::workload::{SpiffeWorkloadApiClient, X509Svid, X509SvidResponse};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::{sync::mpsc, time::sleep};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{
    adopt, complain,
    issue::{self, Failure, Issued, MAX_BYTES, MAX_CHAIN},
    publish, validation,
};
use crate::{
    ir::spiffe::SpiffeId,
    xds::{
        client::{
            backoff::Backoff,
            grpc::{Dialer, describe},
        },
        decode::Resource,
        driver::Event,
        status::IdentityStatus,
    },
};

/// The name by which the transport is asked for the agent.
pub const WORKLOAD_API: &str = "spiffe-workload-api";

/// Trust domains that an agent may federate with.
const MAX_DOMAINS: usize = 256;
/// Most certificates in a bundle: a mesh of many authorities has more of them than a chain has links.
const MAX_BUNDLE: usize = 256;

/// Keeps the identity until the driver is gone; cancel safe.
pub(in crate::xds) async fn run(dialer: Arc<Dialer>, events: mpsc::Sender<Event>) {
    let mut backoff = Backoff::new(dialer.options.backoff_base, dialer.options.backoff_max);
    let mut agent = Agent { status: IdentityStatus::default(), current: None, known: BTreeSet::new(), events };
    loop {
        let ended = agent.follow(&dialer, &mut backoff).await;
        let Err(failure) = ended else { return };
        complain(&mut agent.status, agent.current.as_ref(), &failure);
        let pause = backoff.next(fastrand::f64());
        if agent.report().await.is_err() {
            return;
        }
        sleep(pause).await;
    }
}

struct Agent {
    status: IdentityStatus,
    current: Option<Issued>,
    /// The trust domains that are trusted at the moment, by their ids; across streams.
    known: BTreeSet<Box<str>>,
    events: mpsc::Sender<Event>,
}

impl Agent {
    /// One stream from its beginning to its end. `Ok`: nobody is interested any more.
    async fn follow(&mut self, dialer: &Dialer, backoff: &mut Backoff) -> Result<(), Failure> {
        let refused = |status: tonic::Status| Failure::from(format!("the SPIFFE agent: {}", describe(&status)));
        let channel = dialer.channel(WORKLOAD_API, None).await?;
        let mut stream = SpiffeWorkloadApiClient::new(channel).fetch_x509_svid().await.map_err(refused)?.into_inner();
        while let Some(answer) = stream.message().await.map_err(refused)? {
            match check(answer, SystemTime::now()) {
                Ok((issued, federated)) => {
                    backoff.reset();
                    adopt(&mut self.status, &issued, None, SystemTime::now());
                    if self.publish(&issued, federated).await.is_err() {
                        return Ok(());
                    }
                    self.current = Some(issued);
                }
                // The next answer may be better; the stream is fine.
                Err(failure) => complain(&mut self.status, self.current.as_ref(), &failure),
            }
            if self.report().await.is_err() {
                return Ok(());
            }
        }
        Err("the SPIFFE agent ended the stream".to_owned().into())
    }

    async fn report(&self) -> Result<(), ()> {
        self.events.send(Event::Identity(self.status.clone())).await.map_err(drop)
    }

    async fn publish(&mut self, issued: &Issued, federated: Vec<(Box<str>, String)>) -> Result<(), ()> {
        publish(&self.events, issued, None).await?;
        let own = SpiffeId::parse(&issued.spiffe_id).map(|id| (domain(id.trust_domain()), issued.root.clone()));
        let mut bundles: BTreeMap<_, _> = own.into_iter().chain(federated).collect();
        let named = bundles.keys().cloned().collect();
        // Answers are complete: what one does not name any more is withdrawn.
        for name in std::mem::replace(&mut self.known, named) {
            if self.known.contains(&name) {
                continue;
            }
            match nobody() {
                Ok(pem) => {
                    tracing::warn!(trust_domain = &*name, "the SPIFFE agent withdrew the trust domain");
                    bundles.insert(name, pem);
                }
                Err(error) => {
                    tracing::error!(trust_domain = &*name, %error, "a withdrawn trust domain is STILL TRUSTED");
                    // To be tried again with the next answer.
                    self.known.insert(name);
                }
            }
        }
        let resource =
            |(name, pem): (Box<str>, String)| Resource::Secret { name: name.into(), secret: validation(&pem) };
        self.events.send(Event::Local(bundles.into_iter().map(resource).collect())).await.map_err(drop)
    }
}

fn domain(trust_domain: &str) -> Box<str> {
    format!("spiffe://{trust_domain}").into()
}

/// Roots that nobody chains up to: an authority whose key is gone. Without the secret, or with an empty one, those who
/// use it would go on with the last good roots.
fn nobody() -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name.push(DnType::CommonName, "nobody");
    Ok(params.self_signed(&KeyPair::generate()?)?.pem())
}

/// An answer taken apart: the default identity, and the usable bundles of other trust domains.
type Checked = (Issued, Vec<(Box<str>, String)>);

pub(super) fn check(answer: X509SvidResponse, now: SystemTime) -> Result<Checked, Failure> {
    if !answer.crl.is_empty() {
        tracing::warn!(lists = answer.crl.len(), "revocation lists of the SPIFFE agent are not applied");
    }
    let svid = answer.svids.first().ok_or_else(|| "the SPIFFE agent gives no identity".to_owned())?;
    let issued = examine(svid, now)?;
    if answer.federated_bundles.len() > MAX_DOMAINS {
        return Err(format!("more than {MAX_DOMAINS} federated trust domains").into());
    }
    let own = SpiffeId::parse(&issued.spiffe_id).map(SpiffeId::trust_domain);
    let mut federated = Vec::new();
    for (name, bundle) in &answer.federated_bundles {
        // Agents name them by id; a bare domain is understood as well.
        let named = name.strip_prefix("spiffe://").unwrap_or(name).trim_end_matches('/');
        let id = domain(named);
        match SpiffeId::parse(&id) {
            // A bundle for ourselves among the foreign ones could only widen whom we trust.
            Some(parsed) if parsed.path().is_empty() && Some(parsed.trust_domain()) != own => {}
            _ => return Err(format!("{name:?} is not the trust domain of a federated bundle").into()),
        }
        match foreign(bundle) {
            Ok(pem) => federated.push((id, pem)),
            // That domain's affair: our own identity has to be renewed all the same.
            Err(Failure { reason, .. }) => {
                tracing::warn!(trust_domain = &*id, reason, "the trust domain is not trusted");
            }
        }
    }
    Ok((issued, federated))
}

/// The PEM of another trust domain's roots, of which at least one can be used.
fn foreign(bundle: &[u8]) -> Result<String, Failure> {
    let roots = certificates(bundle, MAX_BUNDLE, "its bundle")?;
    let pem = roots.iter().map(issue::pem).collect();
    // Not left to those who use it: they would keep the last good ones.
    if RootCertStore::empty().add_parsable_certificates(roots).0 == 0 {
        return Err("its bundle has no certificate that can be a trust anchor".to_owned().into());
    }
    Ok(pem)
}

fn examine(svid: &X509Svid, now: SystemTime) -> Result<Issued, Failure> {
    let chain = certificates(&svid.x509_svid, MAX_CHAIN, "the SVID")?;
    let roots = certificates(&svid.bundle, MAX_BUNDLE, "the trust bundle")?;
    let der = PrivatePkcs8KeyDer::from(svid.x509_svid_key.as_slice());
    // The cause is not told: a parser's message could quote the key.
    let key = KeyPair::try_from(&der).map_err(|_| "the SVID's key is not PKCS#8".to_owned())?;
    issue::examine(&chain, &roots, &key, Some(&svid.spiffe_id), now)
}

/// DER certificates one after the other, at most `most`.
fn certificates(mut der: &[u8], most: usize, what: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    if der.len() > MAX_BYTES {
        return Err(format!("{what} exceeds {MAX_BYTES} bytes").into());
    }
    let mut found = Vec::new();
    while !der.is_empty() {
        let (rest, _) = X509Certificate::from_der(der).map_err(|e| format!("{what}: {e}"))?;
        let (one, rest) = der.split_at(der.len() - rest.len());
        found.push(CertificateDer::from(one.to_vec()));
        if found.len() > most {
            return Err(format!("{what} has more than {most} certificates").into());
        }
        der = rest;
    }
    if found.is_empty() {
        return Err(format!("{what} is empty").into());
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
