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
    filter::Filter,
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

    /// Whether there is no room, and these labels are not among those that have some.
    pub(super) fn is_beyond(&self, labels: &str) -> bool {
        self.room.used.load(Relaxed) >= self.own().1.series && !self.requests.known.may_have(labels)
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

/// Whether somebody has it in hand who will count there, besides the book and whoever looks.
fn is_held<T: Counted>(series: &Arc<Series<T>>) -> bool {
    T::HELD && Arc::strong_count(series) > 2
}

/// A series, and whether it is the one for what has no room.
pub(super) struct Found<T> {
    pub series: Arc<Series<T>>,
    pub beyond: bool,
}

type Key = (Arc<str>, Outcome);

#[derive(Debug)]
struct Kept<T> {
    all: HashMap<Key, Arc<Series<T>>, foldhash::fast::RandomState>,
    /// Of the labels in `all`.
    known: Arc<Filter>,
    overflow: Vec<(Reporter, Arc<Series<T>>)>,
    /// Dropped at the last visit, with what was counted till then.
    leaving: Vec<(Arc<Series<T>>, Sample)>,
}

#[derive(Debug)]
pub(super) struct Book<T> {
    kept: Mutex<Kept<T>>,
    known: Arc<Filter>,
}

impl<T> Default for Book<T> {
    fn default() -> Self {
        let known = Arc::<Filter>::default();
        let kept = Kept { all: HashMap::default(), known: known.clone(), overflow: Vec::new(), leaving: Vec::new() };
        Self { kept: Mutex::new(kept), known }
    }
}

impl<T: Counted> Book<T> {
    fn lock(&self) -> MutexGuard<'_, Kept<T>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: (&Arc<str>, Outcome), reporter: Reporter, bounds: Bounds, room: &Room) -> Found<T> {
        self.lock().find((key.0.clone(), key.1), reporter, bounds, room)
    }

    /// Workers wait for the lock at most while pointers are copied.
    fn visit(&self, now: Instant, bounds: Bounds, room: &Room, visitor: &mut dyn FnMut(&str, &Outcome, &Sample)) {
        let (all, overflow) = {
            let mut kept = self.lock();
            kept.carry_over(bounds, room);
            let overflow: Vec<_> = kept.overflow.iter().map(|(_, series)| series.clone()).collect();
            (kept.all.values().cloned().collect::<Vec<_>>(), overflow)
        };
        let mut idle = Vec::new();
        for series in all {
            let sample = T::sample(&series.counts);
            let mut seen = series.seen.lock().unwrap_or_else(PoisonError::into_inner);
            match &*seen {
                Some((last, since)) if *last == sample => {
                    let long = bounds.idle.is_some_and(|idle| now.saturating_duration_since(*since) >= idle);
                    if long && !sample.is_held() && !is_held(&series) {
                        idle.push((series.clone(), sample));
                        continue;
                    }
                }
                _ => *seen = Some((sample.clone(), now)),
            }
            visitor(&series.labels, &series.outcome, &sample);
        }
        overflow.iter().for_each(|series| visitor(&series.labels, &series.outcome, &T::sample(&series.counts)));
        if idle.is_empty() {
            return;
        }
        let mut stay = Vec::new();
        let mut kept = self.lock();
        for (series, shown) in idle {
            // Somebody may have come by since; nobody can at this moment.
            if is_held(&series) || T::sample(&series.counts) != shown {
                stay.push(series);
                continue;
            }
            series.retired.store(true, Relaxed);
            if kept.all.remove(&(series.labels.clone(), series.outcome)).is_some() {
                room.used.fetch_sub(1, Relaxed);
                room.expired.fetch_add(1, Relaxed);
                kept.leaving.push((series, shown));
            }
        }
        self.known.replace(kept.all.keys().map(|(labels, _)| &**labels));
        drop(kept);
        stay.iter().for_each(|series| visitor(&series.labels, &series.outcome, &T::sample(&series.counts)));
    }
}

impl<T: Counted> Kept<T> {
    /// Counts anew what came to series that were being dropped.
    fn carry_over(&mut self, bounds: Bounds, room: &Room) {
        for (series, counted) in std::mem::take(&mut self.leaving) {
            if T::sample(&series.counts) != counted {
                let reporter = Reporter::of_labels(&series.labels);
                let next = self.find((series.labels.clone(), series.outcome), reporter, bounds, room);
                T::carry(&series.counts, &counted, next.series.counts.local());
            }
        }
    }

    fn find(&mut self, key: Key, reporter: Reporter, bounds: Bounds, room: &Room) -> Found<T> {
        if let Some(series) = self.all.get(&key) {
            return Found { series: series.clone(), beyond: false };
        }
        let taken = room.used.fetch_update(Relaxed, Relaxed, |used| (used < bounds.series).then_some(used + 1));
        if taken.is_err() {
            room.refused.fetch_add(1, Relaxed);
            return Found { series: self.overflow(reporter), beyond: true };
        }
        let series = Arc::new(Series::new(key.0.clone(), key.1));
        self.known.add(&key.0);
        self.all.insert(key, series.clone());
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
