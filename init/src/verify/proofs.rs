//! The proofs of one address family.
//!
//! Owns what is connected to what as whom, and which rule each attempt puts to the test. Judging is `trap`'s business.
//! Invariant: attempts are made one after the other, so whatever waits in a listener belongs to the last one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::peer::Peer;
use super::probe::{Attempt, Ended, Identity, attempt_as};
use super::report::{Report, Status};
use super::targets::Targets;
use super::trap::{Target, Trap};
use crate::error::Error;
use crate::plan::{Family, LOOP_GUARD_V4, LOOP_GUARD_V6};

/// Everything the proofs of one family share.
pub(super) struct Proofs<'a> {
    helper: &'a Path,
    targets: &'a Targets<'a>,
    family: Family,
    peer: &'a mut Result<Peer, String>,
}

impl<'a> Proofs<'a> {
    /// Prepares nothing yet.
    pub(super) fn new(
        helper: &'a Path,
        targets: &'a Targets<'a>,
        family: Family,
        peer: &'a mut Result<Peer, String>,
    ) -> Self {
        Self { helper, targets, family, peer }
    }

    /// Runs them all.
    pub(super) fn run(mut self, report: &mut Report) -> Result<(), Error> {
        let outbound = Trap::open(self.family, self.targets.options.outbound_port)?;
        let inbound = Trap::open(self.family, self.targets.options.inbound_port)?;
        self.outbound(report, &outbound)?;
        self.source_port(report, &outbound);
        let own = self.targets.own_address(self.family, self.peer.as_ref().ok())?;
        match own {
            Some(own) => self.own_service(report, own, &inbound)?,
            None => self.skip(report, "own-service", "this namespace has no address but loopback"),
        }
        self.loopback(report);
        self.inbound(report, own, &inbound);
        Ok(())
    }

    fn attempt(&self, identity: Option<Identity>, to: SocketAddr, from: Option<IpAddr>) -> Ended {
        let from = from.map(|ip| SocketAddr::new(ip, 0));
        attempt_as(self.helper, identity, Attempt { from, ..Attempt::to(to) })
    }

    fn skip(&self, report: &mut Report, name: &'static str, why: impl Into<String>) {
        report.add(name, Some(self.family), Status::Skip, why);
    }

    /// The application's connections arrive at the proxy, the proxy's own do not.
    fn outbound(&self, report: &mut Report, trap: &Trap) -> Result<(), Error> {
        let to = match self.targets.outbound(self.family, self.peer.as_ref().ok())? {
            Ok(to) => to,
            Err(why) => {
                self.skip(report, "outbound-capture", why.clone());
                self.skip(report, "proxy-bypass", why);
                return Ok(());
            }
        };
        match self.targets.application() {
            Ok(application) => {
                let (status, detail) = trap.must_have(to, &self.attempt(application, to, None));
                report.add("outbound-capture", Some(self.family), status, detail);
            }
            Err(why) => self.skip(report, "outbound-capture", why),
        }
        match self.targets.proxies() {
            Ok(proxies) => {
                for (kind, identity) in proxies {
                    let (status, detail) = trap.must_not_have(to, &self.attempt(Some(identity), to, None));
                    report.add("proxy-bypass", Some(self.family), status, format!("by {kind}: {detail}"));
                }
            }
            Err(why) => self.skip(report, "proxy-bypass", why),
        }
        Ok(())
    }

    /// What the proxy leaves behind in connection tracking does not lead the application past it.
    fn source_port(&self, report: &mut Report, trap: &Trap) {
        let found = self.targets.silent(self.family, self.peer.as_ref().map_err(String::as_str));
        let (to, application, proxy) = match (found, self.targets.application(), self.targets.proxies()) {
            (Ok(to), Ok(application), Ok(proxies)) => (to, application, proxies.first().map(|(_, identity)| *identity)),
            (Err(why), ..) | (_, Err(why), _) | (.., Err(why)) => return self.skip(report, "source-port", why),
        };
        let left = attempt_as(self.helper, proxy, Attempt { abandon: true, ..Attempt::to(to) });
        let Ended::Abandoned(from) = left else {
            let why = format!("the proxy's call to {to}: {}", left.describe());
            return self.skip(report, "source-port", why);
        };
        let ended = attempt_as(self.helper, application, Attempt { from: Some(from), ..Attempt::to(to) });
        let (status, detail) = trap.must_not_pass(to, &ended);
        // Where the kernel lacks the guard, the finding on the rules says what this means.
        let known = status == Status::Fail && !self.targets.guarded;
        let status = if known { Status::Warn } else { status };
        let detail = format!("port {} after the proxy's call without answer: {detail}", from.port());
        report.add("source-port", Some(self.family), status, detail);
    }

    /// Calls to the Pod's own address: the proxy's enter by the inbound side, the application's and the loop guard's
    /// go straight.
    fn own_service(&self, report: &mut Report, own: IpAddr, trap: &Trap) -> Result<(), Error> {
        match (self.targets.proxies(), self.targets.inbound_port(own)) {
            (Ok(proxies), Some(port)) => {
                let to = SocketAddr::new(own, port);
                for (kind, identity) in proxies {
                    let (status, detail) = trap.must_have(to, &self.attempt(Some(identity), to, None));
                    report.add("own-service", Some(self.family), status, format!("by {kind}: {detail}"));
                }
            }
            (Err(why), _) => self.skip(report, "own-service", why),
            (_, None) => self.skip(report, "own-service", "the options capture no inbound port"),
        }
        let target = Target::open(own).map_err(Error::io(format!("cannot listen on {own}")))?;
        match self.targets.application() {
            Ok(application) => {
                let (status, detail) = target.must_have(&self.attempt(application, target.address(), None));
                report.add("application-to-itself", Some(self.family), status, detail);
            }
            Err(why) => self.skip(report, "application-to-itself", why),
        }
        let guard: IpAddr = match self.family {
            Family::V4 => LOOP_GUARD_V4.into(),
            Family::V6 => LOOP_GUARD_V6.into(),
        };
        match self.targets.proxies() {
            Ok(proxies) => {
                for (kind, identity) in proxies.into_iter().take(1) {
                    let (status, detail) =
                        target.must_have(&self.attempt(Some(identity), target.address(), Some(guard)));
                    report.add("loop-guard", Some(self.family), status, format!("from {guard}, by {kind}: {detail}"));
                }
            }
            Err(why) => self.skip(report, "loop-guard", why),
        }
        Ok(())
    }

    /// Loopback is never captured, whoever uses it.
    fn loopback(&self, report: &mut Report) {
        let ip: IpAddr = match self.family {
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        };
        let target = match Target::open(ip) {
            Ok(target) => target,
            Err(error) => return self.skip(report, "loopback", format!("cannot listen on {ip}: {error}")),
        };
        let mut users: Vec<(&str, Option<Identity>)> = Vec::new();
        users.extend(self.targets.application().ok().map(|application| ("application", application)));
        let proxies = self.targets.proxies().unwrap_or_default();
        users.extend(proxies.into_iter().take(1).map(|(_, identity)| ("proxy", Some(identity))));
        if users.is_empty() {
            self.skip(report, "loopback", "the check cannot connect as anybody");
        }
        for (who, identity) in users {
            let (status, detail) = target.must_have(&self.attempt(identity, target.address(), None));
            report.add("loopback", Some(self.family), status, format!("by the {who}: {detail}"));
        }
    }

    /// A neighbour's connections arrive at the proxy.
    fn inbound(&mut self, report: &mut Report, own: Option<IpAddr>, trap: &Trap) {
        let family = self.family;
        let (peer, own) = match (self.peer.as_mut(), own) {
            (Ok(peer), Some(own)) if peer.has(family) => (peer, own),
            (Ok(_), _) => return self.skip(report, "inbound-capture", "IPv6 is switched off by sysctl"),
            (Err(why), _) => {
                let why = format!("{why}; the rules were compared, own-service tried the same chain");
                return self.skip(report, "inbound-capture", why);
            }
        };
        let Some(port) = self.targets.inbound_port(own) else {
            return self.skip(report, "inbound-capture", "the options capture no inbound port");
        };
        let to = SocketAddr::new(own, port);
        let (status, detail) = trap.must_have(to, &peer.connect(to));
        let detail = format!("from {}, over {}: {detail}", super::peer::far(family), peer.interface());
        report.add("inbound-capture", Some(family), status, detail);
    }
}
