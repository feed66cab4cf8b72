//! How xDS reaches its servers: through the proxy's own clusters, with their endpoints, TLS and timeouts.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use crate::{
    live::{Live, Publisher},
    settings::AgentSocket,
    upstream::{ConnectOptions, PickContext, connect},
    xds::{Connection, Transport, WORKLOAD_API},
};

/// How long a dial waits for a cluster that has no endpoints yet (its name is still being resolved).
const PATIENCE: Duration = Duration::from_secs(5);

/// Most endpoints tried for one connection.
const MOST_ENDPOINTS: usize = 4;

pub(super) struct ClusterTransport {
    publisher: Arc<Publisher>,
    /// Of a SPIFFE agent, which is no cluster.
    agent: Option<AgentSocket>,
}

impl ClusterTransport {
    pub(super) fn new(publisher: Arc<Publisher>, agent: Option<AgentSocket>) -> Self {
        Self { publisher, agent }
    }
}

async fn dial(agent: AgentSocket) -> Result<Box<dyn Connection>, String> {
    match agent {
        AgentSocket::Unix(path) => {
            let stream = tokio::net::UnixStream::connect(&path).await;
            stream.map(|s| Box::new(s) as Box<dyn Connection>).map_err(|e| format!("{}: {e}", path.display()))
        }
        AgentSocket::Tcp(address) => {
            let stream = tokio::net::TcpStream::connect(address).await;
            stream.map(|s| Box::new(s) as Box<dyn Connection>).map_err(|e| format!("{address}: {e}"))
        }
    }
}

impl fmt::Debug for ClusterTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterTransport")
    }
}

impl Transport for ClusterTransport {
    fn connect(self: Arc<Self>, cluster: &str) -> BoxFuture<'static, Result<Box<dyn Connection>, String>> {
        if let Some(agent) = self.agent.clone().filter(|_| cluster == WORKLOAD_API) {
            return Box::pin(dial(agent));
        }
        let name = cluster.to_owned();
        Box::pin(async move {
            let mut changes = self.publisher.watch();
            let deadline = tokio::time::Instant::now() + PATIENCE;
            loop {
                changes.borrow_and_update();
                let error = match attempt(&self.publisher.current(), &name).await {
                    Ok(connection) => return Ok(connection),
                    Err(Failure::Final(reason)) => return Err(reason),
                    Err(Failure::NotYet(reason)) => reason,
                };
                match tokio::time::timeout_at(deadline, changes.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return Err(error),
                }
            }
        })
    }
}

enum Failure {
    NotYet(String),
    Final(String),
}

async fn attempt(live: &Live, name: &str) -> Result<Box<dyn Connection>, Failure> {
    let cluster = live.cluster(name).ok_or_else(|| Failure::NotYet(format!("cluster `{name}` does not exist")))?;
    let mut tried = Vec::new();
    loop {
        let pick = PickContext { random: fastrand::u64(..), attempts: 3, exclude: &tried, ..PickContext::default() };
        let endpoint = cluster.pick(&pick).map_err(|e| Failure::NotYet(format!("cluster `{name}`: {e}")))?;
        // gRPC servers insist on the agreement; Envoy offers it as well where the configuration says nothing.
        let alpn = (!endpoint.has_alpn()).then(|| Arc::from(["h2".into()]));
        let error = match connect(cluster, &endpoint, &ConnectOptions { alpn, ..ConnectOptions::default() }).await {
            Ok(connected) => return Ok(Box::new(Held { io: connected.io, _permit: connected.permit })),
            Err(error) => format!("{}: {}", endpoint.label, error.reason),
        };
        // One address after the other, before the caller backs off.
        tried.push(endpoint);
        if tried.len() >= cluster.members().len().min(MOST_ENDPOINTS) {
            return Err(Failure::Final(error));
        }
    }
}

pin_project_lite::pin_project! {
    /// A connection that counts as one of its cluster's until it is dropped.
    struct Held {
        #[pin]
        io: crate::net::io::Io,
        _permit: crate::upstream::ConnectionPermit,
    }
}

impl tokio::io::AsyncRead for Held {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        self.project().io.poll_read(cx, buf)
    }
}

impl tokio::io::AsyncWrite for Held {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        self.project().io.poll_write(cx, buf)
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        self.project().io.poll_flush(cx)
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        self.project().io.poll_shutdown(cx)
    }
}
