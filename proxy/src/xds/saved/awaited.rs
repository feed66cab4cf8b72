//! What the control planes said of the types that only they can give: whether, and when last. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant, SystemTime},
};

use super::super::{config::StartConfig, kind::Kind, store::Now};
use crate::ir::ConfigSource;

/// A stream that fails once may come up a moment later.
const FAILURES: u32 = 2;
/// A stream that failed and has not come back by then counts as away.
const AGAIN: Duration = Duration::from_secs(2);

/// LDS and CDS, as far as a control plane delivers them.
#[derive(Debug)]
pub(super) struct Awaited(BTreeMap<Kind, Word>);

#[derive(Debug)]
struct Word {
    source: ConfigSource,
    /// Of its stream, in reports.
    label: String,
    connected: bool,
    /// Something of it was taken over since the start.
    heard: bool,
    /// While nothing was heard.
    failures: u32,
    failed_since: Option<Instant>,
    last: Option<SystemTime>,
}

impl Awaited {
    pub(super) fn new(config: &StartConfig) -> Self {
        let kinds = [(Kind::Cluster, &config.cds), (Kind::Listener, &config.lds)];
        let words = kinds.into_iter().filter_map(|(kind, source)| {
            let (source, label) = match source.as_ref()? {
                ConfigSource::Ads | ConfigSource::SelfSource => {
                    (ConfigSource::Ads, format!("ads:{}", config.ads.as_ref().map_or("", |ads| &ads.cluster)))
                }
                source @ ConfigSource::Grpc { cluster, .. } => (source.clone(), format!("grpc:{cluster}/{kind}")),
                ConfigSource::Static | ConfigSource::Path { .. } => return None,
            };
            let (connected, heard, failures) = (false, false, 0);
            let word = Word { source, label, connected, heard, failures, failed_since: None, last: None };
            Some((kind, word))
        });
        Self(words.collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all types were delivered since the start.
    pub(super) fn is_confirmed(&self) -> bool {
        self.0.values().all(|word| word.heard)
    }

    /// The types that nobody delivered since the start.
    pub(super) fn missing(&self) -> BTreeSet<Kind> {
        self.0.iter().filter(|(_, word)| !word.heard).map(|(kind, _)| *kind).collect()
    }

    pub(super) fn connected(&mut self, label: &str, now: Now) {
        for word in self.0.values_mut().filter(|word| word.label == label) {
            (word.connected, word.last) = (true, Some(now.wall));
        }
    }

    /// Returns when there is no use any more in waiting for what was not delivered.
    pub(super) fn failed(&mut self, label: &str, now: Now) -> Option<Instant> {
        let mut given_up = None;
        for word in self.0.values_mut().filter(|word| word.label == label) {
            if word.connected {
                // Until now it would have said so if anything had changed.
                (word.connected, word.last) = (false, Some(now.wall));
            }
            if !word.heard {
                word.failures += 1;
                let since = *word.failed_since.get_or_insert(now.mono);
                let at = if word.failures >= FAILURES { now.mono } else { since + AGAIN };
                given_up = Some(given_up.map_or(at, |other: Instant| other.min(at)));
            }
        }
        given_up
    }

    /// A source delivered something of a type; `taken`: and not all of it was refused. True when with that all types
    /// are there for the first time.
    pub(super) fn delivered(&mut self, source: &ConfigSource, kind: Kind, taken: bool, now: Now) -> bool {
        let before = self.is_confirmed();
        for (of, word) in self.0.iter_mut().filter(|(of, word)| {
            // A stream of its own speaks for its type only.
            word.source == *source && (*source == ConfigSource::Ads || **of == kind)
        }) {
            word.last = Some(now.wall);
            word.heard |= taken && *of == kind;
        }
        !before && self.is_confirmed()
    }

    /// When all of it was confirmed last; `None` while some of it never was.
    pub(super) fn last_word(&self, now: SystemTime) -> Option<SystemTime> {
        let words = self.0.values().map(|word| if word.connected { Some(now) } else { word.last });
        words.min().flatten()
    }

    pub(super) fn are_connected(&self) -> bool {
        self.0.values().all(|word| word.connected)
    }
}
