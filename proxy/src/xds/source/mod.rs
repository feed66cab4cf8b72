//! The filesystem source (`path_config_source`): a file with a `DiscoveryResponse`, applied again whenever it is replaced.
//!
//! [`parse`] reads content, [`watch`] notices replacement; this file ties both to the driver. The invariant: a file
//! that cannot be read changes nothing, and a resource in it that is bad changes only itself.

mod parse;
#[cfg(test)]
mod tests;
mod watch;

use std::{path::PathBuf, sync::Arc};

use tokio::sync::{mpsc, oneshot, watch::Receiver};

use super::{
    client::{Interests, Item, Update},
    driver::{Event, Report},
};
use crate::ir::ConfigSource;

/// One watched file.
#[derive(Debug)]
pub struct File {
    /// In status and logs.
    pub label: Arc<str>,
    pub path: PathBuf,
    pub watched_directory: Option<PathBuf>,
    pub source: ConfigSource,
    pub interests: Receiver<Arc<Interests>>,
    pub(in crate::xds) events: mpsc::Sender<Event>,
}

impl File {
    /// Runs until the driver is gone; cancel safe.
    pub async fn run(mut self) {
        let mut watch = watch::Watch::new(&self.path, self.watched_directory.as_deref());
        if let Some(error) = watch.degraded() {
            tracing::warn!(path = %self.path.display(), error, "no change notification, falling back to polling");
        }
        loop {
            let interests = Arc::clone(&self.interests.borrow_and_update());
            if self.load(&interests).await.is_err() {
                return;
            }
            tokio::select! {
                changed = self.interests.changed() => if changed.is_err() { return },
                () = watch.changed() => {}
            }
        }
    }

    /// Reads and applies the file; `Err` when the driver is gone.
    async fn load(&self, interests: &Interests) -> Result<(), ()> {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || parse::read(&path)).await;
        let document = match read.map_err(|e| e.to_string()).and_then(|parsed| parsed) {
            Ok(document) => document,
            Err(reason) => {
                tracing::warn!(path = %self.path.display(), reason, "configuration file not used");
                return self.report(Report::Failed(reason)).await;
            }
        };
        let mut errors = Vec::new();
        for update in split(document, interests) {
            let (reply, verdict) = oneshot::channel();
            let event = Event::Update { source: self.source.clone(), update, reply };
            self.events.send(event).await.map_err(drop)?;
            errors.extend(verdict.await.map_err(drop)?);
        }
        let report = if errors.is_empty() { Report::Connected } else { Report::Failed(errors.join("\n")) };
        self.report(report).await
    }

    async fn report(&self, report: Report) -> Result<(), ()> {
        self.events.send(Event::Report { label: Arc::clone(&self.label), report }).await.map_err(drop)
    }
}

/// One update per subscribed type. What no subscription claims goes to the first, which will refuse it by name.
fn split(document: parse::Document, interests: &Interests) -> Vec<Update> {
    let mut updates: Vec<Update> = interests
        .keys()
        .map(|kind| Update {
            kind: *kind,
            full: true,
            version: document.version.clone(),
            nonce: String::new(),
            items: Vec::new(),
            removed: Vec::new(),
        })
        .collect();
    for item in document.items {
        let url = item.body.as_ref().map(|b| b.type_url.as_str());
        let claimed = updates.iter().position(|u| url == Some(u.kind.type_url())).unwrap_or(0);
        if let Some(update) = updates.get_mut(claimed) {
            update.items.push(item);
        }
    }
    updates
}

/// A resource that could not be read, under the name it seems to have.
fn unreadable(name: String, reason: String) -> Item {
    Item { name, version: String::new(), body: None, ttl: None, error: Some(reason) }
}
