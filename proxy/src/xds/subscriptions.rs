//! The running sources: one task per aggregated stream, separate stream or file, started and ended as wanted.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    client::{Interest, Interests, delta::Delta, grpc::Dialer, sotw::Sotw, stream::Stream},
    config::{AdsConfig, StartConfig},
    driver::Event,
    kind::Kind,
    source,
    store::Subscriptions,
};
use crate::ir::ConfigSource;

/// A source, and for separate streams the type it carries.
type Key = (ConfigSource, Option<Kind>);

/// The running sources.
#[derive(Debug)]
pub(super) struct Sources {
    node: outrigger_wire::pb::envoy::config::core::v3::Node,
    ads: Option<AdsConfig>,
    dialer: Arc<Dialer>,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
    running: BTreeMap<Key, Running>,
    steered: Option<Arc<Subscriptions>>,
}

#[derive(Debug)]
struct Running {
    label: Arc<str>,
    interests: watch::Sender<Arc<Interests>>,
    stop: CancellationToken,
    /// Why it cannot run at all.
    impossible: Option<&'static str>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Sources {
    pub(super) fn new(
        config: &StartConfig,
        dialer: Arc<Dialer>,
        events: mpsc::Sender<Event>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            node: config.node.clone(),
            ads: config.ads.clone(),
            dialer,
            events,
            stop,
            running: BTreeMap::new(),
            steered: None,
        }
    }

    /// Makes the sources subscribe to exactly `wanted`. Returns whether anything changed.
    pub(super) fn steer(&mut self, wanted: &Arc<Subscriptions>) -> bool {
        if self.steered.as_ref().is_some_and(|s| Arc::ptr_eq(s, wanted)) {
            return false;
        }
        self.steered = Some(Arc::clone(wanted));
        let mut interests: BTreeMap<Key, Interests> = BTreeMap::new();
        for ((source, kind), wanted) in wanted.iter() {
            let key = match source {
                ConfigSource::Grpc { .. } => (source.clone(), Some(*kind)),
                _ => (source.clone(), None),
            };
            let interest = if wanted.wildcard { Interest::Wildcard } else { Interest::Names(wanted.names.clone()) };
            interests.entry(key).or_default().insert(*kind, interest);
        }
        // The aggregated stream stays up between subscriptions; separate ones end with their last reference.
        self.running.retain(|key, running| {
            let keep = interests.contains_key(key) || key.0 == ConfigSource::Ads;
            if keep && !interests.contains_key(key) {
                running.interests.send_replace(Arc::default());
            }
            keep
        });
        for (key, interests) in interests {
            let interests = Arc::new(interests);
            match self.running.get(&key) {
                Some(running) => {
                    running.interests.send_if_modified(|held| {
                        let changed = *held != interests;
                        *held = interests;
                        changed
                    });
                }
                None => {
                    let running = self.start(&key, interests);
                    self.running.insert(key, running);
                }
            }
        }
        true
    }

    fn start(&self, key: &Key, interests: Arc<Interests>) -> Running {
        let (sender, interests) = watch::channel(interests);
        let stop = self.stop.child_token();
        let running = |label: String, impossible| Running {
            label: label.into(),
            interests: sender,
            stop: stop.clone(),
            impossible,
        };
        let (cluster, delta, label, ads) = match (&key.0, &self.ads) {
            (ConfigSource::Ads, Some(ads)) => {
                (ads.cluster.clone(), ads.delta, format!("ads:{}", ads.cluster), Some(ads))
            }
            (ConfigSource::Grpc { cluster, delta }, _) => {
                let kind = key.1.map_or("", Kind::as_str);
                (cluster.clone(), *delta, format!("grpc:{cluster}/{kind}"), None)
            }
            (ConfigSource::Path { path, watched_directory }, _) => {
                let running = running(format!("path:{path}"), None);
                let file = source::File {
                    label: Arc::clone(&running.label),
                    path: path.into(),
                    watched_directory: watched_directory.as_ref().map(Into::into),
                    source: key.0.clone(),
                    interests,
                    events: self.events.clone(),
                };
                tokio::spawn(stop.run_until_cancelled_owned(file.run()));
                return running;
            }
            (ConfigSource::Ads | ConfigSource::SelfSource | ConfigSource::Static, _) => {
                let reason = "resources refer to the aggregated stream, but the bootstrap has no ads_config";
                tracing::error!("{reason}");
                return running("ads".to_owned(), Some(reason));
            }
        };
        let running = running(label, None);
        let stream = Stream {
            label: Arc::clone(&running.label),
            source: key.0.clone(),
            kind: key.1,
            cluster,
            authority: ads.and_then(|ads| ads.authority.clone()),
            metadata: ads.map(|ads| ads.metadata.clone()).unwrap_or_default(),
            dialer: Arc::clone(&self.dialer),
            interests,
            events: self.events.clone(),
        };
        let node = self.node.clone();
        if delta {
            tokio::spawn(stop.run_until_cancelled_owned(stream.run(Delta::new(node))));
        } else {
            tokio::spawn(stop.run_until_cancelled_owned(stream.run(Sotw::new(node))));
        }
        running
    }

    pub(super) fn labels(&self) -> impl Iterator<Item = &str> {
        self.running.values().map(|r| &*r.label)
    }

    /// Sources that cannot run, with the reason.
    pub(super) fn impossible(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.running.values().filter_map(|r| Some((&*r.label, r.impossible?)))
    }

    /// The types that the source of this label carries.
    pub(super) fn kinds(&self, label: &str) -> Vec<Kind> {
        let running = self.running.values().find(|r| *r.label == *label);
        running.map(|r| r.interests.borrow().keys().copied().collect()).unwrap_or_default()
    }
}
