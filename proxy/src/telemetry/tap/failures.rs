//! What failed of late, with the reasons: a small ring for people who come when it is over.
//!
//! Invariant: a storm of failures costs each worker so many notes a second and no more.

use std::{
    cell::Cell,
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use serde_json::Value;

use super::{Head, describe};
use crate::telemetry::format::Facts;

/// Failures that are kept.
const KEPT: usize = 64;
/// That one worker notes in a second.
const A_SECOND: u32 = 8;

/// One of them, as [`super::show`] would describe it.
pub type Failure = Value;

static RECENT: Ring = Ring(Mutex::new(VecDeque::new()));

pub(super) struct Ring(pub(super) Mutex<VecDeque<Failure>>);

impl Ring {
    /// Whoever reads it at this moment does so without this one.
    pub(super) fn push(&self, failure: Failure) {
        let Ok(mut recent) = self.0.try_lock() else { return };
        if recent.len() >= KEPT {
            recent.pop_front();
        }
        recent.push_back(failure);
    }

    /// The newest first.
    pub(super) fn recent(&self) -> Vec<Failure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}

thread_local! {
    /// Since when how many were noted.
    static NOTED: Cell<Option<(Instant, u32)>> = const { Cell::new(None) };
}

/// Whether another failure of this second is told; then it is to be.
pub fn may_note() -> bool {
    may_note_at(Instant::now())
}

pub(super) fn may_note_at(now: Instant) -> bool {
    NOTED.with(|noted| match noted.get() {
        Some((since, count)) if now.duration_since(since).as_secs() == 0 => {
            noted.set(Some((since, count.saturating_add(1))));
            count < A_SECOND
        }
        _ => {
            noted.set(Some((now, 1)));
            true
        }
    })
}

/// Notes a failure, if not too many were.
pub fn note(facts: &Facts<'_>, head: Option<&Head>) {
    if may_note() {
        tell(facts, head);
    }
}

/// Notes a failure that [`may_note`] was asked about.
pub fn tell(facts: &Facts<'_>, head: Option<&Head>) {
    RECENT.push(describe(facts, head));
}

/// The newest first.
pub fn recent() -> Vec<Failure> {
    RECENT.recent()
}
