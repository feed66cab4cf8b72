//! Accepting connections: plaintext or TLS, bounded in number and for each address, with their [`Connection`] information.
//!
//! A connection on which no call is let in soon is closed: whoever can connect must not be able to lock others out.
//! TLS client certificates are optional and verified against our root; one that verifies but names no workload of this
//! trust domain ends the connection.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::shares::{Share, Shares};
use crate::{
    auth::caller::{Connection, from_certificate},
    status::metrics::Metrics,
};

const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may live without a call that was let in.
pub(super) const UNPROVEN: Duration = Duration::from_secs(30);
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
    /// Ends it, unless a call is let in before.
    unproven: Option<Pin<Box<Sleep>>>,
    _place: Place,
}

/// What a connection takes from others while it lives.
struct Place {
    _permit: OwnedSemaphorePermit,
    _share: Share<IpAddr>,
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
    pub addresses: Arc<Shares<IpAddr>>,
    pub unproven: Duration,
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
                        let Some(share) = self.addresses.take(holder(peer.ip())) else {
                            self.failed(peer, "too many connections from this address");
                            continue;
                        };
                        let place = Place { _permit: permit, _share: share };
                        let (acceptor, accepted) = (self.clone(), accepted.clone());
                        tokio::spawn(async move {
                            match timeout(HANDSHAKE, acceptor.handshake(stream, peer, place)).await {
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

    async fn handshake(&self, stream: TcpStream, peer: SocketAddr, place: Place) -> io::Result<Io> {
        stream.set_nodelay(true)?;
        let unproven = Some(Box::pin(sleep(self.unproven)));
        let Some(tls) = &self.tls else {
            let connection = Connection::new(peer, false, None);
            return Ok(Io { socket: Socket::Plain(stream), connection, unproven, _place: place });
        };
        let stream = tls.accept(stream).await?;
        let certificate = match stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()) {
            Some(leaf) => Some(from_certificate(leaf, &self.trust_domain).map_err(io::Error::other)?),
            None => None,
        };
        let connection = Connection::new(peer, true, certificate);
        Ok(Io { socket: Socket::Tls(Box::new(stream)), connection, unproven, _place: place })
    }
}

/// Whose share a connection is of: whoever has one IPv6 address has its /64.
fn holder(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        ip => ip,
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unproven.is_some() && self.connection.is_admitted() {
            self.unproven = None;
        }
        // Reading is what the server does all the time, so this wakes it.
        if self.unproven.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no call was let in")));
        }
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_stream::StreamExt;

    use super::*;

    async fn plain(unproven: Duration) -> (SocketAddr, ReceiverStream<io::Result<Io>>, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let acceptor = Acceptor {
            tls: None,
            trust_domain: "cluster.local".into(),
            connections: Arc::new(Semaphore::new(8)),
            addresses: Shares::new(1),
            unproven,
            metrics: Arc::default(),
            shutdown: shutdown.clone(),
        };
        (address, acceptor.incoming(listener), shutdown)
    }

    #[tokio::test]
    async fn a_connection_without_a_call_that_is_let_in_ends() {
        let (address, mut incoming, _shutdown) = plain(Duration::ZERO).await;
        let mut peer = TcpStream::connect(address).await.unwrap();
        let mut io = incoming.next().await.unwrap().unwrap();
        let mut bytes = [0; 2];
        assert_eq!(io.read(&mut bytes).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        io.connect_info().admit();
        peer.write_all(b"hi").await.unwrap();
        io.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"hi");
    }

    #[tokio::test]
    async fn an_address_has_its_share_of_connections() {
        let (address, mut incoming, _shutdown) = plain(UNPROVEN).await;
        let _first = TcpStream::connect(address).await.unwrap();
        let first = incoming.next().await.unwrap().unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        assert_eq!(second.read(&mut [0; 1]).await.unwrap_or(0), 0, "is closed");
        drop(first);
        let _third = TcpStream::connect(address).await.unwrap();
        assert!(incoming.next().await.unwrap().is_ok());
    }

    #[test]
    fn neighbours_in_ipv6_are_one_holder() {
        let of = |text: &str| holder(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("::ffff:10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
