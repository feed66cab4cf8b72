//! One Pod of the service: its application and the proxy before it, which can be killed and come back.

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use outrigger_tests::{Pod, Process};

use super::{
    contender::{Contender, Kind},
    last_lines,
    origin::OriginServer,
    plan::{Place, Plan, Via},
};
use crate::{account::Side, drive::faulty::Controls};

/// What proxies are started from.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    pub(super) contender: Contender,
    pub(super) plan: Plan,
    pub(super) dir: PathBuf,
    pub(super) servers: Vec<Ipv4Addr>,
    pub(super) workers: u32,
}

impl Recipe {
    pub(super) fn start(&self, pod: &Pod, side: Side) -> anyhow::Result<(Process, Instant)> {
        let place = Place { dir: &self.dir, servers: &self.servers, workers: self.workers };
        self.contender.start(pod, side, &self.plan, &place)
    }
}

/// A Pod of the service.
pub(crate) struct Replica {
    pub(crate) pod: Pod,
    recipe: Arc<Recipe>,
    pub(super) inbound: Option<Process>,
    origin: Option<OriginServer>,
}

impl Replica {
    /// The application runs, its proxy does not yet.
    pub(super) fn new(pod: Pod, recipe: Arc<Recipe>) -> anyhow::Result<Self> {
        let origin = OriginServer::start(&pod, recipe.plan.origin, &recipe.dir)?;
        Ok(Self { pod, recipe, inbound: None, origin: Some(origin) })
    }

    /// Starts the proxy, where there is one and endpoints are not the applications themselves.
    pub(super) fn start_proxy(&mut self) -> anyhow::Result<()> {
        if self.recipe.contender.kind() == Kind::Direct || self.recipe.plan.via != Via::File {
            return Ok(());
        }
        let (mut inbound, _) = self.recipe.start(&self.pod, Side::In)?;
        let deadline = Instant::now() + super::READY_WITHIN;
        while !self.pod.within(|| std::net::TcpStream::connect(("127.0.0.1", 15006)).is_ok()) {
            let (running, late) = (inbound.is_running(), Instant::now() > deadline);
            ensure!(running && !late, "{} does not listen: {}", inbound.name(), last_lines(&inbound.output()));
            std::thread::sleep(Duration::from_millis(2));
        }
        self.inbound = Some(inbound);
        Ok(())
    }

    /// The strings of an application that misbehaves when told to.
    pub(crate) fn controls(&self) -> anyhow::Result<Arc<Controls>> {
        self.origin.as_ref().and_then(OriginServer::controls).cloned().context("the application takes no orders")
    }

    /// SIGKILL for all that runs in the Pod.
    pub(crate) fn kill(&mut self) {
        if let Some(mut inbound) = self.inbound.take() {
            inbound.signal(Signal::SIGKILL);
            self.origin = None;
            inbound.wait();
        }
        self.origin = None;
    }

    /// The application goes, its proxy stays.
    pub(crate) fn kill_application(&mut self) {
        self.origin = None;
    }

    /// What was killed comes back.
    pub(crate) fn revive(&mut self) -> anyhow::Result<()> {
        if self.origin.is_none() {
            self.origin = Some(OriginServer::start(&self.pod, self.recipe.plan.origin, &self.recipe.dir)?);
        }
        if self.inbound.is_none() { self.start_proxy() } else { Ok(()) }
    }

    /// Whether what arrives at the Pod vanishes.
    pub(crate) fn black_hole(&self, on: bool) -> anyhow::Result<()> {
        let action = if on { "-I" } else { "-D" };
        let (done, said) = self.pod.try_sh(&format!("iptables -w 5 {action} INPUT -i eth0 -j DROP"));
        ensure!(done, "iptables: {said}");
        Ok(())
    }
}
