//! A rig: two Pods, the application's server, interception, and one contender as sidecar on both sides.
//!
//! Knows how to start what a [`Plan`] asks for and when it is ready; knows nothing of loads or figures. Everything ends
//! when the rig is dropped.

mod bootstrap;
mod contender;
mod haproxy;
mod origin;
mod pki;
mod plan;
mod xds_messages;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use outrigger_tests::{Fabric, Pod, Process};

pub(crate) use self::{
    bootstrap::{PROBE, service_name},
    contender::{Contender, Kind},
    origin::{Origin, OriginServer},
    plan::{App, Between, Features, Plan, Sessions, Via},
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
    pub(crate) server: Pod,
    /// From the start of the outbound proxy to the first answered request.
    pub(crate) ready_after: Duration,
    outbound: Option<Process>,
    inbound: Option<Process>,
    _origin: OriginServer,
    dir: PathBuf,
}

impl Rig {
    /// Starts everything and waits for the first answer through it.
    pub(crate) fn start(fabric: &mut Fabric, contender: &Contender, plan: &Plan, workers: u32) -> anyhow::Result<Self> {
        // A fabric may hold several rigs of one contender.
        let serial = std::fs::read_dir(fabric.dir())?.filter(|e| e.as_ref().is_ok_and(|e| e.path().is_dir())).count();
        let label = contender.label();
        let client = fabric.pod(&format!("{label}-c{serial}"), &[]);
        let server = fabric.pod(&format!("{label}-s{serial}"), &[]);
        let dir = fabric.dir().join(format!("{label}-{serial}"));
        std::fs::create_dir(&dir)?;
        let origin = OriginServer::start(&server, plan.origin, &dir)?;
        let mut rig = Self {
            contender: contender.clone(),
            ready_after: Duration::ZERO,
            outbound: None,
            inbound: None,
            _origin: origin,
            client,
            server,
            dir,
        };
        pki::write(&rig.dir)?;
        rig.start_proxies(plan, workers)?;
        Ok(rig)
    }

    fn start_proxies(&mut self, plan: &Plan, workers: u32) -> anyhow::Result<()> {
        let started = if self.contender.kind() == Kind::Direct {
            Instant::now()
        } else {
            let dir = self.dir.clone();
            let place = plan::Place { dir: &dir, server: self.server.ip4, workers };
            // Endpoints that change are the servers themselves.
            if plan.via == Via::File {
                intercept(&self.server)?;
                let (inbound, _) = self.contender.start(&self.server, Side::In, plan, &place)?;
                self.inbound = Some(inbound);
                self.until("the inbound proxy listens", |rig| {
                    rig.server.within(|| std::net::TcpStream::connect(("127.0.0.1", 15006)).is_ok())
                })?;
            }
            intercept(&self.client)?;
            let (outbound, started) = self.contender.start(&self.client, Side::Out, plan, &place)?;
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

    /// Where the application connects to.
    pub(crate) fn target(&self) -> std::net::SocketAddr {
        (self.server.ip4, APP_PORT).into()
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
            for process in [&mut self.outbound, &mut self.inbound].into_iter().flatten() {
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

    /// The last lines both proxies printed.
    pub(crate) fn logs(&self) -> String {
        let ends = [&self.outbound, &self.inbound].into_iter().flatten();
        let ends = ends.filter(|p| !p.output().is_empty());
        ends.map(|p| format!("{}: {}", p.name(), last_lines(&p.output()))).collect::<Vec<_>>().join("; ")
    }

    /// The processes to account for; nothing without a proxy.
    pub(crate) fn proxies(&self) -> Proxies {
        let pids = |p: &Option<Process>| p.as_ref().map(|p| p.pid()).into_iter().collect();
        Proxies { out: pids(&self.outbound), into: pids(&self.inbound) }
    }

    pub(crate) fn memory(&self) -> Memory {
        self.proxies().memory()
    }

    /// Fails when a proxy died: what was measured then means nothing.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        for process in [&mut self.outbound, &mut self.inbound].into_iter().flatten() {
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
