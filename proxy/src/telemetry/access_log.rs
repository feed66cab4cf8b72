//! Access loggers: one line per request or connection, written off the data path.
//!
//! A [`Logger`] renders its line on the worker and hands it to a writer thread over a bounded channel. A full channel
//! drops the line and counts it: a slow disk can cost log lines, never latency or memory.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value as Json;

use super::format::{self, Facts, Value};
use crate::ir::format::{AccessLog, JsonField, LogFilter, LogFormat, Operator, Segment, Sink, Template};

#[cfg(test)]
#[path = "access_log_tests.rs"]
mod tests;

const GRPC_STATUS: &str = "grpc-status";
/// Lines that may wait for the writer.
const QUEUE: usize = 8192;

/// The writer all loggers share.
#[derive(Debug)]
pub struct Sinks {
    lines: SyncSender<Message>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
enum Message {
    Line(Sink, String),
    /// Answered once every line before it is written.
    Flush(SyncSender<()>),
}

#[derive(Debug, Default)]
struct Shared {
    dropped: AtomicU64,
    written: AtomicU64,
    failed: AtomicU64,
    reopen: AtomicBool,
}

impl Sinks {
    /// Starts the writer thread, which ends when the last logger and `Sinks` are gone.
    pub fn start() -> io::Result<Arc<Self>> {
        let (lines, queue) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::default());
        let writer = Writer { shared: shared.clone(), files: HashMap::new() };
        thread::Builder::new().name("access-log".into()).spawn(move || writer.run(&queue))?;
        Ok(Arc::new(Self { lines, shared }))
    }

    /// Closes all files before the next line, so that a rotated file is left alone.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Relaxed);
    }

    /// Lines lost because the writer could not keep up.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Relaxed)
    }

    pub fn written(&self) -> u64 {
        self.shared.written.load(Relaxed)
    }

    /// Lines lost because a file could not be opened or written.
    pub fn failed(&self) -> u64 {
        self.shared.failed.load(Relaxed)
    }

    /// Waits until every line logged so far is written, at most for `timeout`.
    pub fn flush(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let (done, answer) = sync_channel(1);
        // The queue may be full because the writer stands still: waiting for room is bounded too.
        while let Err(refused) = self.lines.try_send(Message::Flush(done.clone())) {
            if matches!(refused, TrySendError::Disconnected(_)) || Instant::now() >= deadline {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        let _ = answer.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }

    fn send(&self, sink: &Sink, line: String) {
        if self.lines.try_send(Message::Line(sink.clone(), line)).is_err() {
            self.shared.dropped.fetch_add(1, Relaxed);
        }
    }
}

struct Writer {
    shared: Arc<Shared>,
    /// `None`: could not be opened; tried again after a reopen.
    files: HashMap<Arc<str>, Option<BufWriter<File>>>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Message>) {
        while let Ok(first) = queue.recv() {
            if self.shared.reopen.swap(false, Relaxed) {
                self.flush();
                self.files.clear();
            }
            let mut stdout = Vec::new();
            let mut stderr = Vec::new();
            let batch = std::iter::once(first).chain(queue.try_iter().take(1024));
            let mut count = 0;
            let mut waiting = Vec::new();
            for message in batch {
                let (sink, line) = match message {
                    Message::Line(sink, line) => (sink, line),
                    Message::Flush(done) => {
                        waiting.push(done);
                        continue;
                    }
                };
                count += 1;
                match sink {
                    Sink::File(path) => self.append(path, &line),
                    Sink::Stdout => stdout.extend_from_slice(line.as_bytes()),
                    Sink::Stderr => stderr.extend_from_slice(line.as_bytes()),
                }
            }
            // One write per batch: lines of other writers to the same descriptor do not cut ours in two.
            let _ = io::stdout().lock().write_all(&stdout).and_then(|()| io::stdout().flush());
            let _ = io::stderr().lock().write_all(&stderr);
            self.flush();
            self.shared.written.fetch_add(count, Relaxed);
            for done in waiting {
                let _ = done.try_send(());
            }
        }
    }

    fn append(&mut self, path: Arc<str>, line: &str) {
        let file = self.files.entry(path).or_insert_with_key(|path| {
            match OpenOptions::new().create(true).append(true).open(&**path) {
                Ok(file) => Some(BufWriter::new(file)),
                Err(error) => {
                    tracing::error!(%path, %error, "access log cannot be opened");
                    None
                }
            }
        });
        let written = file.as_mut().is_some_and(|f| f.write_all(line.as_bytes()).is_ok());
        if !written {
            self.shared.failed.fetch_add(1, Relaxed);
        }
    }

    fn flush(&mut self) {
        for file in self.files.values_mut().flatten() {
            if let Err(error) = file.flush() {
                tracing::warn!(%error, "access log cannot be written");
            }
        }
    }
}

/// One configured access log.
#[derive(Clone, Debug)]
pub struct Logger {
    config: AccessLog,
    sinks: Arc<Sinks>,
    names: Arc<Names>,
}

/// The header names a logger mentions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub request: Vec<Box<str>>,
    pub response: Vec<Box<str>>,
    pub trailers: Vec<Box<str>>,
}

impl Logger {
    pub fn new(config: &AccessLog, sinks: &Arc<Sinks>) -> Self {
        let mut names = Names::default();
        match &config.format {
            LogFormat::Text(template) => collect(template, &mut names),
            LogFormat::Json(fields) => collect_json(fields, &mut names),
        }
        if let Some(filter) = &config.filter {
            collect_filter(filter, &mut names);
        }
        Self { config: config.clone(), sinks: sinks.clone(), names: Arc::new(names) }
    }

    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Renders and queues one line, if the filter accepts it.
    pub fn log(&self, facts: &Facts<'_>) {
        if self.config.filter.as_ref().is_none_or(|filter| accepts(filter, facts)) {
            self.sinks.send(&self.config.sink, self.render(facts));
        }
    }

    fn render(&self, facts: &Facts<'_>) -> String {
        render(&self.config.format, facts)
    }
}

/// One line in a format.
pub fn render(format: &LogFormat, facts: &Facts<'_>) -> String {
    match format {
        // A text format carries its own line end, as Envoy's do.
        LogFormat::Text(template) => {
            let mut line = String::with_capacity(256);
            format::render(template, facts, "-", &mut line);
            line
        }
        LogFormat::Json(fields) => {
            let mut line = object(fields, facts).to_string();
            line.push('\n');
            line
        }
    }
}

fn accepts(filter: &LogFilter, facts: &Facts<'_>) -> bool {
    let first = |source: Option<&dyn format::Headers>, name| source.and_then(|s| s.get(name).map(|v| v.into_owned()));
    match filter {
        LogFilter::StatusCode(comparison, bound) => comparison.holds(facts.status.into(), *bound),
        LogFilter::Duration(comparison, bound) => comparison.holds(facts.times.total, *bound),
        LogFilter::Sample(share) => share.hit(fastrand::u32(..)),
        LogFilter::And(all) => all.iter().all(|f| accepts(f, facts)),
        LogFilter::Or(any) => any.iter().any(|f| accepts(f, facts)),
        LogFilter::RequestHeader(matcher) => matcher.matches(first(facts.request, &matcher.name).as_deref()),
        LogFilter::ResponseFlags(names) if names.is_empty() => !facts.flags.is_empty(),
        LogFilter::ResponseFlags(names) => facts.flags.to_string().split(',').any(|f| names.iter().any(|n| **n == *f)),
        LogFilter::GrpcStatus { codes, exclude } => {
            let status = first(facts.trailers, GRPC_STATUS).or_else(|| first(facts.response, GRPC_STATUS));
            let hit = status.and_then(|s| s.parse::<u8>().ok()).is_some_and(|s| codes.contains(&s));
            hit != *exclude
        }
        LogFilter::NotHealthCheck => true,
    }
}

fn collect_filter(filter: &LogFilter, names: &mut Names) {
    match filter {
        LogFilter::And(filters) | LogFilter::Or(filters) => filters.iter().for_each(|f| collect_filter(f, names)),
        LogFilter::RequestHeader(matcher) => names.request.push(matcher.name.clone()),
        LogFilter::GrpcStatus { .. } => {
            names.response.push(GRPC_STATUS.into());
            names.trailers.push(GRPC_STATUS.into());
        }
        LogFilter::StatusCode(..)
        | LogFilter::Duration(..)
        | LogFilter::Sample(_)
        | LogFilter::ResponseFlags(_)
        | LogFilter::NotHealthCheck => {}
    }
}

fn object(fields: &[(Box<str>, JsonField)], facts: &Facts<'_>) -> Json {
    let value = |field: &JsonField| match field {
        JsonField::Object(fields) => object(fields, facts),
        JsonField::Value(template) => json_value(template, facts),
    };
    Json::Object(fields.iter().map(|(key, field)| (key.to_string(), value(field))).collect())
}

/// A lone operator keeps its type, as Envoy's `json_format` does.
fn json_value(template: &Template, facts: &Facts<'_>) -> Json {
    match template.segments.as_slice() {
        [Segment::Op { op, max_len }] => match format::value(op, facts) {
            Value::Absent => Json::Null,
            Value::Number(n) => n.into(),
            Value::Text(text) => format::truncate(&text, *max_len).into(),
        },
        _ => {
            let mut text = String::new();
            format::render(template, facts, "-", &mut text);
            text.into()
        }
    }
}

fn collect_json(fields: &[(Box<str>, JsonField)], names: &mut Names) {
    for (_, field) in fields {
        match field {
            JsonField::Value(template) => collect(template, names),
            JsonField::Object(fields) => collect_json(fields, names),
        }
    }
}

fn collect(template: &Template, names: &mut Names) {
    for segment in &template.segments {
        let Segment::Op { op, .. } = segment else { continue };
        let (list, name, alternative) = match op {
            Operator::Req(name, alternative) => (&mut names.request, name, alternative),
            Operator::Resp(name, alternative) => (&mut names.response, name, alternative),
            Operator::Trailer(name, alternative) => (&mut names.trailers, name, alternative),
            _ => continue,
        };
        for name in std::iter::once(name).chain(alternative) {
            if !list.contains(name) {
                list.push(name.clone());
            }
        }
    }
}
