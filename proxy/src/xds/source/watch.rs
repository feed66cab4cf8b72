//! Notices that a file was replaced: by rename onto it, by rewriting it, or by a swapped `..data` link.
//!
//! Writes in progress are not looked at: half a file may parse. inotify where it can be had; a slow comparison of the
//! file's identity besides, for file systems and limits that leave inotify silent.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind},
};
use tokio::{sync::Notify, time::sleep};

/// How often the file's identity is compared.
const POLL: Duration = Duration::from_secs(10);
/// A file this young may still be written; the next comparison sees it.
const QUIET: Duration = Duration::from_secs(2);

/// A watch on one file.
pub(super) struct Watch {
    path: PathBuf,
    events: Arc<Notify>,
    seen: Option<Identity>,
    degraded: Option<String>,
    /// Keeps the notifications coming.
    _watcher: Option<RecommendedWatcher>,
}

/// What distinguishes a file from its successor, symbolic links followed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: Option<SystemTime>,
}

impl Identity {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self { device: meta.dev(), inode: meta.ino(), size: meta.len(), modified: meta.modified().ok() })
    }

    fn is_quiet(&self) -> bool {
        self.modified.is_none_or(|at| at.elapsed().is_ok_and(|age| age >= QUIET))
    }
}

impl Watch {
    pub(super) fn new(path: &Path, watched_directory: Option<&Path>) -> Self {
        let events = Arc::new(Notify::new());
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let watcher = watcher(path.file_name().map(OsString::from), watched_directory, parent, &events);
        let (watcher, degraded) = match watcher {
            Ok(watcher) => (Some(watcher), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self { path: path.to_owned(), events, seen: Identity::of(path), degraded, _watcher: watcher }
    }

    /// Why there are no notifications, only polling.
    pub(super) fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }

    /// Completes when the file may have changed; at once if it did so since the last call. Cancel safe.
    pub(super) async fn changed(&mut self) {
        loop {
            tokio::select! {
                () = self.events.notified() => {
                    self.seen = Identity::of(&self.path);
                    return;
                }
                () = sleep(POLL) => {
                    let now = Identity::of(&self.path);
                    if now.as_ref().is_some_and(Identity::is_quiet) && now != self.seen {
                        self.seen = now;
                        return;
                    }
                }
            }
        }
    }
}

fn watcher(
    name: Option<OsString>,
    watched_directory: Option<&Path>,
    parent: &Path,
    events: &Arc<Notify>,
) -> notify::Result<RecommendedWatcher> {
    let notify = Arc::clone(events);
    let directory = watched_directory.map(Path::to_owned);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let relevant = match &event {
            Ok(event) => is_replacement(event, name.as_ref(), directory.as_deref()),
            // An overflow or the like: look rather once too often.
            Err(_) => true,
        };
        if relevant {
            notify.notify_one();
        }
    })?;
    watcher.watch(parent, RecursiveMode::NonRecursive)?;
    if let Some(directory) = watched_directory
        && directory != parent
    {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

fn is_replacement(event: &Event, name: Option<&OsString>, directory: Option<&Path>) -> bool {
    if event.need_rescan() {
        return true;
    }
    let finished = matches!(
        event.kind,
        EventKind::Modify(ModifyKind::Name(_)) | EventKind::Access(AccessKind::Close(AccessMode::Write))
    );
    let concerned = |path: &PathBuf| {
        // `..data` is how Kubernetes swaps a whole directory: the file itself is only a link through it.
        let own = path.file_name().is_some_and(|n| Some(n) == name.map(OsString::as_os_str) || n == "..data");
        own || directory.is_some_and(|d| path.parent() == Some(d))
    };
    finished && event.paths.iter().any(concerned)
}
