//! Whether the configuration in force would still admit a connection that an earlier one let in.
//!
//! Asked when a connection's filter chain was replaced: a policy that was tightened (plaintext refused, fewer names
//! accepted, a newer TLS demanded) holds for those who are already inside. Knows nothing of how connections are cut.
//! Invariant: only a chain that takes its place can turn a connection out; one whose listener is gone just drains.

use std::{cell::Cell, rc::Rc, sync::Arc};

use crate::{
    drain,
    ir::listener::Transport,
    live::LiveListener,
    policy::chain::ChainFacts,
    telemetry::{
        metrics::{ListenerStats, Sharded},
        record::{ConnInfo, PeerInfo},
    },
    worker::Worker,
};

/// What a connection was admitted by, besides its addresses.
pub(super) struct Reviewed {
    pub(super) server_name: Option<Box<str>>,
    pub(super) transport: Transport,
    pub(super) alpn: Vec<Box<str>>,
    pub(super) tls: Option<Arc<PeerInfo>>,
}

impl Reviewed {
    /// The question, to be asked on the connection's own worker. Turning a connection out is counted once.
    pub(super) fn review(
        self,
        worker: &Rc<Worker>,
        info: &ConnInfo,
        stats: &Arc<Sharded<ListenerStats>>,
    ) -> drain::Review {
        let (engine, stats) = (worker.engine.clone(), stats.clone());
        let (listener, remote, local) = (info.listener.clone(), info.remote, info.local);
        let out = Cell::new(false);
        Rc::new(move || {
            let facts = ChainFacts {
                destination: local,
                server_name: self.server_name.as_deref(),
                transport: self.transport,
                alpn: &self.alpn,
                direct_source: remote.ip(),
                source: remote,
            };
            let live = engine.live.get();
            let Some(now) = live.listener(&listener) else { return !out.get() };
            let verdict = admits(now, &facts, self.tls.as_deref());
            if let Err(reason) = &verdict
                && !out.replace(true)
            {
                stats.local().downstream_cx_revoked.inc();
                tracing::info!(listener = %listener, peer = %remote, reason, "a connection is not admitted any more");
            }
            !out.get()
        })
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
