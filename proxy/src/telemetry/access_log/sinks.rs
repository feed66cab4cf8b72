//! Where access logs go: files, standard output and standard error.
//!
//! A worker appends its line to a buffer of its own; one writer thread collects the buffers a hundred times a second
//! at most and writes each file in one piece. So a line costs the data path a copy, neither a system call nor a wake-up.
//! Invariant: a buffer is bounded. Lines that find it full are dropped and counted: a slow disk can cost lines, never
//! latency or memory.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use super::writer::Writer;
use crate::{ir::format::Sink, telemetry::metrics};

/// Bytes of lines that may wait in one worker's buffer of one sink.
pub(super) const BUFFER: usize = 1 << 20;
/// With that much in a buffer the writer starts at once.
const HURRY: usize = BUFFER / 4;
/// How long lines are gathered.
const GATHER: Duration = Duration::from_millis(10);

/// All sinks of the process and their writer.
#[derive(Debug)]
pub struct Sinks {
    shared: Arc<Shared>,
    writer: thread::Thread,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    pipes: Mutex<HashMap<Sink, Arc<Pipe>>>,
    pub(super) dropped: AtomicU64,
    pub(super) written: AtomicU64,
    pub(super) failed: AtomicU64,
    reopen: AtomicBool,
    /// The writer sleeps until it is woken.
    parked: AtomicBool,
    closed: AtomicBool,
    rounds: Mutex<Rounds>,
    round_done: Condvar,
}

/// Flushes asked for and done.
#[derive(Debug, Default)]
struct Rounds {
    asked: u64,
    done: u64,
}

/// The buffers of one sink, one per worker.
#[derive(Debug)]
pub(super) struct Pipe {
    buffers: Box<[Mutex<Buffer>]>,
}

/// Lines on their way. Alone on its cache lines: workers write theirs all the time.
#[repr(align(128))]
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pub(super) bytes: Vec<u8>,
    pub(super) lines: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Buffers are whole lines at any time: a panic elsewhere leaves nothing half done in them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sinks {
    /// Starts the writer thread, which ends when `Sinks` (which loggers hold, too) is gone and all is written.
    pub fn start() -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let writer = thread::Builder::new().name("access-log".into()).spawn(move || run(&theirs))?;
        Ok(Arc::new(Self { shared, writer: writer.thread().clone() }))
    }

    /// Closes all files before the next line, so that a rotated file is left alone.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Relaxed);
    }

    /// Lines lost because the writer could not keep up.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Lines lost because a file could not be opened or written.
    pub fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Waits until every line logged so far is written, at most for `timeout`.
    pub fn flush(&self, timeout: Duration) {
        let mut rounds = lock(&self.shared.rounds);
        rounds.asked += 1;
        let ours = rounds.asked;
        self.writer.unpark();
        let waited = self.shared.round_done.wait_timeout_while(rounds, timeout, |r| r.done < ours);
        drop(waited);
    }

    /// The buffers of `sink`, which loggers of the same sink share.
    pub(super) fn pipe(&self, sink: &Sink) -> Arc<Pipe> {
        let new = || Arc::new(Pipe { buffers: (0..metrics::shards()).map(|_| Mutex::default()).collect() });
        lock(&self.shared.pipes).entry(sink.clone()).or_insert_with(new).clone()
    }

    /// Queues one line of the calling thread.
    pub(super) fn append(&self, pipe: &Pipe, line: &[u8]) {
        let waiting = {
            let mut buffer = lock(&pipe.buffers[metrics::shard().min(pipe.buffers.len() - 1)]);
            if buffer.bytes.len() + line.len() > BUFFER {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            buffer.bytes.extend_from_slice(line);
            buffer.lines += 1;
            buffer.bytes.len()
        };
        // Whoever clears the mark wakes; the writer looks at the buffers once more after setting it.
        let parked = self.shared.parked.load(Ordering::SeqCst) && self.shared.parked.swap(false, Ordering::SeqCst);
        if parked || (waiting >= HURRY && waiting - line.len() < HURRY) {
            self.writer.unpark();
        }
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.writer.unpark();
    }
}

impl Pipe {
    fn is_empty(&self) -> bool {
        self.buffers.iter().all(|b| lock(b).lines == 0)
    }

    /// Moves what waits to `batch`.
    fn collect(&self, batch: &mut Buffer) {
        for buffer in &self.buffers {
            let mut buffer = lock(buffer);
            if batch.lines == 0 {
                batch.bytes.clear();
                std::mem::swap(&mut *buffer, batch);
            } else {
                batch.bytes.extend_from_slice(&buffer.bytes);
                batch.lines += buffer.lines;
                buffer.bytes.clear();
                buffer.lines = 0;
            }
        }
    }
}

impl Shared {
    /// Lets go of sinks that no logger has any more.
    fn forget_unused(&self, writer: &mut Writer) {
        lock(&self.pipes).retain(|sink, pipe| {
            let used = Arc::strong_count(pipe) > 1 || !pipe.is_empty();
            if !used {
                writer.close(sink);
            }
            used
        });
    }

    fn has_work(&self) -> bool {
        let rounds = lock(&self.rounds);
        let asked = rounds.asked > rounds.done;
        drop(rounds);
        asked || self.closed.load(Ordering::SeqCst) || lock(&self.pipes).values().any(|p| !p.is_empty())
    }
}

/// The writer's thread.
fn run(shared: &Shared) {
    let mut writer = Writer::default();
    let mut batch = Buffer::default();
    loop {
        shared.parked.store(true, Ordering::SeqCst);
        if !shared.has_work() {
            thread::park();
        }
        shared.parked.store(false, Ordering::SeqCst);
        let asked = lock(&shared.rounds).asked;
        if lock(&shared.rounds).done == asked && !shared.closed.load(Ordering::SeqCst) {
            thread::park_timeout(GATHER);
        }
        let (closed, asked) = (shared.closed.load(Ordering::SeqCst), lock(&shared.rounds).asked);
        if shared.reopen.swap(false, Ordering::Relaxed) {
            writer.close_files();
        }
        let pipes: Vec<_> = lock(&shared.pipes).iter().map(|(sink, pipe)| (sink.clone(), pipe.clone())).collect();
        for (sink, pipe) in &pipes {
            pipe.collect(&mut batch);
            if batch.lines > 0 {
                let done = writer.write(sink, &batch.bytes);
                let count = if done { &shared.written } else { &shared.failed };
                count.fetch_add(batch.lines, Ordering::Relaxed);
            }
            batch.lines = 0;
            batch.bytes.clear();
            batch.bytes.shrink_to(HURRY);
        }
        drop(pipes);
        shared.forget_unused(&mut writer);
        lock(&shared.rounds).done = asked;
        shared.round_done.notify_all();
        if closed {
            return;
        }
    }
}
