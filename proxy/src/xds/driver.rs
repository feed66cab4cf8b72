//! The one task that owns the store: takes what sources deliver, publishes what is in force, steers the subscriptions.
//!
//! Every change passes through here one after the other, so a snapshot never shows half an update.

mod keep;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use outrigger_wire::packed::Packed;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::yield_now,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Transport,
    client::{Update, grpc::Dialer},
    config::{StartConfig, Statics},
    decode::{self, Resource},
    dump::Dump,
    handle::Handle,
    identity,
    kind::Kind,
    saved::{Keeper, Restorable},
    status::{IdentityStatus, Status},
    store::{Decode, Frame, Now, Store, prepare},
    subscriptions::Sources,
};
use crate::ir::{ConfigSource, snapshot::Snapshot};

/// What reaches the driver.
#[derive(Debug)]
pub(super) enum Event {
    /// A source delivered; the reply is the text of a refusal.
    Update {
        source: ConfigSource,
        update: Update,
        reply: oneshot::Sender<Option<String>>,
    },
    /// Which resource versions of a source are held.
    Held {
        source: ConfigSource,
        kinds: Vec<Kind>,
        reply: oneshot::Sender<BTreeMap<Kind, BTreeMap<String, String>>>,
    },
    /// News of a stream or file.
    Report {
        label: Arc<str>,
        report: Report,
    },
    /// New secrets of our own.
    Local(Vec<Resource>),
    Identity(IdentityStatus),
    Dump(oneshot::Sender<Dump>),
    /// What the disk holds of a former run.
    Loaded(Option<Result<Restorable, String>>),
    /// The configuration was written to disk, or why not.
    Kept(Result<(), String>),
    /// What is in force is to be on the disk before the process ends.
    Flush(oneshot::Sender<()>),
    /// The static resources are these from now on, and the bootstrap they came with.
    Statics(Box<Statics>, Option<Packed>, oneshot::Sender<()>),
}

/// News of a stream or file.
#[derive(Debug)]
pub(super) enum Report {
    Connected,
    Failed(String),
}

/// Resources decoded before other tasks get a turn.
const BATCH: usize = 64;
/// Resources of waiting updates that come into force together: more would make the first ones wait for long.
const TOGETHER: usize = 256;
/// Waiting resources shown in the status.
pub(crate) const MAX_WAITING: usize = 100;

pub(super) fn start(config: StartConfig, transport: Arc<dyn Transport>) -> Handle {
    start_with(config, transport, decode::resource)
}

pub(super) fn start_with(config: StartConfig, transport: Arc<dyn Transport>, decode: Decode) -> Handle {
    let now = Now::read();
    let stop = CancellationToken::new();
    let (send, receive) = mpsc::channel(64);
    let mut store = Store::new(&config, decode, now);
    let deadline = store.resolve(now);
    let snapshot = Arc::new(store.publish().unwrap_or_default());
    let (snapshots, snapshots_out) = watch::channel(snapshot);
    let dialer = Arc::new(Dialer { transport, options: config.grpc.clone() });
    let mut status = Status::default();
    if config.has_identity() {
        status.identity = Some(IdentityStatus::default());
        let (dialer, send) = (Arc::clone(&dialer), send.clone());
        match config.identity.clone() {
            // An agent on the machine goes before an authority elsewhere.
            Some(identity) if !config.workload_api => {
                tokio::spawn(stop.clone().run_until_cancelled_owned(identity::run(identity, dialer, send)));
            }
            _ => {
                tokio::spawn(stop.clone().run_until_cancelled_owned(identity::workload::run(dialer, send)));
            }
        }
    }
    let (status_in, status_out) = watch::channel(Arc::new(status.clone()));
    let sources = Sources::new(&config, dialer, send.clone(), stop.clone());
    let keeper = Keeper::new(&config, now);
    let events = send.downgrade();
    let complaints = BTreeMap::new();
    let flushing = Vec::new();
    let mut driver = Driver {
        store,
        sources,
        config,
        status,
        snapshots,
        status_in,
        deadline,
        complaints,
        keeper,
        decode,
        flushing,
        events,
    };
    driver.after_change();
    tokio::spawn(stop.clone().run_until_cancelled_owned(driver.run(receive)));
    Handle { snapshots: snapshots_out, status: status_out, events: send, _stop: Arc::new(stop.drop_guard()) }
}

struct Driver {
    store: Store,
    sources: Sources,
    config: StartConfig,
    status: Status,
    snapshots: watch::Sender<Arc<Snapshot>>,
    status_in: watch::Sender<Arc<Status>>,
    deadline: Option<std::time::Instant>,
    /// The last refusal per type, so that its repetition is not logged.
    complaints: BTreeMap<Kind, String>,
    keeper: Option<Keeper>,
    decode: Decode,
    /// Who waits until the file is written.
    flushing: Vec<oneshot::Sender<()>>,
    /// Weak: the driver ends with the last who may send.
    events: mpsc::WeakSender<Event>,
}

impl Driver {
    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        // Nothing to wait for still needs a moment to select on.
        const FAR: Duration = Duration::from_secs(24 * 3600);
        let mut next = None;
        loop {
            if let Some(event) = next.take() {
                next = self.handle(event, &mut events).await;
                continue;
            }
            let kept = self.keeper.as_ref().and_then(Keeper::due);
            let due = self.deadline.into_iter().chain(kept).min();
            let due = due.map_or_else(|| Instant::now() + FAR, Instant::from_std);
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => next = self.handle(event, &mut events).await,
                    None => return,
                },
                () = sleep_until(due) => {
                    self.settle(Now::read());
                    self.keep(Now::read());
                }
            }
        }
    }

    /// Gives back the event after it, if it had to be taken to see that it is of another kind.
    async fn handle(&mut self, event: Event, events: &mut mpsc::Receiver<Event>) -> Option<Event> {
        let now = Now::read();
        match event {
            Event::Update { source, update, reply } => return self.updates(source, update, reply, events).await,
            Event::Held { source, kinds, reply } => {
                let held = kinds.into_iter().map(|kind| (kind, self.store.versions(&source, kind))).collect();
                let _ = reply.send(held);
            }
            Event::Report { label, report } => {
                keep::heard(&mut self.keeper, &label, matches!(report, Report::Failed(_)), now);
                self.report(&label, report, now);
                self.keep(now);
                self.after_change();
            }
            Event::Local(secrets) => {
                for secret in secrets {
                    self.store.set_local(secret, now);
                }
                self.settle(now);
            }
            Event::Identity(status) => {
                self.status.identity = Some(status);
                self.after_change();
            }
            Event::Dump(reply) => {
                let _ = reply.send(Dump::of(&self.store, self.config.bootstrap.clone(), &self.status));
            }
            Event::Loaded(found) => {
                if let Some((found, missing)) = self.keeper.as_mut().and_then(|keeper| keeper.loaded(found)) {
                    self.restore(found, &missing, now);
                }
                self.after_change();
            }
            Event::Statics(statics, bootstrap, reply) => {
                self.store.replace_statics(&statics, now);
                (self.config.statics, self.config.bootstrap) = (*statics, bootstrap);
                self.settle(now);
                let _ = reply.send(());
            }
            Event::Kept(result) => {
                if let Some(keeper) = &mut self.keeper {
                    keeper.written(result, now);
                }
                self.after_change();
                self.flushed(now);
            }
            Event::Flush(done) => {
                self.flush(done, now);
            }
        }
        None
    }

    /// Takes an update and those of its type that wait behind it, and puts them in force together. Not across types:
    /// what an update makes wanted has to be known before the next one is judged.
    async fn updates(
        &mut self,
        mut source: ConfigSource,
        mut update: Update,
        mut reply: oneshot::Sender<Option<String>>,
        events: &mut mpsc::Receiver<Event>,
    ) -> Option<Event> {
        let kind = update.kind;
        let (mut verdicts, mut taken, mut next) = (Vec::new(), 0, None);
        loop {
            taken += 1 + update.items.len() + update.removed.len();
            verdicts.push((reply, self.update(&source, update).await));
            if taken >= TOGETHER {
                break;
            }
            (source, update, reply) = match events.try_recv() {
                Ok(Event::Update { source, update, reply }) if update.kind == kind => (source, update, reply),
                Ok(other) => {
                    next = Some(other);
                    break;
                }
                Err(_) => break,
            };
        }
        self.settle(Now::read());
        for (reply, error) in verdicts {
            // A stream that ended meanwhile needs no verdict.
            let _ = reply.send(error);
        }
        next
    }

    async fn update(&mut self, source: &ConfigSource, update: Update) -> Option<String> {
        let Update { kind, full, version, nonce, items, removed } = update;
        let mut prepared = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            if index % BATCH == BATCH - 1 {
                // Thousands of resources take a while, and the admin interface lives on the same thread.
                yield_now().await;
            }
            prepared.push(prepare(&self.store, source, kind, item));
        }
        let now = Now::read();
        let frame = Frame { source, kind, version: &version, full, removed: &removed };
        let delivered = prepared.len();
        let applied = self.store.apply(&frame, prepared, now);
        // What is refused altogether says nothing about what is in force.
        let heard = delivered == 0 || applied.rejected.len() + applied.more < delivered;
        let keeper = self.keeper.as_mut();
        if keeper.is_some_and(|keeper| keeper.delivered(source, kind, heard, now)) {
            self.store.set_patience_for_secrets(self.config.warming.secrets);
        }
        let error = applied.error();
        let status = self.status.kinds.entry(kind).or_default();
        status.update_attempt += 1;
        status.last_version = version.as_str().into();
        status.nonce = nonce.into();
        status.acked = Some(error.is_none());
        status.rejected = applied.rejected;
        status.last_updated = Some(now.wall);
        match &error {
            None => {
                status.update_success += 1;
                self.complaints.remove(&kind);
                status.version = version.into();
            }
            Some(error) => {
                status.update_rejected += 1;
                // Some servers send the same bad configuration again and again.
                if self.complaints.insert(kind, error.clone()).is_none_or(|last| last != *error) {
                    tracing::warn!(%kind, version = %status.last_version, error, "xDS resources rejected");
                }
            }
        }
        error
    }

    fn report(&mut self, label: &str, report: Report, now: Now) {
        let source = self.status.sources.entry(label.into()).or_default();
        match report {
            Report::Connected => {
                source.connected_since = Some(now.wall);
                source.last_error = None;
                source.connects += 1;
            }
            Report::Failed(reason) => {
                source.connected_since = None;
                source.last_error = Some(reason.into());
                source.failures += 1;
                for kind in self.sources.kinds(label) {
                    self.status.kinds.entry(kind).or_default().update_failure += 1;
                }
            }
        }
    }

    /// Brings into force what can be, publishes it, and tells the sources what is wanted now.
    fn settle(&mut self, now: Now) {
        self.deadline = self.store.resolve(now);
        if let Some(snapshot) = self.store.publish() {
            let snapshot = Arc::new(snapshot);
            let before = self.snapshots.send_replace(Arc::clone(&snapshot));
            if let Some(keeper) = &mut self.keeper {
                keeper.changed(keep::change(&before, &snapshot), now);
            }
        }
        self.after_change();
    }

    fn after_change(&mut self) {
        let changed = self.sources.steer(self.store.subscriptions());
        if changed {
            let labels: BTreeSet<Box<str>> = self.sources.labels().map(Box::from).collect();
            self.status.sources.retain(|label, _| labels.contains(label));
            for label in labels {
                self.status.sources.entry(label).or_default();
            }
            for (label, reason) in self.sources.impossible() {
                self.status.sources.entry(label.into()).or_default().last_error = Some(reason.into());
            }
            for kind in Kind::ALL {
                let wanted = self.store.subscriptions().iter().filter(|((_, k), _)| *k == kind);
                let (wildcard, count) =
                    wanted.fold((false, 0), |(wild, n), (_, w)| (wild || w.wildcard, n + w.names.len()));
                self.status.kinds.entry(kind).or_default().subscribed = (!wildcard).then_some(count);
            }
        }
        for kind in Kind::ALL {
            self.status.kinds.entry(kind).or_default().known = self.store.known(kind);
        }
        self.status.clusters_received = self.store.received(Kind::Cluster);
        self.status.listeners_received = self.store.received(Kind::Listener);
        self.status.warming = self.store.waiting().iter().take(MAX_WAITING).cloned().collect();
        self.status.saved = self.keeper.as_ref().map(|keeper| keeper.status.clone());
        let status = &self.status;
        self.status_in.send_if_modified(|held| {
            let changed = **held != *status;
            if changed {
                *held = Arc::new(status.clone());
            }
            changed
        });
    }
}
