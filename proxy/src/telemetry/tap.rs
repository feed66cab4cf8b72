//! A live stream of finished requests and connections for those who watch, and what failed of late.
//!
//! Bounded in watchers, lines and time; a watcher who does not keep up loses lines, which is counted, and delays nobody.
//! Invariant: while nobody watches, a request costs one load of a number that hardly ever changes.

use std::{
    net::IpAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    format::{Facts, Headers},
    format_time,
    mesh::principals,
};

mod failures;
#[cfg(test)]
#[path = "tap_tests.rs"]
mod tests;

pub use failures::{Failure, may_note, note, recent, tell};

/// Watchers at a time.
pub const MOST_WATCHERS: usize = 8;
/// Characters of a path that are kept.
const LONGEST: usize = 2048;
/// Lines that wait for a watcher.
const WAITING: usize = 1024;

static WATCHED: AtomicU32 = AtomicU32::new(0);
static WATCHERS: RwLock<Vec<Arc<Watcher>>> = RwLock::new(Vec::new());

/// Whether somebody watches.
pub fn watched() -> bool {
    WATCHED.load(Relaxed) != 0
}

/// Method, path and authority of a request, for those who are not told by an access log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub method: Box<str>,
    pub path: Box<str>,
    pub authority: Box<str>,
    pub request_id: Option<Box<str>>,
}

impl Head {
    /// Of a request's head.
    pub fn of(head: &dyn Headers) -> Self {
        let text = |name: &str| head.get(name).map(|value| value.chars().take(LONGEST).collect::<String>().into());
        Self {
            method: text(":method").unwrap_or_default(),
            path: text(":path").unwrap_or_default(),
            authority: text(":authority").unwrap_or_default(),
            request_id: text("x-request-id"),
        }
    }
}

/// What somebody wants to see; all of it has to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub route: Option<Box<str>>,
    /// The authority, or `*.suffix`.
    pub host: Option<Box<str>>,
    /// What the path begins with.
    pub path: Option<Box<str>>,
    pub method: Option<Box<str>>,
    pub cluster: Option<Box<str>>,
    pub source: Option<IpAddr>,
    /// From and to, inclusive.
    pub status: Option<(u16, u16)>,
    /// Only what did not go well.
    pub failed: bool,
}

impl Wanted {
    fn takes(&self, facts: &Facts<'_>, head: Option<&Head>) -> bool {
        let is = |wanted: &Option<Box<str>>, found: Option<&str>| wanted.as_deref().is_none_or(|w| found == Some(w));
        let host = |wanted: &str, found: &str| match wanted.strip_prefix('*') {
            Some(suffix) => found.to_ascii_lowercase().ends_with(suffix),
            None => found.eq_ignore_ascii_case(wanted),
        };
        is(&self.route, facts.route)
            && is(&self.cluster, facts.upstream.cluster.as_deref())
            && is(&self.method, head.map(|h| &*h.method))
            && self.host.as_deref().is_none_or(|wanted| head.is_some_and(|h| host(wanted, &h.authority)))
            && self.path.as_deref().is_none_or(|wanted| head.is_some_and(|h| h.path.starts_with(wanted)))
            && self.source.is_none_or(|ip| facts.remote.ip() == ip || facts.conn.remote.ip() == ip)
            && self.status.is_none_or(|(from, to)| (from..=to).contains(&facts.status))
            && (!self.failed || facts.status >= 500 || !facts.flags.is_empty())
    }
}

#[derive(Debug)]
struct Watcher {
    wanted: Wanted,
    lines: mpsc::Sender<Bytes>,
    left: AtomicU64,
    dropped: AtomicU64,
}

/// Somebody who watches, until it is dropped.
#[derive(Debug)]
pub struct Watch {
    watcher: Arc<Watcher>,
    pub lines: mpsc::Receiver<Bytes>,
}

impl Watch {
    /// `None`: too many watch already.
    pub fn new(wanted: Wanted, limit: u64) -> Option<Self> {
        let mut all = lock();
        if all.len() >= MOST_WATCHERS {
            return None;
        }
        let (sender, lines) = mpsc::channel(WAITING);
        let watcher = Watcher { wanted, lines: sender, left: AtomicU64::new(limit), dropped: AtomicU64::new(0) };
        let watcher = Arc::new(watcher);
        all.push(watcher.clone());
        count(&all);
        Some(Self { watcher, lines })
    }

    /// Lines that found no room.
    pub fn dropped(&self) -> u64 {
        self.watcher.dropped.load(Relaxed)
    }

    /// Whether all lines were written that were asked for.
    pub fn is_done(&self) -> bool {
        self.watcher.left.load(Relaxed) == 0
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut all = lock();
        all.retain(|watcher| !Arc::ptr_eq(watcher, &self.watcher));
        count(&all);
    }
}

/// Counts those who still want lines; nobody is shown any meanwhile.
fn count(all: &[Arc<Watcher>]) {
    let wanting = all.iter().filter(|watcher| watcher.left.load(Relaxed) > 0).count();
    WATCHED.store(wanting as u32, Relaxed);
}

fn lock() -> std::sync::RwLockWriteGuard<'static, Vec<Arc<Watcher>>> {
    WATCHERS.write().unwrap_or_else(PoisonError::into_inner)
}

/// Shows what ended to all who want to see it. Waits for nobody: not even for the list of watchers.
pub fn show(facts: &Facts<'_>, head: Option<&Head>) {
    let Ok(all) = WATCHERS.try_read() else {
        MISSED.fetch_add(1, Relaxed);
        return;
    };
    let mut line = None;
    for watcher in all.iter().filter(|watcher| watcher.wanted.takes(facts, head)) {
        match watcher.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)) {
            // Who has seen enough costs nothing any more.
            Ok(1) => {
                WATCHED.fetch_sub(1, Relaxed);
            }
            Ok(_) => {}
            Err(_) => continue,
        }
        let line = line.get_or_insert_with(|| Bytes::from(format!("{}\n", describe(facts, head))));
        if watcher.lines.try_send(line.clone()).is_err() {
            watcher.dropped.fetch_add(1, Relaxed);
            if watcher.left.fetch_add(1, Relaxed) == 0 {
                WATCHED.fetch_add(1, Relaxed);
            }
        }
    }
}

/// Requests that nobody was shown because the list of watchers was being changed at that moment.
static MISSED: AtomicU64 = AtomicU64::new(0);

/// See [`MISSED`].
pub fn missed() -> u64 {
    MISSED.load(Relaxed)
}

/// One line.
fn describe(facts: &Facts<'_>, head: Option<&Head>) -> Value {
    let upstream = facts.upstream;
    let mut line = json!({
        "start_time": format_time::format(format_time::DEFAULT, facts.start),
        "kind": if facts.protocol.is_some() { "request" } else { "connection" },
        "listener": &*facts.conn.listener,
        "filter_chain": &*facts.conn.chain,
        "source": facts.remote.to_string(),
        "destination": facts.conn.local.to_string(),
        "principal": principals(facts.conn.tls.as_deref()).1,
        "protocol": facts.protocol,
        "method": head.map(|h| &*h.method),
        "authority": head.map(|h| &*h.authority),
        "path": head.map(|h| &*h.path),
        "request_id": head.and_then(|h| h.request_id.as_deref()),
        "status": facts.protocol.map(|_| facts.status),
        "flags": facts.flags.to_string(),
        "details": facts.details,
        "route": facts.route,
        "cluster": upstream.cluster.as_deref(),
        "upstream": upstream.host.as_deref(),
        "attempts": upstream.attempts,
        "upstream_failure": upstream.transport_failure.as_deref(),
        "downstream_failure": facts.downstream_failure,
        "duration_ms": facts.times.total,
        "bytes_received": facts.bytes_received,
        "bytes_sent": facts.bytes_sent,
    });
    if let Value::Object(fields) = &mut line {
        fields.retain(|_, value| !value.is_null());
    }
    line
}
