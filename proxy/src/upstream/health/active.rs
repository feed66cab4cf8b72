//! The active checks of one cluster: a task for each host that waits, checks, marks the endpoint, and says what changed.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use http::HeaderValue;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::sleep,
};

use super::{
    probe::{Kept, Target, probe},
    state::{Outcome, State, Transition, jitter, wait},
};
use crate::{
    ir::health_check::{EndpointCheck, HealthCheck, Probe},
    upstream::{Cluster, Endpoint, HealthFlag, connect::Detour, uptime},
};

/// What a check tells the keeper.
pub(super) struct Checked {
    pub(super) cluster: u64,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) changed: bool,
    /// The host is well, as far as checks go.
    pub(super) passed: bool,
}

/// Checks under way at once over all clusters.
pub(super) const AT_ONCE: usize = 1024;

/// Checks under way at once of one cluster: hosts that do not answer delay no others than their own.
const AT_ONCE_PER_CLUSTER: usize = 128;

/// What tasks share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) results: mpsc::UnboundedSender<Checked>,
    pub(super) slots: Arc<Semaphore>,
}

struct Task {
    /// Keeps the address, which is the key, from being used again.
    _endpoint: Arc<Endpoint>,
    check: Option<Arc<EndpointCheck>>,
    handle: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// The checks of one cluster.
pub(super) struct Active {
    /// By the address of the endpoint.
    tasks: HashMap<usize, Task>,
    slots: Arc<Semaphore>,
    config: Option<Arc<crate::ir::cluster::Cluster>>,
    turn: Option<u64>,
}

impl Default for Active {
    fn default() -> Self {
        let slots = Arc::new(Semaphore::new(AT_ONCE_PER_CLUSTER));
        Self { tasks: HashMap::new(), slots, config: None, turn: None }
    }
}

impl Active {
    /// Checks the hosts that the cluster has now.
    pub(super) fn sync(&mut self, cluster: &Arc<Cluster>, shared: &Shared) {
        if cluster.config.check().is_none() {
            self.tasks.clear();
            (self.config, self.turn) = (None, None);
            return;
        }
        if self.config.as_ref().is_none_or(|c| !Arc::ptr_eq(c, &cluster.config)) {
            // Others than before: what they found stays with the endpoints.
            self.tasks.clear();
            self.turn = None;
            self.config = Some(cluster.config.clone());
        }
        let Some((parts, turn)) = cluster.latest() else { return };
        if self.turn == Some(turn) {
            return;
        }
        self.turn = Some(turn);
        let mut before = std::mem::take(&mut self.tasks);
        for (member, check) in parts.checks() {
            if !member.endpoint.has_flag(HealthFlag::ActivelyChecked) {
                continue;
            }
            let key = Arc::as_ptr(&member.endpoint).addr();
            let known = before.remove(&key).filter(|task| task.check.as_ref() == check);
            let task = known.unwrap_or_else(|| start(cluster, &member.endpoint, check, (shared, &self.slots)));
            self.tasks.insert(key, task);
        }
    }
}

fn start(
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    check: Option<&Arc<EndpointCheck>>,
    (shared, slots): (&Shared, &Arc<Semaphore>),
) -> Task {
    let run = run(cluster.clone(), endpoint.clone(), check.cloned(), (shared.clone(), slots.clone()));
    Task { _endpoint: endpoint.clone(), check: check.cloned(), handle: tokio::spawn(run) }
}

fn target(
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    check: &HealthCheck,
    own: Option<&EndpointCheck>,
) -> Target {
    let configured = match &check.probe {
        Probe::Http(probe) => &*probe.host,
        Probe::Grpc(probe) => &*probe.authority,
        Probe::Tcp(_) => "",
    };
    let hosts = [own.map_or("", |c| &c.hostname), configured, &cluster.config.name];
    let host = hosts.into_iter().find(|h| !h.is_empty()).and_then(|h| HeaderValue::from_str(h).ok());
    let transports = &cluster.parts().transports;
    let transport = check.transport.as_deref().map(|m| transports.select(Some(m)).map(|t| t.context.clone()));
    Target {
        cluster: cluster.clone(),
        endpoint: endpoint.clone(),
        detour: Detour { address: own.and_then(|c| c.address), port: own.and_then(|c| c.port), transport },
        host: host.unwrap_or_else(|| HeaderValue::from_static("health-check")),
        stats: cluster.check_stats(),
    }
}

async fn run(
    cluster: Arc<Cluster>,
    endpoint: Arc<Endpoint>,
    own: Option<Arc<EndpointCheck>>,
    (shared, slots): (Shared, Arc<Semaphore>),
) {
    let Some(check) = cluster.config.check() else { return };
    let target = target(&cluster, &endpoint, check, own.as_deref());
    let first = endpoint.has_flag(HealthFlag::PendingActiveCheck);
    let mut state = State::new(!endpoint.has_flag(HealthFlag::FailedActiveCheck), first);
    state.degraded = endpoint.has_flag(HealthFlag::DegradedActiveCheck);
    let mut kept = Kept::default();
    sleep(jitter(check.pace.initial_jitter, fastrand::u64(..))).await;
    loop {
        let (Ok(own_slot), Ok(slot)) = (slots.acquire().await, shared.slots.acquire().await) else { return };
        target.stats.attempted();
        let outcome = probe(&target, check, &mut kept).await;
        drop((own_slot, slot));
        if !endpoint.has_flag(HealthFlag::ActivelyChecked) {
            // Since a moment ago the host is not to be checked: what was found must not stick to it.
            return;
        }
        target.stats.ended(&outcome);
        // The host may have said in between that it wants no traffic.
        state.healthy &= !endpoint.has_flag(HealthFlag::FailedActiveCheck);
        let was = state;
        let transition = state.learn(check, &outcome);
        log(&cluster, &endpoint, check, &outcome, (was, state));
        mark(&endpoint, &state);
        let passed = matches!(outcome, Outcome::Passed { .. });
        let changed = transition == Transition::Changed;
        if changed || passed {
            let told =
                Checked { cluster: cluster.id(), endpoint: endpoint.clone(), changed, passed: passed && state.healthy };
            if shared.results.send(told).is_err() {
                return;
            }
        }
        let traffic = cluster.has_traffic() || endpoint.cx_active.load(Relaxed) > 0;
        sleep(wait(&check.pace, passed, transition, traffic, || fastrand::u64(..))).await;
    }
}

fn mark(endpoint: &Endpoint, state: &State) {
    if state.healthy && endpoint.has_flag(HealthFlag::FailedActiveCheck) {
        // It takes traffic again from now on: slow start counts from here.
        endpoint.begins(uptime());
    }
    endpoint.set_flag(HealthFlag::FailedActiveCheck, !state.healthy);
    endpoint.set_flag(HealthFlag::DegradedActiveCheck, state.degraded);
    endpoint.set_flag(HealthFlag::PendingActiveCheck, state.first);
    endpoint.set_flag(HealthFlag::ActiveCheckTimeout, state.timed_out);
}

fn log(cluster: &Cluster, endpoint: &Endpoint, check: &HealthCheck, outcome: &Outcome, (was, is): (State, State)) {
    let (cluster, host) = (&cluster.config.name, &endpoint.label);
    match outcome {
        Outcome::Passed { .. } if is.healthy && !was.healthy => {
            tracing::info!(%cluster, %host, first = was.first, "the host passes its health checks");
        }
        Outcome::Passed { .. } if check.always_log_successes => tracing::info!(%cluster, %host, "health check passed"),
        Outcome::Passed { .. } => {}
        Outcome::Failed { reason, fault } if was.healthy != is.healthy => {
            tracing::warn!(%cluster, %host, reason, ?fault, "the host fails its health checks");
        }
        Outcome::Failed { reason, fault } if was.first || check.always_log_failures => {
            tracing::info!(%cluster, %host, reason, ?fault, "health check failed");
        }
        Outcome::Failed { reason, fault } => tracing::debug!(%cluster, %host, reason, ?fault, "health check failed"),
    }
}

#[cfg(test)]
#[path = "active_tests.rs"]
mod tests;
