//! The series of the process: found by their labels, bounded in number, dropped when idle.
//!
//! Locked where a worker meets a pair of peers or an outcome for the first time, and by scrapes; never per request.
//! Invariant: what is counted is counted once. Beyond the bound it is in the series whose labels say `overflow`; what
//! still came to a series that was just dropped is carried over to its successor.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{
    Outcome, Protocol, Reporter, Sample, Workload,
    labels::overflow,
    series::{Counted, RequestCounts, Series, TcpCounts},
};
use crate::telemetry::flags::Flags;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Series at once, of all families with the same labels together.
    pub series: usize,
    /// A series that did not change for so long is dropped; `None`: never.
    pub idle: Option<Duration>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { series: 5_000, idle: None }
    }
}

/// What the book says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub series: u64,
    /// How often there was no room for a further one.
    pub refused: u64,
    pub expired: u64,
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Mesh {
    own: OnceLock<(Workload, Bounds)>,
    pub(super) requests: Book<RequestCounts>,
    pub(super) connections: Book<TcpCounts>,
    room: Room,
}

/// What both books share.
#[derive(Debug, Default)]
pub(super) struct Room {
    used: AtomicUsize,
    refused: AtomicU64,
    expired: AtomicU64,
}

impl Mesh {
    /// To be called once, before the first series.
    pub fn init(&self, own: Workload, bounds: Bounds) {
        let _ = self.own.set((own, bounds));
    }

    pub(super) fn own(&self) -> &(Workload, Bounds) {
        self.own.get_or_init(Default::default)
    }

    pub(super) fn request(&self, labels: &Arc<str>, reporter: Reporter, outcome: Outcome) -> Found<RequestCounts> {
        self.requests.find((labels, outcome), reporter, self.own().1, &self.room)
    }

    pub(super) fn connection(&self, labels: &Arc<str>, reporter: Reporter, outcome: Outcome) -> Found<TcpCounts> {
        self.connections.find((labels, outcome), reporter, self.own().1, &self.room)
    }

    pub fn counts(&self) -> Counts {
        let Room { used, refused, expired } = &self.room;
        Counts { series: used.load(Relaxed) as u64, refused: refused.load(Relaxed), expired: expired.load(Relaxed) }
    }

    /// Drops what was idle for too long and visits the rest as (labels, outcome, what was counted).
    pub fn visit(&self, now: Instant, visitor: &mut dyn FnMut(&str, &Outcome, &Sample)) {
        let bounds = self.own().1;
        self.requests.visit(now, bounds, &self.room, visitor);
        self.connections.visit(now, bounds, &self.room, visitor);
    }
}

/// A series, and whether it is the one for what has no room.
pub(super) struct Found<T> {
    pub series: Arc<Series<T>>,
    pub beyond: bool,
}

type Key = (Arc<str>, Outcome);

#[derive(Debug)]
struct Entry<T> {
    series: Arc<Series<T>>,
    last: Sample,
    since: Instant,
}

#[derive(Debug)]
struct Kept<T> {
    all: HashMap<Key, Entry<T>, foldhash::fast::RandomState>,
    overflow: Vec<(Reporter, Arc<Series<T>>)>,
    /// Dropped at the last visit, with what was shown of them then.
    leaving: Vec<(Arc<Series<T>>, Reporter, Sample)>,
}

#[derive(Debug)]
pub(super) struct Book<T>(Mutex<Kept<T>>);

impl<T> Default for Book<T> {
    fn default() -> Self {
        Self(Mutex::new(Kept { all: HashMap::default(), overflow: Vec::new(), leaving: Vec::new() }))
    }
}

impl<T: Counted> Book<T> {
    fn lock(&self) -> MutexGuard<'_, Kept<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: (&Arc<str>, Outcome), reporter: Reporter, bounds: Bounds, room: &Room) -> Found<T> {
        self.lock().find((key.0.clone(), key.1), reporter, bounds, room)
    }

    fn visit(&self, now: Instant, bounds: Bounds, room: &Room, visitor: &mut dyn FnMut(&str, &Outcome, &Sample)) {
        let mut kept = self.lock();
        for (series, reporter, shown) in std::mem::take(&mut kept.leaving) {
            if T::sample(&series.counts) != shown {
                let next = kept.find((series.labels.clone(), series.outcome), reporter, bounds, room);
                T::carry(&series.counts, &shown, next.series.counts.local());
            }
        }
        let mut gone = Vec::new();
        kept.all.retain(|_, entry| {
            let sample = T::sample(&entry.series.counts);
            if sample != entry.last {
                (entry.last, entry.since) = (sample, now);
                return true;
            }
            let idle = bounds.idle.is_some_and(|idle| now.saturating_duration_since(entry.since) >= idle);
            if !idle || entry.last.is_held() {
                return true;
            }
            entry.series.retired.store(true, Relaxed);
            let reporter = if entry.series.labels.starts_with("reporter=\"source\"") {
                Reporter::Source
            } else {
                Reporter::Destination
            };
            gone.push((entry.series.clone(), reporter, entry.last.clone()));
            false
        });
        room.used.fetch_sub(gone.len(), Relaxed);
        room.expired.fetch_add(gone.len() as u64, Relaxed);
        kept.leaving = gone;
        let mut shown: Vec<_> = kept.all.values().map(|e| (e.series.clone(), e.last.clone())).collect();
        shown.extend(kept.overflow.iter().map(|(_, series)| (series.clone(), T::sample(&series.counts))));
        drop(kept);
        shown.iter().for_each(|(series, sample)| visitor(&series.labels, &series.outcome, sample));
    }
}

impl<T: Counted> Kept<T> {
    fn find(&mut self, key: Key, reporter: Reporter, bounds: Bounds, room: &Room) -> Found<T> {
        if let Some(entry) = self.all.get(&key) {
            return Found { series: entry.series.clone(), beyond: false };
        }
        let taken = room.used.fetch_update(Relaxed, Relaxed, |used| (used < bounds.series).then_some(used + 1));
        if taken.is_err() {
            room.refused.fetch_add(1, Relaxed);
            return Found { series: self.overflow(reporter), beyond: true };
        }
        let series = Arc::new(Series::new(key.0.clone(), key.1));
        let last = T::sample(&series.counts);
        self.all.insert(key, Entry { series: series.clone(), last, since: Instant::now() });
        Found { series, beyond: false }
    }

    fn overflow(&mut self, reporter: Reporter) -> Arc<Series<T>> {
        if let Some((_, series)) = self.overflow.iter().find(|(of, _)| *of == reporter) {
            return series.clone();
        }
        let outcome = Outcome { code: 0, protocol: Protocol::Any, flags: Flags::default() };
        let series = Arc::new(Series::new(overflow(reporter), outcome));
        self.overflow.push((reporter, series.clone()));
        series
    }
}
