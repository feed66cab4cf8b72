//! TLS handshakes over a plain socket.
//!
//! Owns the exchange until both sides may send. Knows nothing of certificates and policies. What TLS 1.3 says last (the
//! client's Finished, the server's tickets) is left to go out with the first data: a new connection needs a packet less
//! each way, and wakes its peer once less.

use std::{
    future::poll_fn,
    io,
    ops::DerefMut,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::{
    ClientConnection, ConnectionCommon, ProtocolVersion, ServerConfig, ServerConnection, SideData,
    server::{Accepted, AcceptedAlert, Acceptor, ClientHello},
};

use super::{
    Plain,
    incoming::Incoming,
    tls::{TlsStream, Writer},
};

/// Performs the client's side.
pub async fn connect(plain: Plain, session: ClientConnection) -> io::Result<TlsStream<ClientConnection>> {
    complete(plain, session, Incoming::default()).await
}

/// A client that said hello, and has no answer yet.
pub struct Hello {
    plain: Plain,
    incoming: Incoming,
    accepted: Accepted,
}

/// Waits for a client's hello.
pub async fn hello(mut plain: Plain) -> io::Result<Hello> {
    let mut incoming = Incoming::default();
    let mut acceptor = Acceptor::default();
    let accepted = poll_fn(|cx| {
        loop {
            ready!(receive(&mut plain, &mut incoming, cx))?;
            let n = acceptor.read_tls(&mut incoming.bytes())?;
            incoming.consume(n);
            match acceptor.accept() {
                Ok(Some(accepted)) => return Poll::Ready(Ok(accepted)),
                Ok(None) => {}
                Err((error, alert)) => return Poll::Ready(Err(refuse(&mut plain, alert, error, cx))),
            }
        }
    })
    .await?;
    Ok(Hello { plain, incoming, accepted })
}

impl Hello {
    pub fn client_hello(&self) -> ClientHello<'_> {
        self.accepted.client_hello()
    }

    /// Performs the rest of the server's side.
    pub async fn answer(self, config: Arc<ServerConfig>) -> io::Result<TlsStream<ServerConnection>> {
        let Self { mut plain, incoming, accepted } = self;
        match accepted.into_connection(config) {
            Ok(session) => complete(plain, session, incoming).await,
            Err((error, alert)) => {
                let mut refused = Some((error, alert));
                let error = poll_fn(|cx| Poll::Ready(refused.take().map(|(e, a)| refuse(&mut plain, a, e, cx)))).await;
                Err(error.unwrap_or_else(|| io::ErrorKind::InvalidData.into()))
            }
        }
    }
}

async fn complete<C, S>(mut plain: Plain, mut session: C, mut incoming: Incoming) -> io::Result<TlsStream<C>>
where
    C: DerefMut<Target = ConnectionCommon<S>>,
    S: SideData,
{
    poll_fn(|cx| poll_complete(&mut plain, &mut session, &mut incoming, cx)).await?;
    Ok(TlsStream::new(plain, session, incoming))
}

fn poll_complete<S: SideData>(
    plain: &mut Plain,
    session: &mut ConnectionCommon<S>,
    incoming: &mut Incoming,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    loop {
        // Before TLS 1.3 the peer may send nothing before it has seen our Finished.
        let last_may_wait = session.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        while session.wants_write() && (session.is_handshaking() || !last_may_wait) {
            match session.write_tls(&mut Writer { plain, cx }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
        if !session.is_handshaking() {
            return Poll::Ready(Ok(()));
        }
        ready!(receive(plain, incoming, cx))?;
        let n = session.read_tls(&mut incoming.bytes())?;
        incoming.consume(n);
        if let Err(error) = session.process_new_packets() {
            // The alert that says why, if the socket takes it at once.
            let _ = session.write_tls(&mut Writer { plain, cx });
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
    }
}

/// Sees to it that bytes are at hand.
fn receive(plain: &mut Plain, incoming: &mut Incoming, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    if incoming.is_empty() && ready!(incoming.poll_receive(cx, plain))? == 0 {
        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
    }
    Poll::Ready(Ok(()))
}

/// Sends the alert that says why, if the socket takes it at once.
fn refuse(plain: &mut Plain, mut alert: AcceptedAlert, error: rustls::Error, cx: &mut Context<'_>) -> io::Error {
    let _ = alert.write(&mut Writer { plain, cx });
    io::Error::new(io::ErrorKind::InvalidData, error)
}
