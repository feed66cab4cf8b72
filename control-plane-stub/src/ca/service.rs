//! `IstioCertificateService` over the [`Authority`]: authenticate, brake, sign.
//!
//! Signing is a few hundred microseconds of CPU and runs in place; the brake keeps one caller from owning the process.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use outrigger_wire::{
    ca::{IstioCertificateRequest, IstioCertificateResponse, IstioCertificateService},
    pb::google::protobuf::{Struct, value::Kind},
};
use tonic::{Request, Response, Status};

use super::{Authority, Error, limit::Limiter};
use crate::{
    auth::{
        Identity,
        caller::{Authenticator, Connection},
    },
    status::metrics::Metrics,
};

/// A whole Deployment starting at once shares one identity, so the burst is generous.
const BURST: u32 = 200;
const PERIOD: Duration = Duration::from_millis(100);
const MAX_IDENTITIES: usize = 10_000;

/// How often an identity may be given a certificate, in whichever way it asks.
pub struct Brake(Mutex<Limiter<Identity>>);

impl Default for Brake {
    fn default() -> Self {
        Self(Mutex::new(Limiter::new(BURST, PERIOD, MAX_IDENTITIES)))
    }
}

impl Brake {
    /// Counts one more.
    pub fn allow(&self, identity: &Identity) -> Result<(), Status> {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).allow(identity, Instant::now()) {
            return Ok(());
        }
        Err(Status::resource_exhausted(format!("too many certificate requests from {identity}")))
    }
}

/// The gRPC face of the authority.
pub struct CertificateService {
    authority: Arc<Authority>,
    authenticator: Authenticator,
    brake: Arc<Brake>,
    metrics: Arc<Metrics>,
}

impl CertificateService {
    pub fn new(
        authority: Arc<Authority>,
        authenticator: Authenticator,
        brake: Arc<Brake>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { authority, authenticator, brake, metrics }
    }

    fn sign(&self, request: &Request<IstioCertificateRequest>) -> Result<IstioCertificateResponse, Status> {
        let now = SystemTime::now();
        let connection = request
            .extensions()
            .get::<Connection>()
            .ok_or_else(|| Status::internal("the listener left no connection information"))?;
        let caller = self
            .authenticator
            .authenticate(connection, request.metadata(), now)?
            .ok_or_else(|| Status::unauthenticated("certificates need a bearer token or a client certificate"))?;
        let message = request.get_ref();
        refuse_unsupported(message.metadata.as_ref())?;
        self.brake.allow(&caller.identity)?;
        let wanted = u64::try_from(message.validity_duration).ok().filter(|s| *s > 0).map(Duration::from_secs);
        let leaf = self.authority.sign_csr(&message.csr, &caller.identity, wanted, now).map_err(|e| match e {
            Error::Csr(_) => Status::invalid_argument(e.to_string()),
            Error::State(_) | Error::Sign(_) | Error::Step(_) => Status::internal(e.to_string()),
        })?;
        tracing::info!(identity = %caller.identity, proof = caller.proof.as_str(), peer = %connection.peer, "certificate issued");
        Ok(IstioCertificateResponse { cert_chain: vec![leaf.certificate, self.authority.root_pem().to_owned()] })
    }
}

/// Metadata that would change who or what signs must not be ignored in silence.
fn refuse_unsupported(metadata: Option<&Struct>) -> Result<(), Status> {
    let set = |name: &str| {
        metadata
            .and_then(|m| m.fields.get(name))
            .and_then(|value| value.kind.as_ref())
            .is_some_and(|kind| !matches!(kind, Kind::NullValue(_)) && *kind != Kind::StringValue(String::new()))
    };
    if set("ImpersonatedIdentity") {
        return Err(Status::permission_denied("no caller may ask for another identity's certificate"));
    }
    if set("CertSigner") {
        return Err(Status::invalid_argument("CertSigner is not supported: there is one signer"));
    }
    Ok(())
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let outcome = self.sign(&request);
        self.metrics.certificate(outcome.is_ok());
        if let Err(status) = &outcome {
            tracing::warn!(code = ?status.code(), reason = ?status.message(), "certificate refused");
        }
        outcome.map(Response::new)
    }
}
