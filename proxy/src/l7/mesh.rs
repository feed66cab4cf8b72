//! Whom a request is counted for in Istio's metrics: told to its record once it is known where it went.
//!
//! Outbound that is known of the upstream connection, inbound of the client's; each is looked up once.

use std::{rc::Rc, sync::Arc};

use http::{HeaderMap, header};

use super::{client::Facts, flow::Flow, server::Connection};
use crate::{
    telemetry::mesh::{self, Pair, Scope, principals},
    upstream::{Cluster, Endpoint},
};

/// The request goes to a service that has no other name than the host it asks for.
pub(super) fn by_host(conn: &Connection, flow: &Flow, cluster: &Cluster, host: &str) {
    if let Some(scope) = &conn.scope.mesh
        && let Some(pair) = scope.by_host(&cluster.config, host)
    {
        flow.record.peers(pair);
    }
}

/// An upstream answered.
pub(super) fn answered(conn: &Connection, flow: &Flow, cluster: &Cluster, facts: &Facts) {
    let Some(scope) = &conn.scope.mesh else { return };
    let outbound = || {
        let tls = principals(facts.tls.as_deref());
        outbound(scope, cluster, facts.metadata.as_ref(), tls)
    };
    note(conn, flow, cluster, scope, || facts.pair.get_or_init(outbound).clone());
}

/// A try failed, or there was nobody to try.
pub(super) fn failed(conn: &Connection, flow: &Flow, cluster: &Cluster, endpoint: Option<&Endpoint>) {
    let Some(scope) = &conn.scope.mesh else { return };
    let metadata = endpoint.and_then(Endpoint::metadata);
    note(conn, flow, cluster, scope, || outbound(scope, cluster, metadata.as_ref(), (None, None)));
}

/// This proxy answers itself, perhaps without having looked where the request would have gone.
pub(super) fn replied(conn: &Connection, flow: &Flow, headers: &HeaderMap, route: Option<&str>) {
    let Some(scope) = conn.scope.mesh.as_ref().filter(|_| !flow.record.has_peers()) else { return };
    if !scope.inbound {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        return flow.record.peers(scope.answered_here(host, route));
    }
    let live = conn.engine.live.get();
    if let Some(cluster) = scope.reporting.cluster.as_ref().and_then(|name| live.cluster(name)) {
        flow.record.peers(scope.inbound(&conn.scope.conn, &cluster.config));
    }
}

fn note(conn: &Connection, flow: &Flow, cluster: &Cluster, scope: &Scope, outbound: impl FnOnce() -> Rc<Pair>) {
    if scope.inbound {
        return flow.record.peers(scope.inbound(&conn.scope.conn, &cluster.config));
    }
    let pair = outbound();
    // What the host says of a service that nothing else is known of is better than nothing.
    if !pair.wants_host || !flow.record.has_peers() {
        flow.record.peers(pair);
    }
}

fn outbound(
    scope: &Scope,
    cluster: &Cluster,
    endpoint: Option<&Arc<crate::ir::Metadata>>,
    principals: (Option<&str>, Option<&str>),
) -> Rc<Pair> {
    let config = &cluster.config;
    let flow =
        mesh::Flow { inbound: false, cluster: Some((&config.name, config.metadata.as_ref())), endpoint, principals };
    mesh::pair(&scope.reporting.mesh, &flow)
}
