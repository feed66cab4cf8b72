//! What goes into and comes out of [`super::Pool::send`].

use std::{cell::OnceCell, fmt, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use http::{Request, Response};
use tokio::task::AbortHandle;

use crate::{
    ir::Metadata,
    l7::{incoming::Incoming, timeouts::TryClock},
    telemetry::{mesh::Pair, metrics::ClusterStats, record::PeerInfo},
    upstream::{Cluster, ConnectError, Endpoint, RequestPermit},
};

/// The protocol wanted of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http1,
    Http2,
    /// By ALPN: HTTP/2 when the peer picks it, else HTTP/1.1.
    Auto,
}

/// The protocol a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpProtocol {
    Http1,
    Http2,
}

/// Where one try of a request goes.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub cluster: Arc<Cluster>,
    pub endpoint: Arc<Endpoint>,
    pub protocol: Protocol,
    /// Replaces the transport socket's ALPN list.
    pub alpn: Option<Arc<[Box<str>]>>,
    /// `auto_sni`: overrides the transport socket's SNI.
    pub sni: Option<Box<str>>,
    pub downstream: Option<SocketAddr>,
    /// The request could be sent again: an idle connection that the peer closes in this very moment does no harm.
    pub replayable: bool,
    /// Which circuit breaker counts the request.
    pub high_priority: bool,
    /// To be started once there is a connection.
    pub clock: Option<Rc<TryClock>>,
}

/// What is known of the connection that carried a request, once per connection.
#[derive(Debug)]
pub struct Facts {
    /// The endpoint's address as text.
    pub host: Arc<str>,
    pub local: Option<SocketAddr>,
    pub remote: Option<SocketAddr>,
    pub protocol: HttpProtocol,
    pub tls: Option<Arc<PeerInfo>>,
    /// What is noted of the endpoint.
    pub metadata: Option<Arc<Metadata>>,
    /// What requests on it are counted by in Istio's metrics, once there was one.
    pub pair: OnceCell<Rc<Pair>>,
}

/// A request that got response headers.
#[derive(Debug)]
pub struct Sent {
    pub response: Response<Incoming>,
    /// To be held until the body's end (or the tunnel's).
    pub guard: StreamGuard,
    pub facts: Rc<Facts>,
    /// Whether no request was answered on the connection before this one was sent.
    pub new_connection: bool,
}

/// What a connection does when a stream on it is over.
pub(super) trait Carrier {
    /// The stream ended; the connection may take the next one once it is ready.
    fn release(self: Rc<Self>);
    /// The stream was given up: the connection must not be used again if it carried only this stream.
    fn abort(self: Rc<Self>);
}

/// A stream in flight: in-flight counts and the hold on its connection, until drop.
#[must_use = "dropping the guard says that the stream is over"]
pub struct StreamGuard {
    carrier: Option<Rc<dyn Carrier>>,
    permit: RequestPermit,
    /// Sends what the request still had to say when the response began.
    upload: Option<AbortHandle>,
}

impl StreamGuard {
    pub(super) fn new(carrier: Rc<dyn Carrier>, permit: RequestPermit) -> Self {
        Self { carrier: Some(carrier), permit, upload: None }
    }

    /// What is still being sent on the stream: it ends with the stream.
    pub(super) fn uploading(&mut self, upload: Option<AbortHandle>) {
        self.upload = upload;
    }

    /// What counts the stream.
    pub fn stats(&self) -> &ClusterStats {
        self.permit.stats()
    }

    /// Says that the response came to its end, or that the peer broke it off.
    pub fn answered(&self, whole: bool) {
        self.permit.answered(whole);
    }

    /// How long the response took from the request's end, if that came before.
    pub fn took(&self, time: Option<Duration>) {
        self.permit.stats().upstream_rq_time.time(time.unwrap_or_default());
    }

    /// Gives the stream up: an HTTP/1 connection is closed at once instead of after its message.
    pub fn abort(mut self) {
        if let Some(carrier) = self.carrier.take() {
            carrier.abort();
        }
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        // Who answered to the end wants no more of the request. A stream that stayed would be counted by nobody.
        if let Some(upload) = self.upload.take() {
            upload.abort();
        }
        if let Some(carrier) = self.carrier.take() {
            carrier.release();
        }
    }
}

impl fmt::Debug for StreamGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamGuard")
    }
}

/// What went wrong before response headers arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendErrorKind {
    /// There is no connection; nothing was sent.
    Connect(ConnectError),
    /// The peer said that it did not process the request: GOAWAY below its stream, or REFUSED_STREAM.
    Refused,
    /// The connection was gone before a byte of the request was written.
    Unsent,
    /// The stream or connection broke; whether the request was processed is unknown.
    Reset {
        response_started: bool,
        /// The connection had carried requests before: an idle one that the peer closed looks like this.
        reused: bool,
    },
    /// The peer reset the stream; whether it processed the request is unknown, but the connection is well.
    StreamReset,
    /// A circuit breaker on requests or pending requests was open.
    PoolOverflow,
    /// The peer violated the protocol or our limits on headers.
    Protocol,
    /// Our own request body failed while it was sent.
    Body,
}

/// A request that got no response.
pub struct SendError<B> {
    pub kind: SendErrorKind,
    /// Given back when nothing of it was consumed.
    pub request: Option<Request<B>>,
    pub reason: String,
    /// The connection that was used, if there was one.
    pub facts: Option<Rc<Facts>>,
}

impl<B> fmt::Debug for SendError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("SendError");
        debug.field("kind", &self.kind).field("reason", &self.reason).field("given_back", &self.request.is_some());
        debug.finish()
    }
}
