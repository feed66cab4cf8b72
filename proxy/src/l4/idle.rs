//! Which relays of a worker move nothing, and which of them go first when the process is short of memory or descriptors.
//!
//! A relay only counts its bytes; who looks at the counts from time to time knows since when nothing moved, to the
//! distance of the looks. Knows no sockets; `now` is told.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use super::relay::Progress;

/// Relays that moved something in this time are busy.
pub const BUSY: Duration = Duration::from_secs(5);

/// The part of all relays that one call ends at most: memory is given back before the next look, so that no more end
/// than have to.
const PART: usize = 8;

/// The relays of a worker.
#[derive(Debug, Default)]
pub struct Relays(RefCell<Vec<Entry>>);

#[derive(Debug)]
struct Entry {
    relay: Rc<Relay>,
    seen: u64,
    since: Instant,
}

#[derive(Debug)]
struct Relay {
    progress: Progress,
    /// Where it stands in the list.
    place: Cell<usize>,
}

/// A relay in the list, for as long as it lives.
#[derive(Debug)]
pub struct Listed {
    relays: Rc<Relays>,
    relay: Rc<Relay>,
}

impl Relays {
    /// Lists a relay that begins.
    pub fn list(self: &Rc<Self>, now: Instant) -> Listed {
        let mut all = self.0.borrow_mut();
        let relay = Rc::new(Relay { progress: Progress::default(), place: Cell::new(all.len()) });
        all.push(Entry { relay: relay.clone(), seen: 0, since: now });
        Listed { relays: self.clone(), relay }
    }

    /// Notes which ones moved something since the last look.
    pub fn look(&self, now: Instant) {
        for entry in self.0.borrow_mut().iter_mut() {
            let total = entry.relay.progress.total();
            if total != entry.seen {
                (entry.seen, entry.since) = (total, now);
            }
        }
    }

    /// Has those end that idle longest, some of them; gives back how many.
    pub fn end_idle(&self, now: Instant) -> usize {
        self.look(now);
        let all = self.0.borrow();
        let idles = |entry: &&Entry| now.saturating_duration_since(entry.since) >= BUSY && !entry.relay.progress.ends();
        let mut idle: Vec<&Entry> = all.iter().filter(idles).collect();
        let count = idle.len().min(all.len().div_ceil(PART));
        if let Some(last) = count.checked_sub(1) {
            idle.select_nth_unstable_by_key(last, |entry| entry.since);
        }
        idle.iter().take(count).for_each(|entry| entry.relay.progress.end());
        count
    }
}

impl Listed {
    pub fn progress(&self) -> &Progress {
        &self.relay.progress
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let (mut all, place) = (self.relays.0.borrow_mut(), self.relay.place.get());
        if place < all.len() {
            all.swap_remove(place);
        }
        if let Some(moved) = all.get(place) {
            moved.relay.place.set(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moves(listed: &Listed) {
        let bytes = &listed.progress().a_to_b;
        bytes.set(bytes.get() + 1);
    }

    #[test]
    fn those_that_idle_longest_end_first_and_no_more_than_some_at_once() {
        let relays = Rc::new(Relays::default());
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let listed: Vec<_> = (0..16).map(|n| relays.list(at(n / 4))).collect();
        moves(&listed[0]);
        relays.look(at(10));
        // 0 moved late; of the others 1, 2 and 3 are oldest.
        assert_eq!(relays.end_idle(at(11)), 2);
        let ended = || (0..16).filter(|n| listed[*n].progress().ends()).collect::<Vec<_>>();
        let first = ended();
        assert!(first.len() == 2 && first.iter().all(|n| (1..4).contains(n)), "{first:?}");
        // Told once; the next ones come with the next call.
        assert_eq!(relays.end_idle(at(12)), 2);
        assert!(ended().len() == 4 && !ended().contains(&0));
        listed.iter().for_each(moves);
        assert_eq!(relays.end_idle(at(13)), 0, "busy again");
        assert_eq!(relays.end_idle(at(13) + BUSY), 2);
    }

    #[test]
    fn what_ended_is_not_in_the_list() {
        let relays = Rc::new(Relays::default());
        let start = Instant::now();
        let mut listed: Vec<_> = (0..100).map(|_| relays.list(start)).collect();
        let mut seed = 7;
        while !listed.is_empty() {
            seed = (seed * 31 + 11) % 101;
            drop(listed.swap_remove(seed % listed.len()));
            let all = relays.0.borrow();
            assert_eq!(all.len(), listed.len());
            assert!(all.iter().enumerate().all(|(n, entry)| entry.relay.place.get() == n));
        }
        assert_eq!(relays.end_idle(start + BUSY), 0);
    }
}
