//! Protocols in which the server speaks first, on any port and without configuration.
//!
//! While the client is silent, the upstream that plain TCP would go to is dialled; if it speaks before the client does,
//! the connection is TCP. A client that speaks at once (HTTP, TLS, Redis...) never causes that dial. Invariant: only
//! a server that spoke or closed decides; one that cannot be reached leaves the decision to the client and the listener.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;

use super::tcp;
use crate::{
    ir::cluster::Discovery,
    live::{LiveListener, LiveTcp},
    worker::Worker,
};

/// How long a client may be silent before the upstream is asked. Clients that speak first do so within microseconds of
/// the handshake's end; a server-first protocol pays this once per connection.
const SILENCE: Duration = Duration::from_millis(10);

/// The same where TLS may end here. The peer is then another proxy that may be throttled between connecting and its
/// ClientHello, and a server that spoke first in plaintext would ruin that connection.
const TLS_SILENCE: Duration = Duration::from_millis(50);

/// The same where the upstream is the client's own destination (a passthrough cluster). Both draw source ports from one
/// range: a dial that is never answered leaves an entry in connection tracking that is not redirected, and for two
/// minutes init's port guard refuses a new connection of the application from that port (without the guard it would
/// pass us by). So such a dial must be rare: a busy machine that delays a client's first bytes must not cause it.
const PASSTHROUGH_SILENCE: Duration = Duration::from_millis(250);

/// Most bytes taken from a server that speaks first before the relay runs.
const FIRST_READ: usize = 4 << 10;

/// How long a silent client of `listener` is left alone.
pub(super) fn silence(listener: &LiveListener) -> Duration {
    if listener.terminates_tls { TLS_SILENCE } else { SILENCE }
}

/// An upstream connection made, or tried, before the filter chain was known.
pub(super) struct Early {
    /// The proxy it was dialled for; of no use to any other chain.
    pub(super) proxy: Arc<LiveTcp>,
    pub(super) upstream: Result<tcp::Upstream, tcp::Failure>,
    /// What the server said, still to be passed on.
    pub(super) first: Bytes,
}

/// What it takes to dial early.
pub(super) struct Dial<'a> {
    pub(super) worker: &'a Rc<Worker>,
    /// The TCP proxy of the chain a silent client gets, if it may be dialled for.
    pub(super) proxy: Option<Arc<LiveTcp>>,
    pub(super) silence: Duration,
    /// Original destination and client.
    pub(super) to: (Option<SocketAddr>, SocketAddr),
}

impl Dial<'_> {
    /// Resolves when the server spoke or closed; the connection is then TCP.
    pub(super) async fn server_speaks(self, early: &mut Option<Early>) {
        let Some(proxy) = &self.proxy else { return std::future::pending().await };
        let live = self.worker.engine.live.get();
        let passthrough = proxy.config.targets.iter().any(|target| {
            let cluster = live.cluster(&target.cluster);
            // With a source address of its own (inbound: 127.0.0.6) the two cannot meet.
            cluster
                .is_some_and(|c| matches!(c.config.discovery, Discovery::OriginalDst { .. }) && c.config.bind.is_none())
        });
        let silence = if passthrough { PASSTHROUGH_SILENCE } else { self.silence };
        drop(live);
        tokio::time::sleep(silence.max(self.silence)).await;
        let to = tcp::Destination { original_dst: self.to.0, remote: self.to.1 };
        let upstream = tcp::open(self.worker, &self.worker.engine.live.get(), proxy, &to).await;
        let slot = early.insert(Early { proxy: proxy.clone(), upstream, first: Bytes::new() });
        match &mut slot.upstream {
            Ok(upstream) => {
                let mut buffer = BytesMut::with_capacity(FIRST_READ);
                // An error shows again when the relay reads.
                if upstream.connected.io.read_buf(&mut buffer).await.is_ok() {
                    slot.first = buffer.freeze();
                }
            }
            // The client may still turn out to be HTTP or TLS, whose destination is another one. How long it may take
            // is the listener's to say.
            Err(_) => std::future::pending().await,
        }
    }
}
