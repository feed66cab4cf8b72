//! Spreads the connections of one address over the workers.
//!
//! The kernel spreads by hash, which is even for many connections and not for few: the two HTTP/2 connections of
//! another sidecar come to one worker every other time, and the second core idles. A worker that is well ahead of
//! another hands what it accepted over; what was accepted is never refused here. Slightly uneven is left alone: a
//! connection that changes the thread costs a wake-up.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

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

    /// The place of a connection that `worker` accepted, with that worker or another.
    pub fn place(self: &Arc<Self>, worker: usize) -> Place {
        let count = |at: usize| self.open.get(at).map_or(0, |open| open.0.load(Relaxed));
        let mine = count(worker);
        let (idlest, least) = (0..self.open.len()).map(|at| (at, count(at))).min_by_key(|c| c.1).unwrap_or((worker, 0));
        let chosen = if is_well_ahead(mine, least) { idlest } else { worker };
        if let Some(open) = self.open.get(chosen) {
            open.0.fetch_add(1, Relaxed);
        }
        Place { balance: self.clone(), worker: chosen }
    }
}

fn is_well_ahead(mine: u64, least: u64) -> bool {
    mine > least + least / 2
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
        let places: Vec<Place> = (0..2).map(|_| balance.place(0)).collect();
        assert_eq!(places.iter().map(Place::worker).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(counts(&balance), [1, 1]);
        drop(places);
        assert_eq!(counts(&balance), [0, 0]);
    }

    #[test]
    fn no_worker_has_much_more_than_another() {
        let balance = Balance::new(4);
        // All of them accepted by one worker, the worst that hashing could do.
        let places: Vec<Place> = (0..400).map(|_| balance.place(2)).collect();
        let counts = counts(&balance);
        assert_eq!(counts.iter().sum::<u64>(), 400);
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(*most <= least + least / 2 + 1, "{counts:?}");
        drop(places);
    }

    #[test]
    fn what_is_nearly_even_stays_where_it_was_accepted() {
        let balance = Balance::new(2);
        let _places: Vec<Place> = (0..20).map(|n| balance.place(n % 2)).collect();
        for _ in 0..4 {
            assert_eq!(balance.place(1).worker(), 1);
        }
    }
}
