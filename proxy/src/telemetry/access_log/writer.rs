//! Writes batches of lines to their sinks; used by one thread.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    sync::Arc,
};

use crate::ir::format::Sink;

/// Open files by path; `None` could not be opened and is tried again after a reopen.
#[derive(Default)]
pub(super) struct Writer {
    files: HashMap<Arc<str>, Option<File>>,
}

impl Writer {
    pub(super) fn close_files(&mut self) {
        self.files.clear();
    }

    pub(super) fn close(&mut self, sink: &Sink) {
        if let Sink::File(path) = sink {
            self.files.remove(path);
        }
    }

    /// Writes a batch in one piece, so that lines of other writers to the same descriptor do not cut ours in two.
    /// Returns whether that worked.
    pub(super) fn write(&mut self, sink: &Sink, batch: &[u8]) -> bool {
        let (written, name) = match sink {
            Sink::File(path) => match self.file(path) {
                Some(file) => (file.write_all(batch), &**path),
                None => return false,
            },
            Sink::Stdout => {
                let mut stdout = io::stdout().lock();
                (stdout.write_all(batch).and_then(|()| stdout.flush()), "stdout")
            }
            Sink::Stderr => (io::stderr().lock().write_all(batch), "stderr"),
        };
        written.inspect_err(|error| tracing::warn!(name, %error, "access log cannot be written")).is_ok()
    }

    fn file(&mut self, path: &Arc<str>) -> Option<&mut File> {
        let file = self.files.entry(path.clone()).or_insert_with_key(|path| {
            let opened = OpenOptions::new().create(true).append(true).open(&**path);
            opened.inspect_err(|error| tracing::error!(%path, %error, "access log cannot be opened")).ok()
        });
        file.as_mut()
    }
}
