//! The loop that keeps watch over all clusters: alarms, intervals, and what of it is published.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    active::{AT_ONCE, Active, Checked, Shared},
    passive::Passive,
};
use crate::{
    ir::Name,
    upstream::{
        Cluster, HealthFlag,
        cluster::{Alarm, Alarms},
        outlier::Monitor,
    },
};

/// Publications follow each other no faster: hosts often fail together, and one serves them all.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// Alarms heard before what they changed is published.
const BUNCH: usize = 256;

/// Takes the names of clusters that are to be published anew.
type Publish = Box<dyn Fn(Vec<Name>) + Send + Sync>;

/// Keeps watch over the hosts' health; dropping it ends that.
pub struct Keeper {
    orders: mpsc::UnboundedSender<Option<Vec<Arc<Cluster>>>>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Starts without clusters. To be called within a tokio runtime.
    pub fn start(publish: impl Fn(Vec<Name>) + Send + Sync + 'static) -> Self {
        let (orders, inbox) = mpsc::unbounded_channel();
        let (alarms, heard) = mpsc::unbounded_channel();
        let (results, checked) = mpsc::unbounded_channel();
        let watch = Watch {
            publish: Box::new(publish),
            alarms,
            checks: Shared { results, slots: Arc::new(Semaphore::new(AT_ONCE)) },
            kept: HashMap::new(),
            due: BinaryHeap::new(),
            changed: HashSet::new(),
            published: None,
        };
        Self { orders, task: tokio::spawn(watch.run(inbox, heard, checked)) }
    }

    /// Watches over `clusters` from now on, as far as they are configured so, and over no others.
    pub fn set<'a>(&self, clusters: impl Iterator<Item = &'a Arc<Cluster>>) {
        let watched = clusters.filter(|c| c.config.health.is_some()).cloned().collect();
        // The task ends with this object only.
        let _ = self.orders.send(Some(watched));
    }

    /// Takes note that hosts may have come or gone.
    pub fn refresh(&self) {
        let _ = self.orders.send(None);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Kept {
    cluster: Arc<Cluster>,
    passive: Option<Passive>,
    active: Active,
    /// When its interval ends; what the heap says otherwise is out of date.
    due: Option<Instant>,
}

struct Watch {
    publish: Publish,
    alarms: Alarms,
    checks: Shared,
    /// By the clusters' identity.
    kept: HashMap<u64, Kept>,
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    changed: HashSet<Name>,
    published: Option<Instant>,
}

impl Watch {
    async fn run(
        mut self,
        mut orders: mpsc::UnboundedReceiver<Option<Vec<Arc<Cluster>>>>,
        mut heard: mpsc::UnboundedReceiver<Alarm>,
        mut checked: mpsc::UnboundedReceiver<Checked>,
    ) {
        let mut bunch = Vec::with_capacity(BUNCH);
        loop {
            let interval = self.due.peek().map(|Reverse((at, _))| *at);
            let flush = (!self.changed.is_empty()).then(|| self.published.map_or(Instant::now(), |p| p + DEBOUNCE));
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Some(clusters)) => self.set(clusters),
                    Some(None) => {
                        self.kept.values_mut().for_each(|kept| kept.active.sync(&kept.cluster, &self.checks));
                    }
                    None => return,
                },
                Some(result) = checked.recv() => self.checked(&result),
                _ = heard.recv_many(&mut bunch, BUNCH) => {
                    bunch.drain(..).for_each(|alarm| self.heard(&alarm));
                }
                () = at(interval) => self.intervals(Instant::now()),
                () = at(flush) => self.flush(),
            }
        }
    }

    fn set(&mut self, clusters: Vec<Arc<Cluster>>) {
        let mut before = std::mem::take(&mut self.kept);
        for cluster in clusters {
            let id = cluster.id();
            let known = before.remove(&id);
            let mut kept = known.unwrap_or_else(|| Kept {
                cluster: cluster.clone(),
                passive: None,
                active: Active::default(),
                due: None,
            });
            kept.cluster = cluster;
            self.configure(id, &mut kept);
            self.kept.insert(id, kept);
        }
        for mut gone in before.into_values() {
            self.end(&mut gone);
        }
    }

    fn configure(&mut self, id: u64, kept: &mut Kept) {
        kept.active.sync(&kept.cluster, &self.checks);
        kept.cluster.watch(&self.alarms);
        match kept.cluster.config.outlier() {
            Some(config) => {
                if kept.passive.is_none() {
                    kept.passive = Some(Passive::new(&kept.cluster));
                    self.schedule(id, kept, config.interval);
                }
            }
            None => self.end(kept),
        }
    }

    /// Ends outlier detection of a cluster.
    fn end(&mut self, kept: &mut Kept) {
        kept.due = None;
        if let Some(mut passive) = kept.passive.take()
            && passive.end(&kept.cluster)
        {
            self.changed.insert(kept.cluster.config.name.clone());
        }
    }

    fn schedule(&mut self, id: u64, kept: &mut Kept, interval: Duration) {
        let at = Instant::now() + interval;
        kept.due = Some(at);
        self.due.push(Reverse((at, id)));
    }

    fn heard(&mut self, alarm: &Alarm) {
        let deaf = || {
            let _ = alarm.endpoint.monitor_if_used().map(Monitor::take_raised);
        };
        let Some(kept) = self.kept.get_mut(&alarm.cluster) else { return deaf() };
        if alarm.endpoint.has_flag(HealthFlag::ActivelyChecked)
            && alarm.endpoint.has_flag(HealthFlag::FailedActiveCheck)
        {
            self.changed.insert(kept.cluster.config.name.clone());
        }
        let (Some(config), Some(passive)) = (kept.cluster.config.outlier(), &mut kept.passive) else { return deaf() };
        if passive.heard(&kept.cluster, config, &alarm.endpoint) {
            self.changed.insert(kept.cluster.config.name.clone());
        }
    }

    fn checked(&mut self, result: &Checked) {
        let Some(kept) = self.kept.get_mut(&result.cluster) else { return };
        let mut changed = result.changed;
        if result.passed
            && let (Some(config), Some(passive)) = (kept.cluster.config.outlier(), &mut kept.passive)
            && result.endpoint.has_flag(HealthFlag::FailedOutlierCheck)
        {
            changed |= passive.passed_check(&kept.cluster, config, &result.endpoint);
        }
        if changed {
            self.changed.insert(kept.cluster.config.name.clone());
        }
    }

    fn intervals(&mut self, now: Instant) {
        while let Some(Reverse((at, id))) = self.due.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            self.due.pop();
            let Some(mut kept) = self.kept.remove(&id) else { continue };
            let cluster = kept.cluster.clone();
            if kept.due == Some(at)
                && let (Some(config), Some(passive)) = (cluster.config.outlier(), &mut kept.passive)
            {
                if passive.interval(&cluster, config) {
                    self.changed.insert(cluster.config.name.clone());
                }
                self.schedule(id, &mut kept, config.interval);
            }
            self.kept.insert(id, kept);
        }
    }

    fn flush(&mut self) {
        self.published = Some(Instant::now());
        (self.publish)(self.changed.drain().collect());
    }
}

/// Waits until `due`, for ever without.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
