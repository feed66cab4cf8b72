//! Protocols in which the server speaks first, on any port and without configuration.
//!
//! While the client is silent, the upstream that plain TCP would go to is dialled; if it speaks before the client does,
//! the connection is TCP. A client that speaks at once (HTTP, TLS, Redis...) never causes that dial.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;

use super::tcp;
use crate::{
    live::{Live, LiveTcp},
    worker::Worker,
};

/// How long a client may be silent before the upstream is asked. Clients that speak first do so within microseconds of
/// the handshake's end; a server-first protocol pays this once per connection.
const SILENCE: Duration = Duration::from_millis(10);

/// Most bytes taken from a server that speaks first before the relay runs.
const FIRST_READ: usize = 4 << 10;

/// An upstream connection made before the filter chain was known.
pub(super) struct Early {
    /// The proxy it was dialled for; of no use to any other chain.
    pub(super) proxy: Arc<LiveTcp>,
    pub(super) upstream: tcp::Upstream,
    /// What the server said, still to be passed on.
    pub(super) first: Bytes,
}

/// What it takes to dial early.
pub(super) struct Dial<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) live: &'a Live,
    /// The TCP proxy of the chain a silent client gets, `None` where that chain is HTTP.
    pub(super) proxy: Option<Arc<LiveTcp>>,
    pub(super) original_dst: Option<SocketAddr>,
    pub(super) remote: SocketAddr,
}

impl Dial<'_> {
    /// Resolves when the server spoke, closed, or cannot be reached at all; the connection is then TCP.
    pub(super) async fn server_speaks(self, early: &mut Option<Early>) {
        let Some(proxy) = &self.proxy else { return std::future::pending().await };
        tokio::time::sleep(SILENCE).await;
        let target = tcp::Destination { original_dst: self.original_dst, remote: self.remote };
        let Ok(upstream) = tcp::open(self.worker, self.live, proxy, &target).await else {
            // The TCP proxy dials again and reports the failure properly.
            return;
        };
        let slot = early.insert(Early { proxy: proxy.clone(), upstream, first: Bytes::new() });
        let mut buffer = BytesMut::with_capacity(FIRST_READ);
        // An error shows again when the relay reads.
        if slot.upstream.connected.io.read_buf(&mut buffer).await.is_ok() {
            slot.first = buffer.freeze();
        }
    }
}
