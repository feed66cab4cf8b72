//! The control loop: every new snapshot becomes a `Live`, every `Live` gets its sockets, and at the end all is drained.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::sockets::Sockets;
use crate::{
    admin::{self, Request},
    drain::Phase,
    ir::{Name, endpoint::Assignment, listener::Direction, secret::Secret, snapshot::Snapshot},
    live::{Builder, Live, Publisher},
    upstream::dns::{SystemResolver, Watcher},
    worker::{Handle, Shared},
    xds,
};

/// How often sockets that could not be bound are tried again.
const BIND_RETRY: Duration = Duration::from_secs(1);

/// How often a drain looks whether the last connection is gone.
const DRAIN_TICK: Duration = Duration::from_millis(20);

/// How long removed filter chains may go on before their connections are cut.
const CHAIN_DRAIN: Duration = Duration::from_secs(600);

pub(super) struct Control {
    builder: Builder,
    publisher: Arc<Publisher>,
    subscription: xds::Handle,
    sockets: Sockets,
    state: Arc<admin::State>,
    resolved: HashMap<Name, Arc<Assignment>>,
    /// What the TLS contexts were given.
    secrets: BTreeMap<Name, Arc<Secret>>,
    /// Set once draining began: no socket is opened any more.
    draining: bool,
}

impl Control {
    pub(super) fn new(
        builder: Builder,
        publisher: Arc<Publisher>,
        subscription: xds::Handle,
        sockets: Sockets,
        state: Arc<admin::State>,
    ) -> Self {
        Self {
            builder,
            publisher,
            subscription,
            sockets,
            state,
            resolved: HashMap::new(),
            secrets: BTreeMap::new(),
            draining: false,
        }
    }

    /// Runs until somebody asks for the end and the drain is over. Gives back the workers, idle or to be cut.
    pub(super) async fn run(
        mut self,
        mut requests: mpsc::UnboundedReceiver<Request>,
        shared: &Shared,
        drain_time: Duration,
    ) -> Vec<Handle> {
        let (answers, mut resolutions) = mpsc::unbounded_channel();
        let publish = move |name: Name, assignment: Arc<Assignment>| {
            let _ = answers.send((name, assignment));
        };
        let mut dns = Watcher::new(Arc::new(SystemResolver::new()), Arc::new(publish));
        let mut snapshots = self.subscription.snapshots();
        snapshots.mark_changed();
        let mut retry = tokio::time::interval(BIND_RETRY);
        retry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut unbound = false;
        loop {
            tokio::select! {
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        tracing::error!("the subscription ended; the last configuration stays in force");
                        std::future::pending::<()>().await;
                    }
                    let snapshot = snapshots.borrow_and_update().clone();
                    self.resolved.retain(|name, _| snapshot.clusters.contains_key(name));
                    unbound = self.apply(&snapshot);
                    dns.set(self.publisher.current().clusters());
                }
                Some((name, assignment)) = resolutions.recv() => {
                    self.resolved.insert(name, assignment);
                    // Answers often come in bunches: one rebuild serves them all.
                    while let Ok((name, assignment)) = resolutions.try_recv() {
                        self.resolved.insert(name, assignment);
                    }
                    let snapshot = snapshots.borrow().clone();
                    unbound = self.apply(&snapshot);
                }
                _ = retry.tick() => {
                    if unbound {
                        unbound = self.bind();
                    }
                }
                Some(request) = requests.recv() => match request {
                    Request::ReopenLogs => self.builder.sinks.reopen(),
                    Request::DrainListeners { inbound_only } => self.drain_listeners(shared, inbound_only),
                    Request::Stop => {
                        self.stop(shared, drain_time, &mut requests).await;
                        return self.sockets.into_workers();
                    }
                    Request::Cut => return self.sockets.into_workers(),
                },
            }
        }
    }

    /// Puts a snapshot in force. Returns whether some socket could not be bound.
    fn apply(&mut self, snapshot: &Snapshot) -> bool {
        let started = Instant::now();
        self.update_secrets(snapshot);
        let previous = self.publisher.current();
        let (live, problems) = self.builder.build(snapshot, &self.resolved, &previous);
        for problem in &problems {
            tracing::error!(resource = %problem.resource, reason = %problem.reason, "kept the former version");
        }
        self.state.set_problems(problems.iter().map(|p| format!("{}: {}", p.resource, p.reason)).collect());
        let live = Arc::new(live);
        let previous = self.publisher.publish(live.clone());
        let unbound = self.bind();
        let drained = drain_removed(&previous, &live);
        tracing::debug!(version = live.version, drained, took = ?started.elapsed(), "configuration in force");
        self.state.applied(live.version);
        unbound
    }

    fn update_secrets(&mut self, snapshot: &Snapshot) {
        for (name, secret) in &snapshot.secrets {
            if self.secrets.get(name).is_none_or(|known| !Arc::ptr_eq(known, secret)) {
                self.builder.secrets.set(name.clone(), secret.clone());
            }
        }
        for name in self.secrets.keys().filter(|name| !snapshot.secrets.contains_key(*name)) {
            self.builder.secrets.remove(name);
        }
        self.secrets.clone_from(&snapshot.secrets);
    }

    fn bind(&mut self) -> bool {
        if self.draining {
            return false;
        }
        let failed = self.sockets.reconcile(&self.publisher.current());
        for (listener, address, error) in &failed {
            tracing::error!(%listener, %address, %error, "cannot bind; trying again");
        }
        self.state.set_unbound(failed.iter().map(|(l, a, e)| format!("listener {l}: {a}: {e}")).collect());
        !failed.is_empty()
    }

    fn drain_listeners(&mut self, shared: &Shared, inbound_only: bool) {
        tracing::info!(inbound_only, "draining listeners");
        self.draining = true;
        let live = self.publisher.current();
        self.sockets.close_where(|name| {
            !inbound_only || live.listener(name).is_none_or(|l| l.config.direction == Direction::Inbound)
        });
        shared.drains.inbound.advance(Phase::Drain);
        if !inbound_only {
            shared.drains.outbound.advance(Phase::Drain);
        }
    }

    /// Two phases: inbound connections end first while the outbound side keeps serving the application's last calls;
    /// what is left at the deadline is cut, and said.
    async fn stop(&mut self, shared: &Shared, drain_time: Duration, requests: &mut mpsc::UnboundedReceiver<Request>) {
        self.state.set_draining();
        self.drain_listeners(shared, true);
        let deadline = tokio::time::Instant::now() + drain_time;
        let mut tick = tokio::time::interval(DRAIN_TICK);
        let live = self.publisher.current();
        let open = |direction: Option<Direction>| -> u64 {
            let listeners = live.listeners.values();
            listeners
                .filter(|l| direction.is_none_or(|d| l.config.direction == d))
                .map(|l| l.open.load(Ordering::Relaxed))
                .sum()
        };
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = tokio::time::sleep_until(deadline) => break,
                Some(request) = requests.recv() => {
                    if matches!(request, Request::Cut) {
                        break;
                    }
                }
            }
            // Once nothing comes in any more, the outbound connections have nothing left to serve but themselves.
            if open(Some(Direction::Inbound)) + open(Some(Direction::Unspecified)) == 0 {
                shared.drains.outbound.advance(Phase::Drain);
            }
            if shared.connections.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
        let (inbound, all) = (open(Some(Direction::Inbound)), shared.connections.load(Ordering::Relaxed));
        tracing::warn!(inbound, all, "connections cut at the end of the drain time");
        shared.drains.inbound.advance(Phase::Force);
        shared.drains.outbound.advance(Phase::Force);
    }
}

/// Asks the connections of removed chains to end, and cuts what is left after a generous time: a stream may outlive
/// its configuration, not for ever. Returns how many chains that concerns.
fn drain_removed(previous: &Live, live: &Live) -> usize {
    let removed = previous.removed_chains(live);
    removed.iter().for_each(|chain| chain.drain.advance(Phase::Drain));
    let busy: Vec<_> = removed.into_iter().filter(|chain| chain.drain.listeners() > 0).collect();
    let count = busy.len();
    if count > 0 {
        tokio::spawn(async move {
            tokio::time::sleep(CHAIN_DRAIN).await;
            busy.iter().for_each(|chain| chain.drain.advance(Phase::Force));
        });
    }
    count
}
