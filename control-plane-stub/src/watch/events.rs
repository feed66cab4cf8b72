//! File system events, gathered until the directory is quiet.
//!
//! A file that is still open for writing may be half written: it is waited for, though not for ever. Invariant:
//! bounded memory whatever the number of events; every change leads to a later look.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, CreateKind, ModifyKind},
};
use tokio::sync::Notify;

use super::scan::is_wanted;

/// Silence after the last event before the directory is read.
const QUIET: Duration = Duration::from_millis(3);
/// Longest wait for the first bytes of a file that came: a link comes whole and is never closed.
const COMING: Duration = Duration::from_millis(250);
/// Longest wait for a writer to close its file.
pub(super) const PATIENCE: Duration = Duration::from_secs(8);
const MAX_OPEN: usize = 4096;

#[derive(Default)]
struct Pending {
    /// First and last event since the last look.
    span: Option<(Instant, Instant)>,
    /// Created and neither written to nor closed yet.
    coming: HashSet<PathBuf>,
    /// Written to or cut and not closed yet.
    open: HashSet<PathBuf>,
    /// The directory itself was replaced: its watches are worth nothing.
    replaced: bool,
}

/// Events of one directory.
#[derive(Clone, Default)]
pub(super) struct Events {
    pending: Arc<Mutex<Pending>>,
    wake: Arc<Notify>,
}

impl Events {
    /// Starts watching `dir` and all below, and `dir`'s own name in its parent (it may be a link that is swapped).
    pub(super) fn watch(&self, dir: &Path) -> notify::Result<RecommendedWatcher> {
        let (events, own) = (self.clone(), dir.to_owned());
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| match event {
            Ok(event) => events.add(&event, &own, Instant::now()),
            Err(_) => events.overflow(),
        })?;
        // Without the parent a swap of the directory itself is found by the slow poll.
        let parent = dir.parent().filter(|p| !p.as_os_str().is_empty());
        let seen_from_parent = parent.is_some_and(|p| watcher.watch(p, RecursiveMode::NonRecursive).is_ok());
        match watcher.watch(dir, RecursiveMode::Recursive) {
            // Its parent will tell when it comes.
            Err(_) if seen_from_parent && !dir.exists() => {}
            outcome => outcome?,
        }
        Ok(watcher)
    }

    fn add(&self, event: &Event, dir: &Path, now: Instant) {
        let closed = event.kind == EventKind::Access(AccessKind::Close(AccessMode::Write));
        let reading = matches!(event.kind, EventKind::Access(_)) && !closed;
        let concerns = |path: &PathBuf| path.starts_with(dir);
        if reading || (!event.need_rescan() && !event.paths.iter().any(concerns)) {
            return;
        }
        let created = event.kind == EventKind::Create(CreateKind::File);
        let written = matches!(event.kind, EventKind::Modify(ModifyKind::Data(_)));
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.span = Some((pending.span.map_or(now, |(first, _)| first), now));
        pending.replaced |= event.paths.iter().any(|path| path == dir)
            && !matches!(event.kind, EventKind::Modify(ModifyKind::Metadata(_)));
        for path in &event.paths {
            pending.coming.remove(path);
            // A link comes whole; only files are written to, and of those only some are read.
            if !(created || written) || !is_wanted(path) || path.is_symlink() {
                pending.open.remove(path);
            } else if pending.open.len() + pending.coming.len() < MAX_OPEN {
                let of = if written { &mut pending.open } else { &mut pending.coming };
                of.insert(path.clone());
            }
        }
        drop(pending);
        self.wake.notify_one();
    }

    fn overflow(&self) {
        let now = Instant::now();
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        *pending = Pending { span: Some((now, now)), replaced: true, ..Pending::default() };
        drop(pending);
        self.wake.notify_one();
    }

    /// Until when a look would be too early, as a file is being written.
    pub(super) fn busy(&self) -> Option<Instant> {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.due().filter(|due| pending.is_writing() && *due > Instant::now())
    }

    /// Waits until nobody writes any more, but not for ever.
    pub(super) async fn written(&self) {
        loop {
            let wake = self.wake.notified();
            let Some(due) = self.busy() else { return };
            tokio::select! {
                () = wake => {}
                () = tokio::time::sleep_until(due.into()) => {}
            }
        }
    }

    /// Waits for a change and then for quiet. Returns whether the watches must be set up anew.
    pub(super) async fn changed(&self) -> bool {
        loop {
            let wake = self.wake.notified();
            let due = self.pending.lock().unwrap_or_else(PoisonError::into_inner).due();
            match due {
                None => wake.await,
                Some(due) if due > Instant::now() => {
                    tokio::select! {
                        () = wake => {}
                        () = tokio::time::sleep_until(due.into()) => {}
                    }
                }
                Some(_) => {
                    let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
                    return std::mem::take(&mut *pending).replaced;
                }
            }
        }
    }
}

impl Pending {
    fn due(&self) -> Option<Instant> {
        let (first, last) = self.span?;
        Some(match (self.open.is_empty(), self.coming.is_empty()) {
            (false, _) => first + PATIENCE,
            (true, false) => first + COMING,
            (true, true) => last + QUIET,
        })
    }

    fn is_writing(&self) -> bool {
        !self.open.is_empty() || !self.coming.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{DataChange, RemoveKind};

    use super::*;

    const DIR: &str = "/etc/mesh";

    fn feed(events: &Events, kind: EventKind, path: &str, now: Instant) {
        events.add(&Event::new(kind).add_path(path.into()), Path::new(DIR), now);
    }

    fn due(events: &Events) -> Option<Instant> {
        events.pending.lock().unwrap().due()
    }

    #[test]
    fn a_writer_is_waited_for_until_it_closes() {
        let (events, now) = (Events::default(), Instant::now());
        feed(&events, EventKind::Modify(ModifyKind::Data(DataChange::Any)), "/etc/mesh/a.yaml", now);
        assert_eq!(due(&events), Some(now + PATIENCE));
        assert!(events.busy().is_some());
        let later = now + Duration::from_millis(40);
        feed(&events, EventKind::Access(AccessKind::Close(AccessMode::Write)), "/etc/mesh/a.yaml", later);
        assert_eq!(due(&events), Some(later + QUIET));
        assert_eq!(events.busy(), None);
    }

    #[test]
    fn a_hard_link_is_not_waited_for_as_a_writer_is() {
        let (events, now) = (Events::default(), Instant::now());
        feed(&events, EventKind::Create(CreateKind::File), "/etc/mesh/a.yaml", now);
        assert_eq!(due(&events), Some(now + COMING));
        feed(&events, EventKind::Modify(ModifyKind::Data(DataChange::Any)), "/etc/mesh/a.yaml", now);
        assert_eq!(due(&events), Some(now + PATIENCE));
    }

    #[test]
    fn reading_and_foreign_paths_are_no_change() {
        let (events, now) = (Events::default(), Instant::now());
        feed(&events, EventKind::Access(AccessKind::Open(AccessMode::Any)), "/etc/mesh/a.yaml", now);
        feed(&events, EventKind::Remove(RemoveKind::File), "/etc/passwd", now);
        feed(&events, EventKind::Remove(RemoveKind::File), "/etc/meshed", now);
        assert_eq!(due(&events), None);
    }

    #[tokio::test]
    async fn the_directory_replaced_means_new_watches() {
        let (events, now) = (Events::default(), Instant::now());
        feed(&events, EventKind::Create(CreateKind::Folder), DIR, now);
        assert!(events.changed().await);
        feed(&events, EventKind::Remove(RemoveKind::File), "/etc/mesh/a.yaml", now);
        assert!(!events.changed().await);
        assert_eq!(due(&events), None, "taken");
    }
}
