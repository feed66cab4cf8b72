//! Whether the configuration in force would still admit a connection that an earlier one let in.
//!
//! Asked when a connection's filter chain was replaced: a policy that was tightened (plaintext refused, fewer names
//! accepted, a newer TLS demanded) holds for those who are already inside. Knows nothing of how connections are cut.
//! Invariant: only a chain that takes its place can turn a connection out; one whose listener is gone just drains.

use std::{rc::Rc, sync::Arc};

use crate::{
    ir::listener::Transport,
    l7::Engine,
    live::LiveListener,
    policy::chain::ChainFacts,
    telemetry::{
        lines::Lines,
        metrics::{ListenerStats, Sharded},
        record::{ConnInfo, PeerInfo},
    },
};

/// A policy may turn out ten thousand connections at once.
static REVOKED: Lines = Lines::new();

/// What a connection was admitted by, besides what is known of it anyway.
pub(super) struct Facts {
    pub(super) server_name: Option<Box<str>>,
    pub(super) transport: Transport,
    pub(super) alpn: Vec<Box<str>>,
}

/// What it takes to judge a connection again.
pub(super) struct Reviewed {
    engine: Rc<Engine>,
    stats: Arc<Sharded<ListenerStats>>,
    facts: Facts,
}

impl Reviewed {
    pub(super) fn new(engine: Rc<Engine>, stats: Arc<Sharded<ListenerStats>>, facts: Facts) -> Self {
        Self { engine, stats, facts }
    }

    /// Why the connection is not admitted any more; counted, so to be asked until the first refusal only.
    pub(super) fn refusal(&self, info: &ConnInfo) -> Option<String> {
        let facts = ChainFacts {
            destination: info.local,
            server_name: self.facts.server_name.as_deref(),
            transport: self.facts.transport,
            alpn: &self.facts.alpn,
            direct_source: info.remote.ip(),
            source: info.remote,
        };
        let live = self.engine.live.get();
        let reason = admits(live.listener(&info.listener)?, &facts, info.tls.as_deref()).err()?;
        self.stats.local().downstream_cx_revoked.inc();
        if REVOKED.allow() {
            tracing::info!(listener = %info.listener, peer = %info.remote, reason, "a connection is not admitted any more");
        }
        Some("no_longer_admitted".to_owned())
    }
}

fn admits(listener: &LiveListener, facts: &ChainFacts<'_>, tls: Option<&PeerInfo>) -> Result<(), String> {
    let Some(chain) = listener.choose(facts) else { return Err("no filter chain takes it".to_owned()) };
    match (&chain.tls, tls) {
        (None, _) => Ok(()),
        (Some(_), None) => Err("it is plaintext".to_owned()),
        (Some(context), Some(peer)) => context.admits(peer).map_err(|e| e.reason),
    }
}
