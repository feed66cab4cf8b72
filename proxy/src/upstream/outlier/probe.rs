//! The few requests that a half-open host gets.
//!
//! Slots and answers carry the number of their round, so what is late (a probe of a round that is decided) touches no
//! later one. Invariant: in one round no more probes are on their way or answered than the round began with.

use std::sync::{
    Arc,
    atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};

use crate::upstream::Endpoint;

/// The slots and answers of one host.
#[derive(Debug, Default)]
pub struct Probes {
    /// Round, and the slots left in it.
    slots: AtomicU64,
    /// Round, bad answers (16 bits), good answers (16 bits).
    answers: AtomicU64,
}

fn round_of(value: u64) -> u32 {
    (value >> 32) as u32
}

impl Probes {
    /// Opens a round.
    pub fn open(&self, round: u32, slots: u32) {
        self.answers.store(u64::from(round) << 32, Relaxed);
        self.slots.store(u64::from(round) << 32 | u64::from(slots), Release);
    }

    /// Ends the round: no more probes.
    pub fn close(&self) {
        self.slots.store(0, Release);
    }

    /// Whether a round is open.
    pub fn is_open(&self) -> bool {
        self.slots.load(Relaxed) != 0
    }

    /// Whether there is a slot; a hint that costs one read.
    pub fn has_slot(&self) -> bool {
        self.slots.load(Relaxed) as u32 > 0
    }

    /// Takes a slot; returns its round.
    pub fn take(&self) -> Option<u32> {
        let taken = self.slots.fetch_update(AcqRel, Acquire, |s| (s as u32 > 0).then(|| s - 1));
        taken.ok().map(round_of)
    }

    /// Gives a slot back that brought no answer.
    pub fn give_back(&self, round: u32) {
        let same = |s: u64| (round_of(s) == round && round != 0).then(|| s + 1);
        let _ = self.slots.fetch_update(AcqRel, Acquire, same);
    }

    /// Counts an answer; false when its round is over.
    pub(super) fn answered(&self, round: u32, good: bool) -> bool {
        let count = |a: u64| (round_of(a) == round).then(|| a + if good { 1 } else { 1 << 16 });
        self.answers.fetch_update(AcqRel, Acquire, count).is_ok()
    }

    /// Takes the answers since the last time: round, good and bad ones.
    pub fn take_answers(&self) -> (u32, u32, u32) {
        let value = self.answers.fetch_and(!u64::from(u32::MAX), AcqRel);
        (round_of(value), (value & 0xFFFF) as u32, (value >> 16 & 0xFFFF) as u32)
    }
}

/// The right to send one request to a half-open host; given back on drop unless it was answered.
#[must_use = "a probe that is dropped tells nothing of its host"]
#[derive(Debug)]
pub struct Probe {
    endpoint: Arc<Endpoint>,
    round: Option<u32>,
}

impl Probe {
    /// A slot of `endpoint`, if it is half-open and has one left.
    pub(in crate::upstream) fn new(endpoint: &Arc<Endpoint>) -> Option<Self> {
        let round = endpoint.monitor_if_used()?.probes.take()?;
        Some(Self { endpoint: endpoint.clone(), round: Some(round) })
    }

    /// Says how it went; true when the control thread is to be told, now.
    #[must_use]
    pub(in crate::upstream) fn answer(mut self, good: bool) -> bool {
        let (Some(round), Some(monitor)) = (self.round.take(), self.endpoint.monitor_if_used()) else { return false };
        monitor.probe_answered(round, good)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if let (Some(round), Some(monitor)) = (self.round, self.endpoint.monitor_if_used()) {
            monitor.probes.give_back(round);
        }
    }
}
