//! Accepting connections: plaintext or TLS, bounded in number, each with its [`Connection`] information.
//!
//! TLS client certificates are optional and verified against our root; one that verifies but names no workload of this
//! trust domain ends the connection.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::{
    auth::caller::{Connection, from_certificate},
    status::metrics::Metrics,
};

const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after an accept error such as EMFILE: it does not go away by spinning.
const BACK_OFF: Duration = Duration::from_millis(100);

enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// An accepted connection.
pub(super) struct Io {
    socket: Socket,
    connection: Connection,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Io {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        self.connection.clone()
    }
}

/// How to turn accepted sockets into connections.
#[derive(Clone)]
pub(super) struct Acceptor {
    /// `None`: plaintext.
    pub tls: Option<TlsAcceptor>,
    pub trust_domain: String,
    pub connections: Arc<Semaphore>,
    pub metrics: Arc<Metrics>,
    pub shutdown: CancellationToken,
}

impl Acceptor {
    /// Accepts until shutdown. Handshakes run beside each other: a slow peer delays nobody.
    pub(super) fn incoming(self, listener: TcpListener) -> ReceiverStream<io::Result<Io>> {
        let (accepted, incoming) = mpsc::channel(16);
        tokio::spawn(async move {
            loop {
                let next = async {
                    let permit = Arc::clone(&self.connections).acquire_owned().await;
                    (permit, listener.accept().await)
                };
                let (permit, accept) = tokio::select! {
                    () = self.shutdown.cancelled() => return,
                    () = accepted.closed() => return,
                    next = next => next,
                };
                let Ok(permit) = permit else { return };
                match accept {
                    Ok((stream, peer)) => {
                        let (acceptor, accepted) = (self.clone(), accepted.clone());
                        tokio::spawn(async move {
                            match timeout(HANDSHAKE, acceptor.handshake(stream, peer, permit)).await {
                                Ok(Ok(io)) => drop(accepted.send(Ok(io)).await),
                                Ok(Err(error)) => acceptor.failed(peer, &error.to_string()),
                                Err(_) => acceptor.failed(peer, "handshake timed out"),
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accept failed");
                        tokio::time::sleep(BACK_OFF).await;
                    }
                }
            }
        });
        ReceiverStream::new(incoming)
    }

    fn failed(&self, peer: SocketAddr, error: &str) {
        self.metrics.handshake_failed();
        tracing::debug!(%peer, error, "connection refused");
    }

    async fn handshake(&self, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) -> io::Result<Io> {
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            let connection = Connection { peer, tls: false, certificate: None };
            return Ok(Io { socket: Socket::Plain(stream), connection, _permit: permit });
        };
        let stream = tls.accept(stream).await?;
        let certificate = match stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()) {
            Some(leaf) => Some(from_certificate(leaf, &self.trust_domain).map_err(io::Error::other)?),
            None => None,
        };
        let connection = Connection { peer, tls: true, certificate };
        Ok(Io { socket: Socket::Tls(Box::new(stream)), connection, _permit: permit })
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Socket::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
