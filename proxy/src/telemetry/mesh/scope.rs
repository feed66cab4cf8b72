//! What a filter chain asks to be counted, and what one connection of it is counted by.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use super::{Flow, Mesh, Pair, pair, pair_of_host};
use crate::{
    ir::{
        Name,
        cluster::Cluster,
        listener::Direction,
        route::{Action, RouteConfiguration, Target},
    },
    telemetry::record::{ConnInfo, PeerInfo},
};

/// Istio's metrics are kept for a chain.
#[derive(Debug)]
pub struct Reporting {
    pub mesh: Arc<Mesh>,
    /// A service without another name is called by the host that a request asks for.
    pub host_fallback: bool,
    /// How often the bytes of an open TCP connection are counted.
    pub tcp_interval: Duration,
    /// Where everything goes that the chain does not answer itself, if that is one place.
    pub cluster: Option<Name>,
}

/// Where all that a route configuration forwards goes, if that is one place.
pub fn only_cluster(routes: &RouteConfiguration) -> Option<Name> {
    let routes = routes.virtual_hosts.iter().flat_map(|host| &host.routes);
    let mut targets = routes.filter_map(|route| match &route.action {
        Action::Forward(forward) => Some(&forward.target),
        Action::Redirect(_) | Action::Direct(_) | Action::NonForwarding => None,
    });
    let first = targets.next()?;
    match first {
        Target::Cluster(name) if targets.all(|other| other == first) => Some(name.clone()),
        Target::Cluster(_) | Target::Header(_) | Target::Weighted(_) => None,
    }
}

/// The identities of a connection, ours and the peer's, where it is mutual TLS.
pub fn principals(tls: Option<&PeerInfo>) -> (Option<&str>, Option<&str>) {
    let Some(tls) = tls.filter(|tls| tls.verified) else { return (None, None) };
    (tls.local_uri_sans.first().map(|san| &**san), tls.uri_sans.first().map(|san| &**san))
}

/// What the requests of one downstream connection are counted by.
#[derive(Debug)]
pub struct Scope {
    pub reporting: Arc<Reporting>,
    pub inbound: bool,
    /// Inbound: the latest cluster, and the pair of it and the peer.
    last: RefCell<Option<(Arc<Cluster>, Rc<Pair>)>>,
    /// Outbound: the latest cluster, and whether its service has a name.
    named: RefCell<Option<(Arc<Cluster>, bool)>>,
}

impl Scope {
    pub fn new(reporting: Arc<Reporting>, conn: &ConnInfo) -> Self {
        let inbound = conn.direction == Direction::Inbound;
        Self { reporting, inbound, last: RefCell::default(), named: RefCell::default() }
    }

    /// What a request from the peer of `conn` to `cluster` is counted by.
    pub fn inbound(&self, conn: &ConnInfo, cluster: &Arc<Cluster>) -> Rc<Pair> {
        let mut last = self.last.borrow_mut();
        match &*last {
            Some((known, pair)) if Arc::ptr_eq(known, cluster) => pair.clone(),
            _ => {
                let pair = inbound(&self.reporting.mesh, conn, Some(cluster));
                *last = Some((cluster.clone(), pair.clone()));
                pair
            }
        }
    }

    /// What a request is counted by that went nowhere.
    pub fn nowhere(&self, conn: &ConnInfo) -> Rc<Pair> {
        if self.inbound {
            inbound(&self.reporting.mesh, conn, None)
        } else {
            pair(&self.reporting.mesh, &Flow::default())
        }
    }

    /// What a request is counted by that this proxy answers for the services it calls. As in Istio the host is the
    /// service, and a route for hosts that nobody knows says what became of them.
    pub fn answered_here(&self, host: &str, route: Option<&str>) -> Rc<Pair> {
        let cluster = match route {
            Some("block_all") => Some(("BlackHoleCluster", None)),
            Some("allow_any") => Some(("PassthroughCluster", None)),
            _ => None,
        };
        let flow = Flow { cluster, ..Flow::default() };
        if self.reporting.host_fallback && !host.is_empty() {
            pair_of_host(&self.reporting.mesh, &flow, host)
        } else {
            pair(&self.reporting.mesh, &flow)
        }
    }

    /// What a request to `host` is counted by, where the service behind `cluster` has no other name.
    pub fn by_host(&self, cluster: &Arc<Cluster>, host: &str) -> Option<Rc<Pair>> {
        if self.inbound || !self.reporting.host_fallback {
            return None;
        }
        let mut latest = self.named.borrow_mut();
        let named = match &*latest {
            Some((known, named)) if Arc::ptr_eq(known, cluster) => *named,
            _ => {
                let services = || cluster.metadata.as_ref()?.get("istio")?.get("services");
                let named = services().is_some();
                *latest = Some((cluster.clone(), named));
                named
            }
        };
        let flow = Flow { cluster: Some((&cluster.name, cluster.metadata.as_ref())), ..Flow::default() };
        (!named).then(|| pair_of_host(&self.reporting.mesh, &flow, host))
    }
}

/// What comes in from the peer of `conn` is counted by.
fn inbound(mesh: &Arc<Mesh>, conn: &ConnInfo, cluster: Option<&Cluster>) -> Rc<Pair> {
    let flow = Flow {
        inbound: true,
        cluster: cluster.map(|cluster| (&*cluster.name, cluster.metadata.as_ref())),
        endpoint: None,
        principals: principals(conn.tls.as_deref()),
    };
    pair(mesh, &flow)
}
