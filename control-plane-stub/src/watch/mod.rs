//! Turns a changing directory into generations of the world.
//!
//! Owns when to look and what to do with what was found: a good load replaces the world, a bad one is reported and
//! the last good world stays. Knows neither the documents' meaning (`load` is given) nor who is served.
//! Invariant: the content hash published with a generation is that of the bytes it was loaded from.

mod events;
mod scan;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use notify::RecommendedWatcher;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::{
    events::{Events, PATIENCE},
    scan::Scan,
};
use crate::{
    model::Problem,
    ratelimit::rules::Objects,
    resources::{Node, Resources},
    server::source::{Generation, Publisher},
    status::Status,
};

pub use self::scan::content_hash;

/// How often the directory is looked at without an event: for file systems that send none.
const POLL: Duration = Duration::from_secs(2);
/// Loads repeated because the directory changed while it was read.
const MAX_REPEATS: usize = 5;
/// Pause before looking again at a directory that would not hold still.
const RESTLESS: Duration = Duration::from_millis(50);

/// Generates a client's resources from one loaded world.
pub type Generate = Box<dyn Fn(&Node) -> Resources + Send + Sync>;
/// Reads a directory, or says everything that is wrong with it.
pub type Load = dyn Fn(&Path) -> Result<Loaded, Vec<Problem>> + Send + Sync;

/// What a directory holds.
pub struct Loaded {
    pub generate: Generate,
    /// What the rate limit service holds requests against.
    pub limits: Objects,
    /// Not one document: what a directory holds whose volume is gone.
    pub empty: bool,
}

impl From<Generate> for Loaded {
    fn from(generate: Generate) -> Self {
        Self { generate, limits: Objects::new(), empty: false }
    }
}

/// Watches one directory and publishes what it holds.
pub struct DirectoryWatch {
    dir: PathBuf,
    load: Arc<Load>,
    publisher: Publisher,
    status: Arc<Status>,
    events: Events,
    /// Dropping it ends the watching.
    watcher: Option<RecommendedWatcher>,
    last: Option<Scan>,
    observed: String,
    served: String,
    /// What is served holds documents.
    filled: bool,
    /// Since when some file has held nothing.
    hollow_since: Option<Instant>,
    /// Since when every look found somebody writing.
    busy_since: Option<Instant>,
    version: u64,
}

/// One look's result, computed off the runtime.
struct Look {
    scan: Scan,
    content: String,
    /// `None`: the content is what was last looked at, or what is served.
    loaded: Option<Result<Loaded, Vec<Problem>>>,
    restless: bool,
    took: Duration,
}

impl DirectoryWatch {
    pub fn new(dir: &Path, load: Arc<Load>, publisher: Publisher, status: Arc<Status>) -> std::io::Result<Self> {
        Ok(Self {
            dir: std::path::absolute(dir)?,
            load,
            publisher,
            status,
            events: Events::default(),
            watcher: None,
            last: None,
            observed: String::new(),
            served: String::new(),
            filled: false,
            hollow_since: None,
            busy_since: None,
            version: 0,
        })
    }

    /// Looks once now, then whenever something changes or `rescan` asks, until shutdown.
    pub async fn run(mut self, mut rescan: mpsc::Receiver<oneshot::Sender<()>>, shutdown: CancellationToken) {
        // Watch first, look second: what changes in between raises an event.
        self.watch();
        let mut restless = self.look().await;
        loop {
            let pause = if restless { RESTLESS } else { POLL };
            tokio::select! {
                () = shutdown.cancelled() => return,
                replaced = self.events.changed() => {
                    if replaced {
                        self.watch();
                    }
                    restless = self.look().await;
                }
                Some(done) = rescan.recv() => {
                    restless = tokio::select! {
                        () = shutdown.cancelled() => return,
                        restless = self.look_at_rest() => restless,
                    };
                    // The asker may have given up.
                    let _ = done.send(());
                }
                // What is being written is looked at once that has ended.
                () = tokio::time::sleep(pause) => if self.events.busy().is_none() {
                    let dir = self.dir.clone();
                    let scan = tokio::task::spawn_blocking(move || Scan::of(&dir)).await.ok();
                    if restless || scan != self.last {
                        restless = self.look().await;
                    }
                }
            }
        }
    }

    fn watch(&mut self) {
        self.watcher = self
            .events
            .watch(&self.dir)
            .inspect_err(|error| {
                tracing::warn!(dir = %self.dir.display(), %error, "cannot watch; polling every {POLL:?} instead");
            })
            .ok();
    }

    /// As [`Self::look`], once nobody writes and nothing changes any more; not waiting for ever.
    async fn look_at_rest(&mut self) -> bool {
        let give_up = Instant::now() + PATIENCE;
        loop {
            self.events.written().await;
            let restless = self.look().await;
            if !restless || Instant::now() >= give_up {
                return restless;
            }
            tokio::time::sleep(RESTLESS).await;
        }
    }

    /// Reads the directory and publishes what is new. Returns whether it kept changing meanwhile.
    async fn look(&mut self) -> bool {
        let (dir, load) = (self.dir.clone(), Arc::clone(&self.load));
        let (observed, served) = (self.observed.clone(), self.served.clone());
        let patient = self.hollow_since.is_none_or(|since| since.elapsed() < PATIENCE);
        let look = tokio::task::spawn_blocking(move || look(&dir, &*load, (&observed, &served), patient)).await;
        let Ok(look) = look else {
            let reason = "reading it ended in a defect of the control plane: report it with the log";
            self.refuse(vec![self.problem(reason)], "");
            self.observed.clear();
            return false;
        };
        // Events come a moment after what they tell of.
        let busy = look.loaded.is_some() && self.events.busy().is_some();
        self.busy_since = busy.then(|| self.busy_since.unwrap_or_else(Instant::now));
        if self.busy_since.is_some_and(|since| since.elapsed() < PATIENCE) {
            return true;
        }
        self.hollow_since = look.scan.hollow.then(|| self.hollow_since.unwrap_or_else(Instant::now));
        let directories_differ = self.last.as_ref().is_none_or(|last| last.directories != look.scan.directories);
        if directories_differ && self.last.is_some() {
            // A link now leads elsewhere, or a directory came or went. The new watches may have missed something.
            self.watch();
        }
        self.last = Some(look.scan);
        match look.loaded {
            None if look.content == self.served && look.content != self.observed => {
                tracing::info!(content = %look.content, "configuration is back at what is served");
                self.status.update_config(|config| {
                    config.observed.clone_from(&look.content);
                    config.problems.clear();
                });
            }
            None => {}
            Some(Ok(loaded)) if loaded.empty && self.filled => {
                let reason = "holds no documents any more, and without any there are no policies: if this is meant, \
                              leave one document in it (a v1 Namespace will do), or restart the control plane";
                self.refuse(vec![self.problem(reason)], &look.content);
            }
            Some(Ok(loaded)) => self.publish(loaded, &look.content, look.took),
            Some(Err(problems)) => self.refuse(problems, &look.content),
        }
        self.observed = look.content;
        look.restless || (directories_differ && self.version > 1)
    }

    fn problem(&self, reason: &str) -> Problem {
        Problem { file: self.dir.clone(), document: 0, path: "(directory)".to_owned(), reason: reason.to_owned() }
    }

    fn publish(&mut self, loaded: Loaded, content: &str, took: Duration) {
        self.version += 1;
        content.clone_into(&mut self.served);
        self.status.metrics.loaded(true);
        self.status.update_config(|config| {
            config.version = self.version;
            content.clone_into(&mut config.served);
            content.clone_into(&mut config.observed);
            config.problems.clear();
            config.loaded_at = Some(SystemTime::now());
        });
        tracing::info!(version = self.version, content, ?took, "configuration loaded");
        let Loaded { generate, limits, empty } = loaded;
        self.filled = !empty;
        let generation = Generation::with_limits(self.version, content.to_owned(), limits, generate);
        self.publisher.send_replace(Some(generation));
    }

    fn refuse(&self, problems: Vec<Problem>, content: &str) {
        for problem in &problems {
            tracing::error!(
                file = %problem.file.display(), document = problem.document, path = %problem.path,
                reason = %problem.reason, "configuration refused"
            );
        }
        tracing::error!(problems = problems.len(), serving = self.version, "the last good configuration stays");
        self.status.metrics.loaded(false);
        self.status.update_config(|config| {
            content.clone_into(&mut config.observed);
            config.problems = problems;
        });
    }
}

/// With `patient` a file that holds nothing counts as one that is about to be written.
fn look(dir: &Path, load: &Load, (observed, served): (&str, &str), patient: bool) -> Look {
    let start = Instant::now();
    let mut scan = Scan::of(dir);
    if scan.hollow && patient {
        return Look { scan, content: observed.to_owned(), loaded: None, restless: true, took: start.elapsed() };
    }
    let mut content = scan.content(dir);
    for _ in 0..MAX_REPEATS {
        if content == observed || content == served {
            return Look { scan, content, loaded: None, restless: false, took: start.elapsed() };
        }
        let loaded = load(dir);
        let (scan_after, content_after) = {
            let scan = Scan::of(dir);
            let content = scan.content(dir);
            (scan, content)
        };
        let still = content_after == content && !(scan_after.hollow && patient);
        (scan, content) = (scan_after, content_after);
        if still {
            return Look { scan, content, loaded: Some(loaded), restless: false, took: start.elapsed() };
        }
    }
    // Never two looks alike: what is served stays until it holds still.
    Look { scan, content: observed.to_owned(), loaded: None, restless: true, took: start.elapsed() }
}
