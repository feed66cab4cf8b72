//! What goes on, on standard error: one line that is overwritten on a terminal, plain lines elsewhere.

use std::{
    io::{IsTerminal as _, Write as _},
    time::Instant,
};

pub(crate) struct Progress {
    terminal: bool,
    started: Instant,
    /// Expected seconds of each part.
    parts: Vec<f64>,
    /// The part under way, its start, and what those before it took.
    part: Option<(usize, Instant)>,
    spent: f64,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { terminal, started: Instant::now(), parts: Vec::new(), part: None, spent: 0.0 }
    }

    /// Tells how long the parts to come are expected to take, in seconds.
    pub(crate) fn expect(&mut self, parts: Vec<f64>) {
        self.parts = parts;
    }

    /// The next part begins.
    pub(crate) fn next(&mut self) {
        let now = Instant::now();
        let next = self.part.map_or(0, |(part, began)| {
            self.spent += (now - began).as_secs_f64();
            part + 1
        });
        self.part = Some((next, now));
    }

    /// What is being done now.
    pub(crate) fn step(&self, what: &str) {
        let mut clock = minutes(self.started.elapsed().as_secs_f64());
        if let Some((part, began)) = self.part {
            let left = remaining(&self.parts, part, self.spent, began.elapsed().as_secs_f64());
            clock = format!("{clock}, about {} left:", minutes(left));
        }
        let mut stderr = std::io::stderr().lock();
        // A closed standard error is no reason to stop measuring.
        let _ = if self.terminal {
            write!(stderr, "\r\x1b[K{clock} {what}").and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{clock} {what}")
        };
    }

    /// Something that should stay readable.
    pub(crate) fn note(&self, what: &str) {
        self.clear();
        // As above: printing must not fail.
        let _ = writeln!(std::io::stderr(), "{what}");
    }

    /// A result, on standard output.
    pub(crate) fn print(&self, text: &str) {
        self.clear();
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    }

    fn clear(&self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn minutes(seconds: f64) -> String {
    let seconds = seconds as u64;
    format!("{:02}:{:02}", seconds / 60, seconds % 60)
}

/// Expected seconds that count as kept from the beginning.
const SETTLED: f64 = 60.0;

/// Seconds that are left: the expected ones, at the pace of the parts that are done.
fn remaining(parts: &[f64], part: usize, spent: f64, in_part: f64) -> f64 {
    let sum = |range: &[f64]| range.iter().sum::<f64>();
    let done = sum(&parts[..part.min(parts.len())]);
    // A short part says little about the others.
    let pace = (spent + SETTLED) / (done + SETTLED);
    let current = parts.get(part).map_or(0.0, |expected| (expected * pace - in_part).max(0.0));
    current + pace * sum(parts.get(part + 1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_the_pace() {
        let parts = [100.0, 200.0, 50.0];
        assert_eq!(remaining(&parts, 0, 0.0, 30.0), 320.0);
        // The first part took longer than expected.
        assert_eq!(remaining(&parts, 1, 180.0, 100.0), 275.0);
        // A part that takes longer than it should has nothing left, the others have.
        assert_eq!(remaining(&parts, 1, 100.0, 500.0), 50.0);
        assert_eq!(remaining(&parts, 3, 350.0, 0.0), 0.0);
        assert_eq!(remaining(&[], 0, 0.0, 5.0), 0.0);
    }

    #[test]
    fn parts_follow_each_other() {
        let mut progress = Progress::new();
        progress.expect(vec![1.0, 1.0]);
        progress.next();
        progress.next();
        assert_eq!(progress.part.map(|(part, _)| part), Some(1));
    }
}
