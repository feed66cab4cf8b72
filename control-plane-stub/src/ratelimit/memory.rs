//! Counters of one replica, in memory: bounded in number, forgotten when they say nothing any more.
//!
//! Invariant: every key stands in the queue exactly once, so both are of one size. Where a cell lives longer than its
//! place in the queue says, it is put back; a request pays for a few such places at most.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    rate::{Ask, Cell, Verdict, decide},
    service::MAX_DESCRIPTORS,
};

/// Places of the queue looked at per request: more than one request can add.
const SWEEP: usize = 2 * MAX_DESCRIPTORS;

/// All counters of a process.
#[derive(Debug)]
pub struct Memory {
    capacity: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    cells: HashMap<Arc<str>, (Cell, u64)>,
    /// By the time they were to expire when they were put here.
    queue: BinaryHeap<Reverse<(u64, Arc<str>)>>,
    evicted: u64,
}

impl Memory {
    /// Keeps `capacity` counters at most.
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), held: Mutex::default() }
    }

    /// Decides one request.
    pub fn decide(&self, asks: &[Ask], now: u64) -> Vec<Verdict> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.sweep(now);
        let mut cells: Vec<Option<Cell>> =
            asks.iter().map(|ask| held.cells.get(ask.key.as_str()).map(|(cell, _)| *cell)).collect();
        let verdicts = decide(asks, &mut cells, now);
        for (ask, cell) in asks.iter().zip(cells) {
            if let Some(cell) = cell.filter(|cell| cell.used > 0) {
                held.put(&ask.key, cell, ask.rate.expires(cell), self.capacity);
            } else if let Some(held) = held.cells.get_mut(ask.key.as_str()) {
                // Stays in the queue until its turn.
                *held = (Cell::default(), 0);
            }
        }
        verdicts
    }

    /// How many counters there are, and how many were given up before their time for want of room.
    pub fn size(&self) -> (usize, u64) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        (held.cells.len(), held.evicted)
    }
}

impl Held {
    fn put(&mut self, key: &str, cell: Cell, expires: u64, capacity: usize) {
        if let Some(held) = self.cells.get_mut(key) {
            *held = (cell, expires);
            return;
        }
        while self.cells.len() >= capacity && self.evict() {}
        let key: Arc<str> = key.into();
        self.cells.insert(Arc::clone(&key), (cell, expires));
        self.queue.push(Reverse((expires, key)));
    }

    /// Drops what has expired, as far as a request should pay for it.
    fn sweep(&mut self, now: u64) {
        for _ in 0..SWEEP {
            match self.queue.peek() {
                Some(Reverse((at, _))) if *at <= now => {}
                _ => return,
            }
            let Some(Reverse((_, key))) = self.queue.pop() else { return };
            match self.cells.get(&key) {
                Some((_, expires)) if *expires > now => self.queue.push(Reverse((*expires, key))),
                _ => {
                    self.cells.remove(&key);
                }
            }
        }
    }

    /// Gives up the counter that would have expired first, or nearly so.
    fn evict(&mut self) -> bool {
        for _ in 0..SWEEP {
            let Some(Reverse((at, key))) = self.queue.pop() else { return false };
            match self.cells.get(&key) {
                Some((_, expires)) if *expires > at => self.queue.push(Reverse((*expires, key))),
                _ => {
                    self.cells.remove(&key);
                    self.evicted += 1;
                    return true;
                }
            }
        }
        let Some(Reverse((_, key))) = self.queue.pop() else { return false };
        self.cells.remove(&key);
        self.evicted += 1;
        true
    }
}
