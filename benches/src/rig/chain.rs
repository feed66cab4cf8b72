//! Proxies in a row, each with retries of its own, before a service of several replicas that can fail.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use outrigger_tests::{Fabric, Pod, Process};

use super::{
    APP_PORT, HOST, READY_WITHIN, bootstrap,
    contender::Contender,
    last_lines,
    plan::{Extra, Place},
};
use crate::drive::{
    self, Service,
    faulty::{self, Controls},
    http1,
};

/// Ports of the service at the bottom, all in one Pod.
const BOTTOM: [u16; 3] = [9001, 9002, 9003];

pub(crate) struct Chain {
    pub(crate) client: Pod,
    hops: Vec<(Pod, Process)>,
    bottom: Vec<Arc<Controls>>,
    _services: Vec<Service>,
    _bottom: Pod,
}

impl Chain {
    /// Starts `length` proxies and waits for an answer through them.
    pub(crate) fn start(
        fabric: &mut Fabric,
        contender: &Contender,
        (length, workers): (usize, u32),
        takes: Duration,
        extra: &Extra,
    ) -> anyhow::Result<Self> {
        let label = contender.label();
        let client = fabric.pod(&format!("{label}-c"), &[]);
        let bottom = fabric.pod(&format!("{label}-b"), &[]);
        let controls: Vec<_> = BOTTOM.map(|_| Controls::new(takes, takes)).into();
        let mut services = Vec::new();
        for (port, controls) in BOTTOM.into_iter().zip(controls.clone()) {
            services.push(Service::start(bottom.listen(port), move |on| faulty::serve(on, controls))?);
        }
        let mut next: Vec<_> = BOTTOM.map(|port| (bottom.ip4.to_string(), port)).into();
        let mut hops = Vec::new();
        for number in 0..length {
            let pod = fabric.pod(&format!("{label}-h{number}"), &[]);
            let dir = fabric.dir().join(format!("{label}-{number}"));
            std::fs::create_dir(&dir)?;
            let place = Place { dir: &dir, servers: &[], workers };
            let (process, _) = contender.start_with(&pod, "hop", &bootstrap::hop(&next, extra), &place)?;
            next = vec![(pod.ip4.to_string(), APP_PORT)];
            hops.push((pod, process));
        }
        let mut chain = Self { client, hops, bottom: controls, _services: services, _bottom: bottom };
        chain.until_answered()?;
        Ok(chain)
    }

    /// Where the client connects to: the hop that was made last.
    pub(crate) fn target(&self) -> SocketAddr {
        let first = self.hops.last().map_or(std::net::Ipv4Addr::LOCALHOST, |(pod, _)| pod.ip4);
        (first, APP_PORT).into()
    }

    /// The strings of the service at the bottom.
    pub(crate) fn bottom(&self) -> &[Arc<Controls>] {
        &self.bottom
    }

    /// Requests that came to the bottom.
    pub(crate) fn requests(&self) -> u64 {
        self.bottom.iter().map(|controls| controls.requests()).sum()
    }

    fn until_answered(&mut self) -> anyhow::Result<()> {
        let request = http1::request("GET", "/", HOST, "");
        let deadline = Instant::now() + READY_WITHIN;
        let to = self.target();
        while !self
            .client
            .within(|| http1::once(to, &request, Duration::from_secs(10)).is_ok_and(|status| status == 200))
        {
            self.check()?;
            ensure!(Instant::now() < deadline, "no answer within {READY_WITHIN:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Fails when a proxy died.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        for (_, process) in &mut self.hops {
            if !process.is_running() {
                bail!("{} died: {}", process.name(), last_lines(&process.output()));
            }
        }
        Ok(())
    }

    /// Runs `work` in the client's Pod.
    pub(crate) fn run<T: Send>(
        &self,
        work: impl AsyncFnOnce(SocketAddr) -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let to = self.target();
        self.client.within(|| drive::block_on(work(to)))
    }
}
