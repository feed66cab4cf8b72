//! Whether the configuration in force would still admit a connection that an earlier one let in.
//!
//! Asked when a connection's filter chain was replaced, or may have been by a more specific one: a policy that was
//! tightened (plaintext refused, fewer names accepted, a newer TLS or another caller demanded) holds for those who are
//! already inside. Knows nothing of how connections are cut.
//! Invariant: only a chain that takes its place can turn a connection out; one whose listener is gone just drains.

use std::{rc::Rc, sync::Arc};

use super::filters;
use crate::{
    ir::listener::Transport,
    l7::Engine,
    live::{LiveChain, LiveTerminal, Standing},
    policy::chain::ChainFacts,
    telemetry::{
        lines::Lines,
        metrics::{ListenerStats, Sharded},
        record::ConnInfo,
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
    ///
    /// `own`: of the chain it came through, in whichever version. `replaced`: that one is not in force any more.
    pub(super) fn refusal(&self, info: &ConnInfo, own: &Arc<Standing>, replaced: bool) -> Option<String> {
        let facts = ChainFacts {
            destination: info.local,
            server_name: self.facts.server_name.as_deref(),
            transport: self.facts.transport,
            alpn: &self.facts.alpn,
            direct_source: info.remote.ip(),
            source: info.remote,
        };
        let live = self.engine.live.get();
        let chain = live.listener(&info.listener)?.choose(&facts);
        if !replaced && chain.is_some_and(|chain| Arc::ptr_eq(&chain.standing, own)) {
            return None;
        }
        let reason = admits(chain.map(|chain| &**chain), info, own).err()?;
        self.stats.local().downstream_cx_revoked.inc();
        if REVOKED.allow() {
            tracing::info!(listener = %info.listener, peer = %info.remote, reason, "a connection is not admitted any more");
        }
        Some("no_longer_admitted".to_owned())
    }
}

fn admits(chain: Option<&LiveChain>, info: &ConnInfo, own: &Arc<Standing>) -> Result<(), String> {
    let Some(chain) = chain else { return Err("no filter chain takes it".to_owned()) };
    match (&chain.tls, info.tls.as_deref()) {
        (None, _) => {}
        (Some(_), None) => return Err("it is plaintext".to_owned()),
        (Some(context), Some(peer)) => context.admits(peer).map_err(|e| e.reason)?,
    }
    if Arc::ptr_eq(&chain.standing, own) {
        // Its filters are asked whenever they change.
        return Ok(());
    }
    if let Some(reason) = filters::again(&chain.network, info) {
        return Err(reason);
    }
    let theirs = match &chain.terminal {
        LiveTerminal::Http(hcm) => Some(hcm.filters.clone()),
        LiveTerminal::Tcp(_) => None,
    };
    match theirs.unwrap_or_default().authorize_alike(&own.http().unwrap_or_default()) {
        true => Ok(()),
        // Its requests go on under rules that nobody updates any more.
        false => Err("other rules hold for its requests".to_owned()),
    }
}
