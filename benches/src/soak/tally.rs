//! What became of every request: good, bad for a known reason, or bad for none.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Different reasons that are kept apart.
const REASONS: usize = 400;
/// Longest reason.
const LONGEST: usize = 160;

/// How one piece of work ended, where it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Good,
    /// Not good, and that is how it had to be.
    Explained(&'static str),
}

/// Of one kind of work.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends {
    pub(super) good: u64,
    pub(super) explained: BTreeMap<&'static str, u64>,
    pub(super) unexplained: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<BTreeMap<&'static str, Ends>>);

impl Tally {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Ends>> {
        // Counts are whole at any time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, kind: &'static str, end: &anyhow::Result<End>) {
        let mut all = self.lock();
        let ends = all.entry(kind).or_default();
        match end {
            Ok(End::Good) => ends.good += 1,
            Ok(End::Explained(reason)) => *ends.explained.entry(reason).or_default() += 1,
            Err(error) => {
                let reason: String = format!("{error:#}").chars().take(LONGEST).collect();
                let full = ends.unexplained.len() >= REASONS && !ends.unexplained.contains_key(&reason);
                *ends.unexplained.entry(if full { "others".to_owned() } else { reason }).or_default() += 1;
            }
        }
    }

    pub(super) fn all(&self) -> BTreeMap<&'static str, Ends> {
        self.lock().clone()
    }

    /// Good, explained, unexplained, of all kinds.
    pub(super) fn sums(&self) -> (u64, u64, u64) {
        self.lock().values().fold((0, 0, 0), |(good, explained, unexplained), ends| {
            let (e, u) = (ends.explained.values().sum::<u64>(), ends.unexplained.values().sum::<u64>());
            (good + ends.good, explained + e, unexplained + u)
        })
    }

    /// One line for each kind, and one for each reason.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (kind, ends) in self.all() {
            let _ = writeln!(text, "{kind:14} {:>10} good", ends.good);
            for (reason, count) in &ends.explained {
                let _ = writeln!(text, "{:14} {count:>10} as expected: {reason}", "");
            }
            for (reason, count) in &ends.unexplained {
                let _ = writeln!(text, "{:14} {count:>10} UNEXPLAINED: {reason}", "");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_is_counted_by_kind_and_reason() {
        let tally = Tally::default();
        tally.count("a", &Ok(End::Good));
        tally.count("a", &Ok(End::Explained("told to")));
        (0..REASONS + 5).for_each(|n| tally.count("b", &Err(anyhow::anyhow!("reason {n}"))));
        assert_eq!(tally.sums(), (1, 1, REASONS as u64 + 5));
        assert_eq!(tally.all()["b"].unexplained["others"], 5, "reasons are bounded, counts are not");
        assert!(tally.text().contains("UNEXPLAINED: reason 0"));
    }
}
