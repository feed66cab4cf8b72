//! The admin interface, in the shape Envoy's users know, and the status port for probes and scrapes.
//!
//! Runs on the control thread and only reads: snapshots, statistics blocks, the subscription's status. The few calls
//! that change something (`POST` only) leave as a [`Request`] or a log level.

mod application;
mod body;
mod clusters;
mod explain;
#[cfg(test)]
mod explain_tests;
mod exposition;
#[cfg(test)]
mod faces_tests;
mod foreign;
mod help;
mod http;
mod info;
mod logging;
mod origin;
mod places;
mod process;
mod prometheus;
mod routes;
mod stats;
mod tap;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use outrigger_wire::pb::envoy::config::core::v3::Node;
use tokio::sync::{Semaphore, mpsc};

use crate::{
    bootstrap::AdminAddress,
    ir::Name,
    live::Publisher,
    settings::Settings,
    telemetry::{access_log::Sinks, registry::Registry},
    tls::Secrets,
    worker::Shared,
    xds,
};

/// Scrapes that are answered, or wait for that, at once.
const MOST_SCRAPES: usize = 4;

/// What somebody asks the control loop to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Drain, then end.
    Stop,
    /// SIGTERM or SIGINT: drain, then end; when that is under way already, cut what is left.
    Signal,
    /// End now.
    Cut,
    /// Stop accepting (after the drain time if `graceful`) and drain, but go on running.
    DrainListeners { inbound_only: bool, graceful: bool },
    /// Have the supervisor start a successor.
    Replace,
    /// Close and reopen access log files (after rotation).
    ReopenLogs,
    /// SIGHUP: read the bootstrap file again, and reopen access log files.
    Reload,
}

/// Sets the program's log level; the reason when it is not one.
pub type SetLogLevel = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Everything the interface shows or touches.
pub struct Context {
    pub settings: Settings,
    /// `None`: no admin interface was asked for.
    pub address: Option<AdminAddress>,
    pub node: Node,
    pub publisher: Arc<Publisher>,
    pub shared: Arc<Shared>,
    pub registry: Arc<Registry>,
    pub secrets: Arc<Secrets>,
    pub sinks: Arc<Sinks>,
    pub subscription: xds::Handle,
    pub set_log_level: SetLogLevel,
    pub shutdown: mpsc::UnboundedSender<Request>,
    pub workers: usize,
}

/// What the control loop tells the interface.
#[derive(Debug)]
pub struct State {
    pub started: Instant,
    applied: AtomicU64,
    draining: AtomicBool,
    drained: AtomicBool,
    failed_health: AtomicBool,
    awaits_checks: AtomicBool,
    open: AtomicBool,
    /// There has been a configuration with its listeners open.
    begun: AtomicBool,
    application_seen: AtomicBool,
    /// How many processes there were before this one, and what the last one still has.
    epoch: AtomicU64,
    parent_connections: AtomicU64,
    overload: Mutex<Overload>,
    /// Times the bootstrap file was read again, and why the last time was in vain.
    reloads: Mutex<Reloads>,
    /// Connections held for a first configuration: waiting, served, refused.
    held: Mutex<(u64, u64, u64)>,
    problems: Mutex<Vec<String>>,
    sockets: Mutex<BoundSockets>,
    log_level: Mutex<logging::Levels>,
    /// What counters had come to when they were last set back, by name.
    reset: Mutex<Arc<HashMap<String, u64>>>,
    /// Answers that cost much to render come one after the other, off the control thread.
    rendering: Arc<Semaphore>,
    /// Scrapes of the status port at once: the others do not keep probes waiting.
    scrapes: Arc<Semaphore>,
}

/// Of what the process is short, and what it gives up for it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overload {
    /// Parts of what there is; `None` where there is no limit.
    pub memory: Option<f64>,
    pub descriptors: Option<f64>,
    /// New connections and requests are refused.
    pub sheds: bool,
    /// Idle connections are closed.
    pub closes_idle: bool,
    pub rises: u64,
}

#[derive(Debug, Default)]
struct Reloads {
    good: u64,
    bad: u64,
    error: Option<String>,
}

#[derive(Debug, Default)]
struct BoundSockets {
    bound: BTreeMap<Name, Vec<SocketAddr>>,
    failed: Vec<String>,
}

impl State {
    pub(crate) fn new(log_level: &str) -> Self {
        Self {
            started: Instant::now(),
            applied: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            failed_health: AtomicBool::new(false),
            awaits_checks: AtomicBool::new(false),
            open: AtomicBool::new(false),
            begun: AtomicBool::new(false),
            application_seen: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            parent_connections: AtomicU64::new(0),
            overload: Mutex::default(),
            reloads: Mutex::default(),
            held: Mutex::default(),
            problems: Mutex::default(),
            sockets: Mutex::default(),
            log_level: Mutex::new(logging::Levels::new(log_level)),
            reset: Mutex::default(),
            rendering: Arc::new(Semaphore::new(1)),
            scrapes: Arc::new(Semaphore::new(MOST_SCRAPES)),
        }
    }

    /// A snapshot took effect.
    pub fn applied(&self, version: u64) {
        self.applied.store(version, Ordering::Relaxed);
    }

    /// Whether that one did, or a later one.
    pub fn has_applied(&self, version: u64) -> bool {
        self.applied.load(Ordering::Relaxed) >= version
    }

    /// Whether listeners wait for the first active health checks.
    pub fn set_awaits_checks(&self, awaits: bool) {
        self.awaits_checks.store(awaits, Ordering::Relaxed);
    }

    /// Whether the application listens on one of the ports that say so.
    pub fn set_application_seen(&self, seen: bool) {
        self.application_seen.store(seen, Ordering::Relaxed);
    }

    /// How many processes there were before this one in its place.
    pub fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    /// Connections that the process before this one still has.
    pub fn set_parent_connections(&self, connections: u64) {
        self.parent_connections.store(connections, Ordering::Relaxed);
    }

    /// Of what the process is short.
    pub fn set_overload(&self, overload: Overload) {
        *lock(&self.overload) = overload;
    }

    /// The bootstrap file was read again.
    pub fn set_reloaded(&self, result: Result<(), String>) {
        let mut reloads = lock(&self.reloads);
        match &result {
            Ok(()) => reloads.good += 1,
            Err(_) => reloads.bad += 1,
        }
        reloads.error = result.err();
    }

    /// Connections held for a first configuration: how many wait, were served, were refused.
    pub fn set_held(&self, waiting: u64, served: u64, refused: u64) {
        *lock(&self.held) = (waiting, served, refused);
    }

    /// Resources that kept their former version, with the reason.
    pub fn set_problems(&self, problems: Vec<String>) {
        *lock(&self.problems) = problems;
    }

    /// Whether all listeners there are were opened.
    pub fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Relaxed);
    }

    /// The addresses listeners have, and those they could not get.
    pub fn set_sockets(&self, bound: BTreeMap<Name, Vec<SocketAddr>>, failed: Vec<String>) {
        *lock(&self.sockets) = BoundSockets { bound, failed };
    }

    /// The addresses a listener accepts at.
    pub(crate) fn bound(&self, listener: &str) -> Vec<SocketAddr> {
        lock(&self.sockets).bound.get(listener).cloned().unwrap_or_default()
    }

    fn problems(&self) -> Vec<String> {
        let reload = lock(&self.reloads).error.clone();
        lock(&self.problems).iter().cloned().chain(reload).collect()
    }

    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Inbound listeners close, or have closed, while the process goes on.
    pub fn set_drained(&self) {
        self.drained.store(true, Ordering::Relaxed);
    }

    pub fn version(&self) -> u64 {
        self.applied.load(Ordering::Relaxed)
    }

    /// Whether there is no reason not to be ready.
    pub fn is_ready(&self, status: &xds::Status) -> bool {
        self.not_ready(status).is_empty()
    }

    /// Whether there has been a configuration, from wherever, with its listeners open: from then on for ever, whatever
    /// becomes of readiness. A proxy that has started is not to be killed because others are away.
    fn has_started(&self, status: &xds::Status) -> bool {
        let received = status.clusters_received && status.listeners_received && self.version() > 0;
        if received && self.open.load(Ordering::Relaxed) && lock(&self.sockets).failed.is_empty() {
            self.begun.store(true, Ordering::Relaxed);
        }
        self.begun.load(Ordering::Relaxed)
    }

    /// Why the proxy is not ready, machine-readable; empty when it is.
    fn not_ready(&self, status: &xds::Status) -> Vec<(&'static str, String)> {
        let mut reasons = Vec::new();
        if self.draining.load(Ordering::Relaxed) {
            reasons.push(("draining", "the proxy is shutting down".to_owned()));
        }
        if self.failed_health.load(Ordering::Relaxed) {
            reasons.push(("healthcheck_failed", "POST /healthcheck/fail was called".to_owned()));
        }
        reasons.extend(status.identity.as_ref().and_then(|identity| identity.unusable(SystemTime::now())));
        if let Some(reason) = status.not_ready_reason() {
            reasons.push(("not_configured", reason));
        } else if self.version() == 0 {
            reasons.push(("not_configured", "no configuration in force yet".to_owned()));
        }
        if self.awaits_checks.load(Ordering::Relaxed) {
            reasons.push(("awaits_checks", "hosts of some clusters were not checked yet".to_owned()));
        }
        reasons.extend(lock(&self.sockets).failed.iter().map(|l| ("cannot_bind", l.clone())));
        reasons
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the request handlers see.
struct Inner {
    context: Context,
    state: Arc<State>,
    /// Whose metrics the status port shows beside our own.
    application: Option<application::Scraper>,
}

/// Which of the interfaces a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Face {
    Admin,
    Status,
}

/// The interfaces, prepared or running.
pub struct Admin {
    inner: Arc<Inner>,
    sockets: Mutex<Vec<(Face, AdminAddress, http::Socket)>>,
    servers: Mutex<Vec<http::Server>>,
}

impl Admin {
    pub fn state(&self) -> Arc<State> {
        self.inner.state.clone()
    }

    /// Starts serving.
    pub fn serve(&self) -> anyhow::Result<()> {
        let mut servers = lock(&self.servers);
        for (face, address, socket) in &*lock(&self.sockets) {
            let (listener, inner) = (socket.listener()?, self.inner.clone());
            tracing::info!(?address, ?face, "serving");
            servers.push(match face {
                Face::Admin => http::serve(listener, inner, routes::admin),
                Face::Status => http::serve(listener, inner, routes::status),
            });
        }
        Ok(())
    }

    /// Handles of the sockets, for a successor.
    pub fn sockets(&self) -> std::io::Result<Vec<(AdminAddress, OwnedFd)>> {
        let sockets = lock(&self.sockets);
        sockets.iter().map(|(_, address, socket)| Ok((address.clone(), socket.shared()?))).collect()
    }

    /// Stops serving; answers under way are still given.
    pub fn stop_accepting(&self) {
        lock(&self.sockets).clear();
        lock(&self.servers).iter().for_each(http::Server::stop_accepting);
    }

    /// Stops serving, and waits for answers that are under way.
    pub async fn stop(&self) {
        self.stop_accepting();
        let servers = std::mem::take(&mut *lock(&self.servers));
        futures_util::future::join_all(servers.iter().map(http::Server::stop)).await;
    }
}

/// Binds the admin address and the addresses for the outside, those `inherited` from a predecessor apart. An address that
/// cannot be bound is an error: an operator who cannot look inside has to know at once.
pub fn prepare(context: Context, mut inherited: Vec<(AdminAddress, OwnedFd)>) -> anyhow::Result<Admin> {
    let state = Arc::new(State::new(&context.settings.log_level));
    let address = context.address.clone();
    let open = [context.settings.status_address, context.settings.metrics.metrics_address];
    let open: Vec<SocketAddr> = open.into_iter().flatten().collect();
    let application = application::Scraper::new(&context.settings.metrics, &open)?;
    let outside = open.into_iter().map(|address| (Face::Status, AdminAddress::Tcp(address)));
    let mut sockets = Vec::new();
    for (face, address) in address.map(|address| (Face::Admin, address)).into_iter().chain(outside) {
        let known = inherited.iter().position(|(known, _)| *known == address);
        let socket = match known.map(|at| inherited.swap_remove(at)) {
            Some((_, socket)) => http::Socket::inherited(&address, socket),
            None => http::Socket::bind(&address)?,
        };
        sockets.push((face, address, socket));
    }
    let inner = Arc::new(Inner { context, state, application });
    Ok(Admin { inner, sockets: Mutex::new(sockets), servers: Mutex::default() })
}
