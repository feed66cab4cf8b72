//! Serving: ADS, the certificate service and the rate limit service on a plaintext and a TLS port, the status pages on a third.
//!
//! Owns sockets, limits and shutdown; what is served comes in as [`source::Worlds`]. Knows nothing of files or of how
//! a world becomes resources.

mod ads;
mod listen;
pub mod node;
mod requests;
mod secrets;
mod session;
mod shares;
pub mod source;
mod stream;
mod subscription;
mod tls;
pub mod types;

#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use outrigger_wire::{
    ca::IstioCertificateServiceServer,
    pb::envoy::service::{
        discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer,
        ratelimit::v3::rate_limit_service_server::RateLimitServiceServer,
    },
};
use serde::Serialize;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::{ads::Ads, listen::Acceptor, shares::Shares, source::Worlds, tls::OwnCertificate};
use crate::{
    auth::{Identity, caller::Authenticator, token::Tokens},
    ca::{
        Authority,
        service::{Brake, CertificateService},
    },
    ratelimit::service::{RateLimits, Service as RateLimitService},
    status::{Status, http::Rescan, metrics::Metrics},
};

/// Largest request accepted: a reconnecting proxy lists the version of everything it has.
const MAX_REQUEST: usize = 32 << 20;
/// Largest certificate request.
const MAX_CSR_REQUEST: usize = 128 << 10;
/// Largest question to the rate limit service.
const MAX_LIMIT_REQUEST: usize = 256 << 10;
/// gRPC calls at once on one connection.
const STREAMS_PER_CONNECTION: u32 = 128;
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long open connections may take to end on shutdown.
const DRAIN: Duration = Duration::from_secs(5);

/// What an operator decides about serving.
#[derive(Clone, Debug)]
pub struct Options {
    pub xds: SocketAddr,
    pub xds_tls: SocketAddr,
    pub status: SocketAddr,
    pub trust_domain: String,
    pub tls_sans: Vec<String>,
    /// Believe what a plaintext node says of itself. For tests.
    pub plaintext_identity: bool,
    pub max_connections: usize,
    pub max_connections_per_address: usize,
    pub max_streams: usize,
    pub max_streams_per_identity: usize,
    pub rate_limits: Arc<RateLimits>,
}

/// Where the server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Addresses {
    pub xds: SocketAddr,
    pub xds_tls: SocketAddr,
    pub status: SocketAddr,
}

/// The keys behind the server.
pub struct Trust {
    pub authority: Arc<Authority>,
    pub tokens: Arc<Tokens>,
}

/// What all streams share.
pub(crate) struct Shared {
    pub worlds: Worlds,
    pub status: Arc<Status>,
    pub metrics: Arc<Metrics>,
    pub authority: Arc<Authority>,
    pub brake: Arc<Brake>,
    pub authenticator: Authenticator,
    pub trust_domain: String,
    pub plaintext_identity: bool,
    pub streams: Arc<Semaphore>,
    pub identities: Arc<Shares<Identity>>,
    /// Translations at once; more would only make all of them slow.
    pub translators: Arc<Semaphore>,
    pub rate_limits: Arc<RateLimits>,
    /// How the server names itself in responses.
    pub name: String,
    pub shutdown: CancellationToken,
}

/// A server whose sockets are bound.
pub struct Server {
    shared: Arc<Shared>,
    options: Options,
    xds: TcpListener,
    xds_tls: TcpListener,
    status: TcpListener,
    certificate: Arc<OwnCertificate>,
    rescan: Rescan,
}

impl Server {
    /// Binds all three sockets and issues the listener's certificate.
    pub async fn bind(
        options: Options,
        trust: Trust,
        worlds: Worlds,
        status: Arc<Status>,
        rescan: Rescan,
    ) -> anyhow::Result<Self> {
        let bind = async |address: SocketAddr, what: &str| {
            TcpListener::bind(address).await.with_context(|| format!("cannot bind the {what} port to {address}"))
        };
        let xds = bind(options.xds, "plaintext xDS").await?;
        let xds_tls = bind(options.xds_tls, "TLS xDS").await?;
        let status_listener = bind(options.status, "status").await?;
        status.rate_limits.get_or_init(|| Arc::clone(&options.rate_limits));
        let certificate = OwnCertificate::issue(Arc::clone(&trust.authority), &options.tls_sans)?;
        let shared = Arc::new(Shared {
            worlds,
            metrics: Arc::clone(&status.metrics),
            status,
            authority: trust.authority,
            brake: Arc::default(),
            authenticator: Authenticator::new(trust.tokens),
            trust_domain: options.trust_domain.clone(),
            plaintext_identity: options.plaintext_identity,
            streams: Arc::new(Semaphore::new(options.max_streams)),
            identities: Shares::new(options.max_streams_per_identity),
            translators: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from))),
            rate_limits: Arc::clone(&options.rate_limits),
            name: format!("outrigger-control/{}", env!("CARGO_PKG_VERSION")),
            shutdown: CancellationToken::new(),
        });
        Ok(Self { shared, options, xds, xds_tls, status: status_listener, certificate, rescan })
    }

    pub fn addresses(&self) -> anyhow::Result<Addresses> {
        Ok(Addresses {
            xds: self.xds.local_addr()?,
            xds_tls: self.xds_tls.local_addr()?,
            status: self.status.local_addr()?,
        })
    }

    /// Serves until `shutdown`, then ends every stream, waits a little for connections to close, and returns.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self { shared, options, xds, xds_tls, status, certificate, rescan } = self;
        let acceptor = |tls: Option<TlsAcceptor>| Acceptor {
            tls,
            trust_domain: options.trust_domain.clone(),
            connections: Arc::new(Semaphore::new(options.max_connections)),
            addresses: Shares::new(options.max_connections_per_address),
            unproven: listen::UNPROVEN,
            metrics: Arc::clone(&shared.metrics),
            shutdown: shared.shutdown.clone(),
        };
        let tls = TlsAcceptor::from(Arc::new(certificate.config()?));
        let plain = grpc(&shared, acceptor(None), xds);
        let secure = grpc(&shared, acceptor(Some(tls)), xds_tls);
        let pages = crate::status::http::serve(status, Arc::clone(&shared.status), rescan, shared.shutdown.clone());
        let rotation = certificate.rotate(shared.shutdown.clone());
        let counters = Arc::clone(&shared.rate_limits).run(shared.shutdown.clone());
        let stop = shared.shutdown.clone();
        let serving = async {
            tokio::try_join!(
                plain,
                secure,
                async {
                    pages.await;
                    Ok(())
                },
                async {
                    rotation.await;
                    Ok(())
                },
                async {
                    counters.await;
                    Ok(())
                }
            )
        };
        let signal = async {
            shutdown.cancelled().await;
            stop.cancel();
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            served = serving => served.map(|_| ()),
            () = signal => {
                tracing::warn!("connections were still open after the drain time");
                Ok(())
            }
        }
    }
}

async fn grpc(shared: &Arc<Shared>, acceptor: Acceptor, listener: TcpListener) -> anyhow::Result<()> {
    let ads = AggregatedDiscoveryServiceServer::new(Ads(Arc::clone(shared))).max_decoding_message_size(MAX_REQUEST);
    let certificates = CertificateService::new(
        Arc::clone(&shared.authority),
        shared.authenticator.clone(),
        Arc::clone(&shared.brake),
        Arc::clone(&shared.metrics),
    );
    let certificates = IstioCertificateServiceServer::new(certificates).max_decoding_message_size(MAX_CSR_REQUEST);
    let limits = RateLimitService::new(
        Arc::clone(&shared.rate_limits),
        shared.worlds.clone(),
        shared.authenticator.clone(),
        shared.plaintext_identity,
    );
    let limits = RateLimitServiceServer::new(limits).max_decoding_message_size(MAX_LIMIT_REQUEST);
    let shutdown = shared.shutdown.clone();
    tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(16 << 10)
        .add_service(ads)
        .add_service(certificates)
        .add_service(limits)
        .serve_with_incoming_shutdown(acceptor.incoming(listener), async move { shutdown.cancelled().await })
        .await
        .context("gRPC server")
}
