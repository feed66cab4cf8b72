//! A rig: two Pods, the application's server, interception, and one contender as sidecar on both sides.
//!
//! Knows how to start what a [`Plan`] asks for and when it is ready; knows nothing of loads or figures. Everything ends
//! when the rig is dropped.

mod bootstrap;
mod chain;
mod contender;
mod haproxy;
mod origin;
mod pki;
mod plan;
mod replica;
mod xds_messages;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use outrigger_tests::{Fabric, Pod, Process};

use self::replica::Recipe;
pub(crate) use self::{
    bootstrap::{PROBE, grpc_cluster, service_name},
    chain::Chain,
    contender::{Contender, Kind},
    origin::Origin,
    pki::CLIENT_ID,
    plan::{App, Between, Both, Extra, Features, Plan, Sessions, Via},
    replica::Replica,
    xds_messages::assignment,
};
use crate::{
    account::{Memory, Proxies, Side},
    drive::http1,
};

/// Port of the application; captured on both sides.
pub(crate) const APP_PORT: u16 = 8080;
/// A second application server beside the first.
pub(crate) const OTHER_PORT: u16 = 8081;
/// The authority applications ask for.
pub(crate) const HOST: &str = "app.default.svc.cluster.local";
/// Where the bench's control plane listens, in the client's Pod.
pub(crate) const XDS_PORT: u16 = 18_000;

const READY_WITHIN: Duration = Duration::from_secs(60);

/// One contender at work.
pub(crate) struct Rig {
    pub(crate) contender: Contender,
    pub(crate) client: Pod,
    /// The service's Pods, at least one.
    pub(crate) replicas: Vec<Replica>,
    /// From the start of the outbound proxy to the first answered request.
    pub(crate) ready_after: Duration,
    outbound: Option<Process>,
    dir: PathBuf,
}

impl Rig {
    /// Starts everything and waits for the first answer through it.
    pub(crate) fn start(fabric: &mut Fabric, contender: &Contender, plan: &Plan, workers: u32) -> anyhow::Result<Self> {
        // A fabric may hold several rigs of one contender.
        let serial = std::fs::read_dir(fabric.dir())?.filter(|e| e.as_ref().is_ok_and(|e| e.path().is_dir())).count();
        let label = contender.label();
        let client = fabric.pod(&format!("{label}-c{serial}"), &[]);
        let dir = fabric.dir().join(format!("{label}-{serial}"));
        std::fs::create_dir(&dir)?;
        let letters = ('s'..).take(plan.replicas.max(1));
        let pods: Vec<Pod> = letters.map(|letter| fabric.pod(&format!("{label}-{letter}{serial}"), &[])).collect();
        pki::write(&dir)?;
        let logs = dir.join(bootstrap::LOGS);
        std::fs::create_dir(&logs)?;
        // The proxies run as another user.
        std::fs::set_permissions(logs, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
        let recipe = Arc::new(Recipe {
            contender: contender.clone(),
            plan: plan.clone(),
            dir,
            servers: pods.iter().map(|pod| pod.ip4).collect(),
            workers,
        });
        let replicas = pods.into_iter().map(|pod| Replica::new(pod, recipe.clone())).collect::<Result<_, _>>()?;
        let mut rig = Self {
            contender: contender.clone(),
            ready_after: Duration::ZERO,
            outbound: None,
            dir: recipe.dir.clone(),
            client,
            replicas,
        };
        rig.start_proxies(&recipe)?;
        Ok(rig)
    }

    fn start_proxies(&mut self, recipe: &Recipe) -> anyhow::Result<()> {
        let plan = &recipe.plan;
        let started = if self.contender.kind() == Kind::Direct {
            Instant::now()
        } else {
            for replica in &mut self.replicas {
                // Endpoints that change are the servers themselves.
                if plan.via == Via::File {
                    intercept(&replica.pod)?;
                }
                replica.start_proxy()?;
            }
            intercept(&self.client)?;
            let (outbound, started) = recipe.start(&self.client, Side::Out)?;
            self.outbound = Some(outbound);
            started
        };
        if plan.via == Via::Xds {
            // The caller brings the control plane and waits itself.
            return Ok(());
        }
        let request = http1::request("GET", plan.ready_path(), HOST, "");
        if plan.app == App::Http2 {
            self.until("connections are accepted", |rig| rig.client.within(|| rig.connects()))?;
        } else {
            self.until("a request is answered", |rig| rig.client.within(|| rig.answers(&request)))?;
        }
        self.ready_after = started.elapsed();
        Ok(())
    }

    /// The first of the service's Pods.
    pub(crate) fn server(&self) -> &Pod {
        &self.replicas[0].pod
    }

    /// Where the application connects to.
    pub(crate) fn target(&self) -> std::net::SocketAddr {
        (self.server().ip4, APP_PORT).into()
    }

    fn connects(&self) -> bool {
        std::net::TcpStream::connect_timeout(&self.target(), Duration::from_secs(1)).is_ok()
    }

    fn answers(&self, request: &[u8]) -> bool {
        http1::once(self.target(), request, Duration::from_secs(10)).is_ok_and(|status| status == 200)
    }

    /// Waits until the request is answered through the proxies.
    pub(crate) fn answered(&self, request: &[u8]) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        while !self.client.within(|| self.answers(request)) {
            anyhow::ensure!(Instant::now() < deadline, "no answer within {READY_WITHIN:?}; {}", self.logs());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn until(&mut self, what: &str, ready: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        while !ready(self) {
            for process in self.processes_mut() {
                if !process.is_running() {
                    bail!("{} ended before {what}: {}", process.name(), last_lines(&process.output()));
                }
            }
            if Instant::now() > deadline {
                let logs = self.logs();
                bail!("not within {READY_WITHIN:?}: {what}; {logs}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn processes_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        self.outbound.iter_mut().chain(self.replicas.iter_mut().filter_map(|r| r.inbound.as_mut()))
    }

    /// The last lines the proxies printed.
    pub(crate) fn logs(&self) -> String {
        let ends = self.outbound.iter().chain(self.replicas.iter().filter_map(|r| r.inbound.as_ref()));
        let ends = ends.filter(|p| !p.output().is_empty());
        ends.map(|p| format!("{}: {}", p.name(), last_lines(&p.output()))).collect::<Vec<_>>().join("; ")
    }

    /// Where the proxies write access logs, if they do.
    pub(crate) fn access_logs(&self) -> [PathBuf; 2] {
        [Side::Out, Side::In].map(|side| bootstrap::access_log_file(&self.dir, side))
    }

    /// The processes to account for; nothing without a proxy.
    pub(crate) fn proxies(&self) -> Proxies {
        let into = self.replicas.iter().filter_map(|r| r.inbound.as_ref());
        Proxies { out: self.outbound.iter().map(Process::pid).collect(), into: into.map(Process::pid).collect() }
    }

    pub(crate) fn memory(&self) -> Memory {
        self.proxies().memory()
    }

    /// Fails when a proxy died: what was measured then means nothing.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        for process in self.processes_mut() {
            if !process.is_running() {
                bail!("{} died: {}", process.name(), last_lines(&process.output()));
            }
        }
        Ok(())
    }
}

/// Installs redirection in a Pod.
fn intercept(pod: &Pod) -> anyhow::Result<()> {
    let done = pod.command(contender::own_binary("outrigger-init")?).arg("install").output()?;
    if !done.status.success() {
        bail!("outrigger-init: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

fn last_lines(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().rev().take(4).collect();
    lines.reverse();
    lines.join(" | ")
}

/// Starts a rig and turns a panic of the namespace harness into an error: one contender's failure is not the end.
pub(crate) fn start(fabric: &mut Fabric, contender: &Contender, plan: &Plan, workers: u32) -> anyhow::Result<Rig> {
    let attempt = std::panic::AssertUnwindSafe(|| Rig::start(fabric, contender, plan, workers));
    std::panic::catch_unwind(attempt)
        .unwrap_or_else(|_| bail!("the namespaces could not be set up"))
        .with_context(|| format!("cannot start {}", contender.label()))
}
