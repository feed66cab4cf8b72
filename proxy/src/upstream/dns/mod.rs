//! Name resolution for STRICT_DNS and LOGICAL_DNS clusters, on the control thread.
//!
//! Owns when names are resolved: at once, then by rate or TTL with jitter, after failures with exponential backoff. What
//! the answers mean for a cluster is [`plan`]'s; how a name is resolved is behind [`Resolve`]. Invariant: a failed
//! lookup never takes addresses away, only an answer without addresses does, given twice.

mod plan;
mod system;

pub use system::SystemResolver;

use std::{
    collections::{HashMap, HashSet},
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use self::plan::Answers;
use super::Cluster;
use crate::{
    ir::{
        Name,
        cluster::{Discovery, DnsOptions, LookupFamily},
        endpoint::Assignment,
    },
    telemetry::metrics::{ClusterStats, Sharded},
};

/// Longest wait for one answer; a resolver that hangs counts as failed.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);
/// First wait after a failure; doubles up to the refresh rate.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// A record that says it is valid for no time is still not asked for more often.
const MIN_REFRESH: Duration = Duration::from_millis(1000);

/// What a name stands for. No addresses is an answer, too: the name has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub addresses: Vec<IpAddr>,
    /// How long the answer may be used, if the source says so.
    pub ttl: Option<Duration>,
}

/// A future that a [`Resolve`] returns.
pub type Lookup<'a> = Pin<Box<dyn Future<Output = Result<Answer, String>> + Send + 'a>>;

/// Turns a name into addresses.
pub trait Resolve: Send + Sync + 'static {
    fn resolve<'a>(&'a self, host: &'a str, family: LookupFamily) -> Lookup<'a>;
}

/// Takes the endpoints of a DNS cluster whenever they change, and once after the first round even when it failed.
pub type Publish = Arc<dyn Fn(Name, Arc<Assignment>) + Send + Sync>;

/// Keeps all DNS clusters resolved; dropping it stops that.
pub struct Watcher {
    resolver: Arc<dyn Resolve>,
    publish: Publish,
    running: HashMap<Name, Running>,
}

struct Running {
    discovery: Discovery,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watcher {
    pub fn new(resolver: Arc<dyn Resolve>, publish: Publish) -> Self {
        Self { resolver, publish, running: HashMap::new() }
    }

    /// Resolves the names of `clusters` from now on, and of no others. Clusters whose names and options stay the same
    /// go on undisturbed. To be called within a tokio runtime.
    pub fn set<'a>(&mut self, clusters: impl IntoIterator<Item = &'a Arc<Cluster>>) {
        let mut wanted = HashSet::new();
        for cluster in clusters {
            let (template, options, logical) = match &cluster.config.discovery {
                Discovery::StrictDns(template, options) => (template, options, false),
                Discovery::LogicalDns(template, options) => (template, options, true),
                Discovery::Static(_) | Discovery::Eds { .. } | Discovery::OriginalDst { .. } => continue,
            };
            let name = cluster.config.name.clone();
            wanted.insert(name.clone());
            if self.running.get(&name).is_some_and(|r| r.discovery == cluster.config.discovery) {
                continue;
            }
            let job = Job {
                name: name.clone(),
                template: template.clone(),
                options: options.clone(),
                logical,
                resolver: self.resolver.clone(),
                publish: self.publish.clone(),
                stats: cluster.stats.clone(),
            };
            let running = Running { discovery: cluster.config.discovery.clone(), task: tokio::spawn(job.run()) };
            self.running.insert(name, running);
        }
        self.running.retain(|name, _| wanted.contains(name));
    }
}

/// The resolution of one cluster.
struct Job {
    name: Name,
    template: Arc<Assignment>,
    options: DnsOptions,
    logical: bool,
    resolver: Arc<dyn Resolve>,
    publish: Publish,
    stats: Arc<Sharded<ClusterStats>>,
}

/// When a name is to be resolved next.
struct Schedule {
    host: Name,
    due: Instant,
    failures: u32,
    /// The last answer had no address.
    empty: bool,
}

impl Job {
    async fn run(self) {
        let now = Instant::now();
        let mut schedules: Vec<_> = plan::names(&self.template)
            .into_iter()
            .map(|host| Schedule { host, due: now, failures: 0, empty: false })
            .collect();
        let mut answers = Answers::default();
        let mut published: Option<Arc<Assignment>> = None;
        loop {
            let now = Instant::now();
            let due: Vec<usize> = (0..schedules.len()).filter(|i| schedules[*i].due <= now).collect();
            let lookups = join_all(due.iter().map(|i| self.lookup(&schedules[*i].host))).await;
            for (index, result) in due.into_iter().zip(lookups) {
                let schedule = &mut schedules[index];
                let wait = self.learn(schedule, result, &mut answers);
                // Up to a tenth later, so the proxies of a mesh do not ask in step.
                schedule.due = Instant::now() + wait + wait.mul_f64(fastrand::f64() / 10.0);
            }
            let assignment = plan::assignment(&self.template, &answers, self.logical);
            if published.as_deref() != Some(&assignment) {
                let assignment = Arc::new(assignment);
                published = Some(assignment.clone());
                (self.publish)(self.name.clone(), assignment);
            }
            match schedules.iter().map(|s| s.due).min() {
                Some(due) => sleep_until(due).await,
                // Addresses only: nothing will ever change.
                None => return,
            }
        }
    }

    async fn lookup(&self, host: &str) -> Result<Answer, String> {
        self.stats.local().update_attempt.inc();
        let lookup = self.resolver.resolve(host, self.options.family);
        timeout(LOOKUP_TIMEOUT, lookup).await.unwrap_or_else(|_| Err("the lookup timed out".to_owned()))
    }

    /// Takes a lookup's result in and says how long to wait for the next.
    fn learn(&self, schedule: &mut Schedule, result: Result<Answer, String>, answers: &mut Answers) -> Duration {
        let stats = self.stats.local();
        match result {
            Ok(answer) => {
                schedule.failures = 0;
                stats.update_success.inc();
                if answer.addresses.is_empty() {
                    stats.update_empty.inc();
                    // A server that fails for one search domain and denies the next looks the same: ask again before
                    // addresses in use are taken away.
                    if !std::mem::replace(&mut schedule.empty, true) {
                        return FIRST_RETRY.min(self.options.refresh_rate);
                    }
                } else {
                    schedule.empty = false;
                }
                let ttl = answer.ttl.filter(|_| self.options.respect_ttl).map(|ttl| ttl.max(MIN_REFRESH));
                // As in Envoy a logical cluster keeps its address when the name has none any more.
                if !(self.logical && answer.addresses.is_empty()) {
                    answers.set(schedule.host.clone(), answer.addresses, self.logical);
                }
                ttl.unwrap_or(self.options.refresh_rate)
            }
            Err(error) => {
                stats.update_failure.inc();
                tracing::debug!(cluster = %self.name, host = %schedule.host, error, "name resolution failed");
                let wait = FIRST_RETRY.saturating_mul(1 << schedule.failures.min(10));
                schedule.failures += 1;
                wait.min(self.options.refresh_rate)
            }
        }
    }
}

#[cfg(test)]
mod tests;
