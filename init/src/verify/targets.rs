//! Where to connect to, and as whom, so that the plan has a definite opinion about it.
//!
//! Owns the choice of destinations, ports and users for the proofs. Connects to nothing itself.
//! Invariant: every destination it returns is captured according to `plan`, or the reason why there is none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use super::peer::{self, Peer};
use super::probe::Identity;
use crate::error::Error;
use crate::host;
use crate::links::Links;
use crate::options::{CidrSelection, Options, PortSelection};
use crate::plan::{Family, Flow, RuleSet};

/// How often a free port is asked for until one is subject to capture.
const PORT_TRIES: usize = 16;

/// The inputs of the choice.
pub(super) struct Targets<'a> {
    pub(super) options: &'a Options,
    pub(super) rules: &'a RuleSet,
    pub(super) links: &'a Links,
    /// Whether the port guard is among the installed rules.
    pub(super) guarded: bool,
}

impl Targets<'_> {
    /// A user that is not the proxy; `None` stands for the caller itself where users cannot be changed.
    pub(super) fn application(&self) -> Result<Option<Identity>, String> {
        let (users, groups) = (&self.options.proxy_uid, &self.options.proxy_gid);
        if !host::may_change_ids() {
            let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
            return match users.contains(uid) || groups.contains(gid) {
                false => Ok(None),
                true => Err("the check runs as the proxy's user and lacks CAP_SETUID and CAP_SETGID".into()),
            };
        }
        let free = |taken: &dyn Fn(u32) -> bool| (1..=65534).rev().find(|&id| !taken(id));
        match (free(&|id| users.contains(id)), free(&|id| groups.contains(id))) {
            (Some(uid), Some(gid)) => Ok(Some(Identity { uid, gid })),
            _ => Err("every user or group id is the proxy's".into()),
        }
    }

    /// The proxy by its user alone and, if it has one, by its group alone.
    pub(super) fn proxies(&self) -> Result<Vec<(&'static str, Identity)>, String> {
        let application = match self.application()? {
            Some(application) => application,
            None => return Err("to connect as the proxy's user needs CAP_SETUID and CAP_SETGID".into()),
        };
        let by_user = self.options.proxy_uid.ids().first().map(|&uid| ("user", Identity { uid, ..application }));
        let by_group = self.options.proxy_gid.ids().first().map(|&gid| ("group", Identity { gid, ..application }));
        Ok(by_user.into_iter().chain(by_group).collect())
    }

    /// A destination elsewhere that must be captured, with the reason if there is none.
    pub(super) fn outbound(&self, family: Family, peer: Option<&Peer>) -> Result<Result<SocketAddr, String>, Error> {
        let mut reason = format!("the options capture no outbound {} connection", family.as_str());
        for ip in self.outbound_hosts(family) {
            let Some(port) = self.outbound_port(family, ip) else { continue };
            if ip == peer::far(family) && peer.is_some_and(|peer| peer.has(family)) {
                return Ok(Ok(SocketAddr::new(ip, port)));
            }
            match self.links.route(ip)? {
                Some(link) if link != self.links.loopback()?.index => return Ok(Ok(SocketAddr::new(ip, port))),
                _ => reason = format!("there is no {} route to {ip}", family.as_str()),
            }
        }
        Ok(Err(reason))
    }

    /// A destination elsewhere that must be captured and does not answer.
    pub(super) fn silent(&self, family: Family, peer: Result<&Peer, &str>) -> Result<SocketAddr, String> {
        let peer = peer.map_err(str::to_owned)?;
        if !peer.has(family) {
            return Err("IPv6 is switched off by sysctl".into());
        }
        let ip = peer::silent(family);
        let port = self.outbound_port(family, ip).ok_or_else(|| format!("the options do not capture {ip}"))?;
        Ok(SocketAddr::new(ip, port))
    }

    fn outbound_hosts(&self, family: Family) -> Vec<IpAddr> {
        let mut hosts = vec![peer::far(family)];
        if let CidrSelection::Only(list) = &self.options.include_outbound_cidrs {
            let own = list.iter().filter(|cidr| Family::of(cidr) == family);
            hosts.extend(own.map(|cidr| if cidr.is_host() { cidr.network() } else { next(cidr.network()) }));
        }
        hosts
    }

    fn outbound_port(&self, family: Family, ip: IpAddr) -> Option<u16> {
        let mut ports = vec![80, 443, 8080, 9];
        if let PortSelection::Only(set) = &self.options.include_outbound_ports {
            ports.extend(set.ranges().iter().map(|range| range.first));
        }
        let application = self.application().ok().flatten();
        ports.into_iter().find(|&port| {
            let flow = Flow {
                source: unspecified(family),
                destination: SocketAddr::new(ip, port),
                uid: application.map_or(u32::MAX, |identity| identity.uid),
                gid: application.map_or(u32::MAX, |identity| identity.gid),
                input: None,
                output: Some("outrigger-check"),
            };
            self.rules.trace(&flow).port() == Some(self.options.outbound_port)
        })
    }

    /// A port of an own address on which connections from outside must be captured and nobody listens, if possible.
    pub(super) fn inbound_port(&self, own: IpAddr) -> Option<u16> {
        let captured = |port: u16| {
            let flow = Flow {
                source: unspecified(if own.is_ipv6() { Family::V6 } else { Family::V4 }),
                destination: SocketAddr::new(own, port),
                uid: u32::MAX,
                gid: u32::MAX,
                input: Some("outrigger-check"),
                output: None,
            };
            self.rules.trace(&flow).port() == Some(self.options.inbound_port)
        };
        let ephemeral = || TcpListener::bind((own, 0)).and_then(|listener| listener.local_addr()).ok();
        let free = (0..PORT_TRIES).filter_map(|_| ephemeral()).map(|address| address.port());
        let listed: Vec<u16> = match &self.options.include_inbound_ports {
            PortSelection::All => Vec::new(),
            PortSelection::Only(set) => {
                set.ranges().iter().flat_map(|range| range.first..=range.last).take(4096).collect()
            }
        };
        let idle = |port: &u16| TcpListener::bind((own, *port)).is_ok();
        free.chain(listed.iter().copied().filter(idle)).chain(listed.iter().copied()).find(|&port| captured(port))
    }

    /// An address of this namespace that is not loopback.
    pub(super) fn own_address(&self, family: Family, peer: Option<&Peer>) -> Result<Option<IpAddr>, Error> {
        if peer.is_some_and(|peer| peer.has(family)) {
            return Ok(Some(peer::near(family)));
        }
        let lo = self.links.loopback()?.index;
        let addresses = self.links.addresses()?;
        let mut own = addresses.iter().filter(|address| address.link != lo && address.global);
        Ok(own.find(|address| address.ip.is_ipv6() == (family == Family::V6)).map(|address| address.ip))
    }
}

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn next(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits().saturating_add(1)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits().saturating_add(1)).into(),
    }
}
