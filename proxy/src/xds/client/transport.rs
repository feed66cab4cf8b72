//! How a stream gets its connection: the application dials, this room only speaks gRPC over the result.

use std::{fmt::Debug, sync::Arc};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream to a control plane, TLS already done.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for T {}

/// Dials clusters by name, with whatever their configuration says of addresses, TLS and ALPN (`h2` for TLS).
pub trait Transport: Send + Sync + Debug + 'static {
    /// A new connection to the named cluster, or why there is none.
    fn connect(self: Arc<Self>, cluster: &str) -> BoxFuture<'static, Result<Box<dyn Connection>, String>>;
}
