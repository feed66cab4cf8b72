//! The control loop: every new snapshot becomes a `Live`, every `Live` gets its sockets, and at the end all is drained.

mod handover;
mod requests;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::unistd::Pid;
use tokio::sync::{Notify, mpsc};

use super::{
    application::Application,
    ending::{self, Ending},
    memory::Trim,
    overload::Overload,
    replace::Ask,
    report,
    retiring::Retiring,
    sockets::Sockets,
};
use crate::{
    admin::{self, Request},
    ir::{Name, endpoint::Assignment, secret::Secret, snapshot::Snapshot},
    live::{Builder, Live, Problem, Publisher, Resolved},
    upstream::{
        dns::{SystemResolver, Watcher},
        health::Keeper,
    },
    worker::{Handle, Shared},
    xds,
};

/// How often sockets that could not be bound are tried again, and old parts looked after.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// How long listeners wait at the start for each other, and for the hosts of clusters with active health checks to be
/// checked once.
const FIRST_CHECKS: Duration = Duration::from_secs(15);

/// How often an end that is under way looks whether the last connection is gone.
const DRAIN_TICK: Duration = Duration::from_millis(20);

/// What an operator says about time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) end: ending::Times,
    /// For connections of removed filter chains.
    pub(super) chain_drain: Duration,
    /// How long connections are held for a first configuration; `None` is for ever.
    pub(super) hold: Option<Duration>,
}

/// What the loop looks after besides connections.
pub(super) struct Beside {
    pub(super) application: Application,
    pub(super) overload: Overload,
    /// Has the bootstrap file read again.
    pub(super) reload: Arc<Notify>,
    /// Of a process that may have predecessors and successors.
    pub(super) handover: Option<Handover>,
    /// Who starts successors.
    pub(super) supervisor: Option<Pid>,
}

/// What it takes to hand over, and to take over.
pub(super) struct Handover {
    pub(super) asks: mpsc::UnboundedReceiver<Ask>,
    pub(super) admin: Arc<admin::Admin>,
    /// How many processes there were before this one.
    pub(super) epoch: u64,
    /// Told once this process is ready.
    pub(super) ready: Arc<Notify>,
}

/// What a successor asks next; for ever nothing where there cannot be any.
async fn next(handover: &mut Option<Handover>) -> Option<Ask> {
    match handover {
        Some(handover) => handover.asks.recv().await,
        None => std::future::pending().await,
    }
}

pub(super) struct Control {
    pub(super) builder: Builder,
    pub(super) publisher: Arc<Publisher>,
    pub(super) subscription: xds::Handle,
    pub(super) sockets: Sockets,
    pub(super) state: Arc<admin::State>,
    pub(super) shared: Arc<Shared>,
    pub(super) times: Times,
    beside: Beside,
    progress: Progress,
}

/// What the loop carries from turn to turn.
struct Progress {
    /// When the held connections are given up.
    hold_until: Option<Instant>,
    /// In force, with what DNS answered.
    snapshot: Arc<Snapshot>,
    resolved: Resolved,
    retiring: Retiring,
    problems: Vec<Problem>,
    /// Addresses that could not be bound, as shown.
    unbound: Vec<String>,
    trim: Trim,
    /// Turns of housekeeping since all listeners are there.
    settled: u32,
    /// Listeners were opened.
    open: bool,
    /// When they are opened although hosts were not checked yet.
    unchecked_until: Option<Instant>,
    /// When a graceful `/drain_listeners` closes its sockets.
    closing: Option<(Instant, bool)>,
    ending: Option<Ending>,
    readiness: handover::Readiness,
}

impl Progress {
    fn new(times: &Times) -> Self {
        Self {
            hold_until: times.hold.and_then(|hold| Instant::now().checked_add(hold)),
            snapshot: Arc::default(),
            resolved: Resolved::default(),
            retiring: Retiring::new(times.chain_drain),
            problems: Vec::new(),
            unbound: Vec::new(),
            trim: Trim::default(),
            settled: 0,
            open: false,
            unchecked_until: None,
            closing: None,
            ending: None,
            readiness: handover::Readiness::default(),
        }
    }
}

impl Control {
    pub(super) fn new(
        builder: Builder,
        subscription: xds::Handle,
        sockets: Sockets,
        state: Arc<admin::State>,
        shared: Arc<Shared>,
        times: Times,
        beside: Beside,
    ) -> Self {
        let (publisher, progress) = (shared.publisher.clone(), Progress::new(&times));
        Self { builder, publisher, subscription, sockets, state, shared, times, beside, progress }
    }

    /// Runs until somebody asks for the end and the drain is over. Gives back the workers, idle or to be cut.
    pub(super) async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) -> Vec<Handle> {
        let (answers, mut resolutions) = mpsc::unbounded_channel();
        let publish = move |name: Name, assignment: Arc<Assignment>| {
            let _ = answers.send((name, assignment));
        };
        let mut dns = Watcher::new(Arc::new(SystemResolver::new()), Arc::new(publish));
        let (changes, mut health_changes) = mpsc::unbounded_channel();
        let keeper = Keeper::start(move |names| {
            let _ = changes.send(names);
        });
        let mut snapshots = self.subscription.snapshots();
        snapshots.mark_changed();
        let mut subscribed = true;
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut tick = tokio::time::interval(DRAIN_TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let over = tokio::select! {
                changed = snapshots.changed(), if subscribed => {
                    if changed.is_err() {
                        tracing::error!("the subscription ended; the last configuration stays in force");
                        subscribed = false;
                        continue;
                    }
                    let snapshot = snapshots.borrow_and_update().clone();
                    let previous = self.apply(snapshot);
                    let live = self.publisher.current();
                    if live.clusters_reconfigured(&previous) {
                        dns.set(live.clusters());
                        keeper.set(live.clusters());
                    }
                    keeper.refresh();
                    false
                }
                Some(names) = health_changes.recv() => {
                    self.health_changed(&names);
                    false
                }
                Some(answer) = resolutions.recv() => {
                    // Answers often come in bunches: one rebuild serves them all.
                    let more = std::iter::from_fn(|| resolutions.try_recv().ok());
                    self.resolved(std::iter::once(answer).chain(more));
                    keeper.refresh();
                    false
                }
                _ = housekeeping.tick() => {
                    self.keep_house();
                    false
                }
                () = at(self.progress.trim.due()) => {
                    self.progress.trim.give_back(Instant::now());
                    false
                }
                _ = tick.tick(), if self.progress.ending.is_some() => false,
                Some(request) = requests.recv() => self.asked(request),
                Some(ask) = next(&mut self.beside.handover) => {
                    self.handover(ask);
                    false
                }
            };
            if over || self.ended() {
                return self.sockets.into_workers();
            }
        }
    }

    /// Puts a snapshot in force; gives back what was before.
    fn apply(&mut self, snapshot: Arc<Snapshot>) -> Arc<Live> {
        let started = Instant::now();
        self.progress.trim.changed(started);
        let former = std::mem::replace(&mut self.progress.snapshot, snapshot.clone());
        let names = |name: &Name| snapshot.clusters.contains_key(name);
        if self.progress.resolved.keys().any(|name| !names(name)) {
            Arc::make_mut(&mut self.progress.resolved).retain(|name, _| names(name));
        }
        let mut dropped = Vec::new();
        former.secrets.differences(&snapshot.secrets, |name, secret: Option<&Arc<Secret>>| match secret {
            Some(secret) => self.builder.secrets.set(name.clone(), secret.clone()),
            None => dropped.push(name),
        });
        let previous = self.build();
        // Only now: until here connections were served that may need them.
        dropped.into_iter().for_each(|name| self.builder.secrets.remove(name));
        tracing::debug!(version = snapshot.version, took = ?started.elapsed(), "configuration in force");
        self.state.applied(snapshot.version);
        previous
    }

    fn resolved(&mut self, answers: impl Iterator<Item = (Name, Arc<Assignment>)>) {
        let snapshot = self.progress.snapshot.clone();
        let resolved: &mut HashMap<_, _> = Arc::make_mut(&mut self.progress.resolved);
        // An answer may have been on its way when its cluster was removed.
        resolved.extend(answers.filter(|(name, _)| snapshot.clusters.contains_key(name)));
        self.build();
    }

    /// Publishes clusters anew of which some host was ejected, or returned, or the like.
    fn health_changed(&mut self, names: &[Name]) {
        let previous = self.publisher.current();
        let live = Arc::new(self.builder.refresh(names, &previous));
        self.publisher.publish(live.clone());
        if self.progress.unchecked_until.is_some() {
            self.open(&live);
        }
        self.progress.retiring.replaced(previous, &live);
    }

    /// Compiles and publishes what the loop knows; gives back what was in force before.
    fn build(&mut self) -> Arc<Live> {
        let previous = self.publisher.current();
        let (live, mut problems) = self.builder.build(&self.progress.snapshot, &self.progress.resolved, &previous);
        let conflicts = live.conflicts().iter();
        problems.extend(conflicts.map(|(name, reason)| Problem { resource: name.clone(), reason: reason.clone() }));
        self.report(problems);
        let live = Arc::new(live);
        self.publisher.publish(live.clone());
        if !live.same_listeners(&previous) {
            self.open(&live);
        }
        self.state.set_open(self.progress.open || live.listeners.is_empty());
        self.progress.retiring.replaced(previous.clone(), &live);
        previous
    }

    /// Opens listeners. As in Envoy the first time waits until every host that is to be checked was checked once: those
    /// before would be sent to hosts of which nothing is known.
    fn open(&mut self, live: &Live) {
        let now = Instant::now();
        let unchecked = live.clusters().any(|c| c.awaits_checks());
        if !self.progress.open && (unchecked || self.awaits_listeners()) {
            let until = *self.progress.unchecked_until.get_or_insert(now + FIRST_CHECKS);
            if now < until {
                self.state.set_awaits_checks(unchecked);
                return;
            }
            tracing::warn!(unchecked, "not everything was ready in time; listeners open all the same");
        }
        self.state.set_awaits_checks(false);
        self.progress.open = true;
        self.progress.unchecked_until = None;
        self.bind();
        self.state.set_open(true);
    }

    /// Whether some listener of the first configuration still waits, say for its routes, while connections are held: as
    /// in Envoy none opens before. A capture port that opened alone would send them past the listener they are for.
    fn awaits_listeners(&self) -> bool {
        let status = self.subscription.status();
        let status = status.borrow();
        let waits = |(kind, ..): &(xds::Kind, Name, String)| *kind == xds::Kind::Listener;
        self.sockets.reserved().next().is_some()
            && (status.warming.iter().any(waits) || status.warming.len() >= xds::MAX_WAITING)
    }

    fn report(&mut self, problems: Vec<Problem>) {
        if problems == self.progress.problems {
            return;
        }
        for problem in problems.iter().filter(|p| !self.progress.problems.contains(p)) {
            tracing::error!(resource = %problem.resource, reason = %problem.reason, "kept the former version");
        }
        self.state.set_problems(problems.iter().map(|p| format!("{}: {}", p.resource, p.reason)).collect());
        self.progress.problems = problems;
    }

    fn bind(&mut self) {
        let failed = self.sockets.reconcile(&self.publisher.current());
        let unbound: Vec<String> = failed.iter().map(ToString::to_string).collect();
        // Tried every second, said once.
        for line in unbound.iter().filter(|line| !self.progress.unbound.contains(line)) {
            tracing::error!("{line}; trying again");
        }
        self.state.set_sockets(self.sockets.bound(), unbound.clone());
        self.progress.unbound = unbound;
    }

    fn keep_house(&mut self) {
        if !self.progress.unbound.is_empty() {
            self.bind();
        }
        if self.progress.unchecked_until.is_some() {
            let live = self.publisher.current();
            self.open(&live);
        }
        self.progress.retiring.clean(Instant::now());
        if let Some((at, inbound_only)) = self.progress.closing
            && at <= Instant::now()
        {
            self.close(inbound_only);
        }
        if self.beside.application.look(Instant::now()) && self.progress.ending.is_none() {
            tracing::info!("the application has ended: nobody listens on its ports any more");
            self.end();
        }
        self.watch_limits();
        self.look_ready();
        self.state.set_application_seen(self.beside.application.may_call());
        let held = self.sockets.held();
        self.state.set_held(held.waiting, held.served, held.refused);
        if self.sockets.reserved().next().is_none() || self.progress.unchecked_until.is_some() {
            return;
        }
        if self.progress.hold_until.is_some_and(|until| until <= Instant::now()) {
            return self.sockets.release("no configuration for so long that connections are not held any more");
        }
        let status = self.subscription.status().borrow().clone();
        let waiting = status.warming.iter().any(|(kind, ..)| *kind == xds::Kind::Listener);
        let settled = status.listeners_received && !waiting && self.publisher.current().version > 0;
        self.progress.settled = if settled { self.progress.settled + 1 } else { 0 };
        // Twice: the last listener may have left the warming while its snapshot is still on the way.
        if self.progress.settled > 1 {
            self.sockets.release("no listener wants this address");
        }
    }
}

/// Waits until `due`, for ever without.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
