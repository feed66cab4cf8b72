//! Records on their way to a collector: written by workers, taken in batches by whoever exports them.
//!
//! A record costs the data path one uncontended lock; nobody is woken for it before there is a batch's worth. Invariant:
//! an outbox is bounded in records and bytes. What finds it full is dropped and counted: a collector that is away costs
//! records, never latency or memory.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::sync::Notify;

use super::{metrics, protobuf::Message};
use crate::ir::tracing::Collector;

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;

/// Records that may wait where nothing is configured.
pub const CAPACITY: usize = 4096;
/// The most that can be configured.
pub const MOST: usize = 1 << 16;
/// Bytes that may wait in one outbox.
const BYTES: usize = 16 << 20;
/// With that many the exporter starts at once.
pub const BATCH: usize = 512;
/// Bytes of records that the exporter starts with, and the most that it takes at once: collectors refuse messages of 4 MiB.
pub const BATCH_BYTES: usize = 1 << 20;

/// Who receives records, and what goes around them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub collector: Collector,
    pub signal: Signal,
    pub capacity: usize,
}

/// The kind of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// OTLP spans: their resource and instrumentation scope, as written.
    Traces { resource: Box<[u8]>, scope: bool },
}

impl Signal {
    /// The gRPC method that takes them.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Traces { .. } => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        }
    }

    /// The request that carries `records`.
    pub fn request<'r>(&self, records: impl Iterator<Item = &'r [u8]>) -> Vec<u8> {
        let mut request = Message::default();
        match self {
            Self::Traces { resource, scope } => request.message(1, |of_resource| {
                of_resource.bytes(1, resource);
                of_resource.message(2, |of_scope| {
                    if *scope {
                        of_scope.message(1, |scope| {
                            scope.text(1, "outrigger");
                            scope.text(2, env!("CARGO_PKG_VERSION"));
                        });
                    }
                    records.for_each(|record| of_scope.bytes(2, record));
                });
            }),
        }
        request.into_bytes()
    }
}

/// OTLP's `Resource`; the last value of a key counts.
pub fn resource<'a>(attributes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Box<[u8]> {
    let mut resource = Message::default();
    let mut last: Vec<(&str, &str)> = Vec::new();
    for (key, value) in attributes {
        match last.iter_mut().find(|(known, _)| *known == key) {
            Some(known) => known.1 = value,
            None => last.push((key, value)),
        }
    }
    last.iter().for_each(|(key, value)| resource.attribute(1, key, *value));
    resource.into_bytes().into()
}

/// What became of all records.
#[derive(Debug, Default)]
pub struct Counts {
    pub sent: AtomicU64,
    /// Lost: there was no room, or the collector did not take them.
    pub dropped: AtomicU64,
    /// Batches that were sent for the time, not for their size.
    pub timer_flushed: AtomicU64,
    /// Calls of collectors that failed.
    pub failed: AtomicU64,
}

impl Counts {
    /// Under Envoy's names where it has any.
    pub fn visit(&self, visitor: &mut dyn FnMut(&'static str, u64)) {
        visitor("tracing.opentelemetry.spans_sent", self.sent.load(Relaxed));
        visitor("tracing.opentelemetry.spans_dropped", self.dropped.load(Relaxed));
        visitor("tracing.opentelemetry.timer_flushed", self.timer_flushed.load(Relaxed));
        visitor("tracing.opentelemetry.export_failed", self.failed.load(Relaxed));
    }
}

/// The records for one destination.
#[derive(Debug)]
pub struct Outbox {
    pub destination: Destination,
    /// One per worker.
    shards: Box<[Mutex<VecDeque<Vec<u8>>>]>,
    waiting: AtomicUsize,
    bytes: AtomicUsize,
    pub full: Notify,
    pub counts: Arc<Counts>,
    served: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Queues hold whole records at any time: a panic elsewhere leaves nothing half done in them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outbox {
    pub fn new(destination: Destination, counts: Arc<Counts>) -> Self {
        Self {
            destination,
            shards: (0..metrics::shards()).map(|_| Mutex::default()).collect(),
            waiting: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            full: Notify::new(),
            counts,
            served: AtomicBool::new(false),
        }
    }

    /// Whether nobody serves it yet; from now on somebody does.
    pub fn claim(&self) -> bool {
        !self.served.swap(true, Relaxed)
    }

    /// Queues a record of the calling thread, or drops it.
    pub fn push(&self, record: Vec<u8>) {
        let length = record.len();
        let waiting = self.waiting.fetch_add(1, Relaxed);
        let bytes = self.bytes.fetch_add(length, Relaxed);
        if waiting >= self.destination.capacity || bytes + length > BYTES {
            self.left(1, length);
            self.counts.dropped.fetch_add(1, Relaxed);
            return;
        }
        lock(&self.shards[metrics::shard().min(self.shards.len() - 1)]).push_back(record);
        let heavy = bytes < BATCH_BYTES && bytes + length >= BATCH_BYTES;
        if heavy || waiting + 1 == BATCH.min(self.destination.capacity) {
            self.full.notify_one();
        }
    }

    /// Takes records, the most that one request should carry.
    pub fn take(&self) -> Vec<Vec<u8>> {
        let mut taken: Vec<Vec<u8>> = Vec::new();
        let mut bytes = 0;
        for shard in &self.shards {
            let mut shard = lock(shard);
            // One that is larger than all of them may be goes alone.
            while let Some(next) = shard.front().map(Vec::len)
                && taken.len() < BATCH
                && (taken.is_empty() || bytes + next <= BATCH_BYTES)
            {
                bytes += next;
                taken.extend(shard.pop_front());
            }
            if shard.is_empty() {
                // The room of a burst is not kept.
                shard.shrink_to(BATCH);
            }
        }
        self.left(taken.len(), bytes);
        taken
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn left(&self, records: usize, bytes: usize) {
        self.waiting.fetch_sub(records, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }
}

/// The outboxes of the process.
#[derive(Debug, Default)]
pub struct Outboxes {
    all: Mutex<Vec<Weak<Outbox>>>,
    /// Somebody has to serve another one.
    pub added: Notify,
    spans: Arc<Counts>,
}

impl Outboxes {
    /// `spans`: where those of traces count.
    pub fn new(spans: Arc<Counts>) -> Self {
        Self { spans, ..Self::default() }
    }

    /// The outbox of a destination: one for all who name the same.
    pub fn of(&self, destination: Destination) -> Arc<Outbox> {
        let mut all = lock(&self.all);
        all.retain(|outbox| outbox.strong_count() > 0);
        if let Some(known) = all.iter().filter_map(Weak::upgrade).find(|known| known.destination == destination) {
            return known;
        }
        let counts = match destination.signal {
            Signal::Traces { .. } => &self.spans,
        };
        let outbox = Arc::new(Outbox::new(destination, counts.clone()));
        all.push(Arc::downgrade(&outbox));
        self.added.notify_one();
        outbox
    }

    /// Those that are in use.
    pub fn all(&self) -> Vec<Arc<Outbox>> {
        lock(&self.all).iter().filter_map(Weak::upgrade).collect()
    }
}
