//! Spreads the connections of one address over the workers.
//!
//! The kernel spreads by hash, which is even for many connections and not for few: the two HTTP/2 connections of
//! another sidecar come to one worker every other time, and the second core idles. A worker that is well ahead of
//! another hands what it accepted over; what was accepted is never refused here. A connection that changes the thread
//! costs a wake-up, so slightly uneven is left alone, and so are many short connections, which hashing spreads well.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// How many connections one after the other are worth a closer look.
const FEW: u32 = 16;
/// How long until another one is.
const PAUSE: Duration = Duration::from_millis(50);

/// A counter in cache lines of its own: each is written by mostly one thread.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicU64);

/// Connections of one address, by worker.
#[derive(Debug)]
pub struct Balance {
    open: Box<[Padded]>,
}

/// A connection counts for its worker until this is dropped.
#[derive(Debug)]
pub struct Place {
    balance: Arc<Balance>,
    worker: usize,
}

impl Balance {
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self { open: (0..workers).map(|_| Padded::default()).collect() })
    }

    /// The place of a connection that `worker` accepted, with that worker or another. `few`: it is one of few.
    pub fn place(self: &Arc<Self>, worker: usize, few: bool) -> Place {
        let count = |at: usize| self.open.get(at).map_or(0, |open| open.0.load(Relaxed));
        let mine = count(worker);
        let (idlest, least) = (0..self.open.len()).map(|at| (at, count(at))).min_by_key(|c| c.1).unwrap_or((worker, 0));
        let chosen = if is_well_ahead(mine, least, few) { idlest } else { worker };
        if let Some(open) = self.open.get(chosen) {
            open.0.fetch_add(1, Relaxed);
        }
        Place { balance: self.clone(), worker: chosen }
    }
}

fn is_well_ahead(mine: u64, least: u64, few: bool) -> bool {
    if few { mine > least + least / 2 } else { mine > 2 * least + u64::from(FEW) }
}

/// Whether connections come one by one or in great number, as one worker sees it.
#[derive(Debug)]
pub(super) struct Pace {
    /// Connections that still count as few, and since when.
    left: Cell<(u32, Instant)>,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: Cell::new((FEW, now)) }
    }

    /// Another connection: whether it is one of few.
    pub(super) fn few(&self, now: Instant) -> bool {
        let (left, since) = self.left.get();
        let gained = now.saturating_duration_since(since).as_nanos() / PAUSE.as_nanos();
        let left = left.saturating_add(u32::try_from(gained).unwrap_or(FEW)).min(FEW);
        let since = if gained > 0 { now } else { since };
        self.left.set((left.saturating_sub(1), since));
        left > 0
    }
}

impl Place {
    pub fn worker(&self) -> usize {
        self.worker
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(open) = self.balance.open.get(self.worker) {
            open.0.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(balance: &Balance) -> Vec<u64> {
        balance.open.iter().map(|open| open.0.load(Relaxed)).collect()
    }

    #[test]
    fn few_connections_are_spread_whoever_accepts_them() {
        let balance = Balance::new(2);
        let places: Vec<Place> = (0..2).map(|_| balance.place(0, true)).collect();
        assert_eq!(places.iter().map(Place::worker).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(counts(&balance), [1, 1]);
        drop(places);
        assert_eq!(counts(&balance), [0, 0]);
    }

    #[test]
    fn no_worker_has_much_more_than_another() {
        let balance = Balance::new(4);
        // All of them accepted by one worker, the worst that hashing could do.
        let places: Vec<Place> = (0..400).map(|_| balance.place(2, true)).collect();
        let counts = counts(&balance);
        assert_eq!(counts.iter().sum::<u64>(), 400);
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(*most <= least + least / 2 + 1, "{counts:?}");
        drop(places);
    }

    #[test]
    fn what_is_nearly_even_stays_where_it_was_accepted() {
        let balance = Balance::new(2);
        let _places: Vec<Place> = (0..20).map(|n| balance.place(n % 2, true)).collect();
        for _ in 0..4 {
            assert_eq!(balance.place(1, true).worker(), 1);
        }
    }

    #[test]
    fn many_short_connections_stay_where_they_are_until_one_worker_has_most() {
        let balance = Balance::new(2);
        let places: Vec<Place> = (0..100).map(|_| balance.place(0, false)).collect();
        let counts = counts(&balance);
        assert!(counts[0] > counts[1] && counts[0] <= 2 * counts[1] + u64::from(FEW) + 1, "{counts:?}");
        assert!(places[..usize::try_from(FEW).unwrap()].iter().all(|place| place.worker() == 0));
    }

    #[test]
    fn few_are_those_that_come_after_a_pause() {
        let start = Instant::now();
        let pace = Pace::new(start);
        assert_eq!((0..2 * FEW).filter(|_| pace.few(start)).count(), 16);
        assert!(pace.few(start + PAUSE) && !pace.few(start + PAUSE));
        let later = start + PAUSE * 1000;
        assert_eq!((0..2 * FEW).filter(|_| pace.few(later)).count(), 16);
    }
}
