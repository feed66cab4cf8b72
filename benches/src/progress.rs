//! What goes on, on standard error: one line that is overwritten on a terminal, plain lines elsewhere.

use std::{
    io::{IsTerminal as _, Write as _},
    time::Instant,
};

pub(crate) struct Progress {
    terminal: bool,
    started: Instant,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), started: Instant::now() }
    }

    /// What is being done now.
    pub(crate) fn step(&self, what: &str) {
        let seconds = self.started.elapsed().as_secs();
        let clock = format!("{:02}:{:02}", seconds / 60, seconds % 60);
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
        eprintln!("{what}");
    }

    /// A result, on standard output.
    pub(crate) fn print(&self, text: &str) {
        self.clear();
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    }

    fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}
