//! One dial of a lane: connects, starts the protocol, hands the connection over.
//!
//! Runs on its own: the connection is of use even when the request that caused it went elsewhere or away.

use std::{cell::OnceCell, rc::Rc, sync::Arc};

use super::{
    Payload, http1, http2,
    lane::Lane,
    metered::Metered,
    types::{Facts, HttpProtocol, Protocol},
};
use crate::upstream::{Cluster, ConnectError, ConnectErrorKind, ConnectOptions, connect};

/// What a dial on behalf of a waiting request needs.
pub(super) struct Plan {
    pub(super) cluster: Arc<Cluster>,
    pub(super) options: ConnectOptions,
}

/// A dial in progress; dropping it, however it ends, takes it out of the lane's expectations.
pub(super) struct Dial<B: Payload> {
    lane: Rc<Lane<B>>,
    brings: usize,
}

impl<B: Payload> Dial<B> {
    pub(super) fn new(lane: Rc<Lane<B>>, brings: usize) -> Self {
        lane.dial_started(brings);
        Self { lane, brings }
    }
}

impl<B: Payload> Drop for Dial<B> {
    fn drop(&mut self) {
        self.lane.dial_ended(self.brings);
    }
}

/// Opens a connection and hands it to the lane; the `first` one whatever the limit.
pub(super) async fn dial<B: Payload>(dial: Dial<B>, plan: Rc<Plan>, first: bool) {
    let lane = dial.lane.clone();
    let generation = lane.endpoint.tls.as_ref().map(|t| t.generation());
    let options = ConnectOptions { past_limit: first, ..plan.options.clone() };
    let connected = match connect(&plan.cluster, &lane.endpoint, &options).await {
        Ok(connected) => connected,
        Err(error) => {
            drop(dial);
            return lane.fail_waiters(&error);
        }
    };
    let protocol = match lane.protocol {
        Protocol::Http1 => HttpProtocol::Http1,
        Protocol::Http2 => HttpProtocol::Http2,
        Protocol::Auto => match connected.alpn.as_deref() {
            Some("h2" | "istio-h2") => HttpProtocol::Http2,
            _ => HttpProtocol::Http1,
        },
    };
    let facts = Rc::new(Facts {
        host: lane.endpoint.label.clone(),
        local: connected.local,
        remote: connected.remote,
        protocol,
        tls: connected.tls,
        metadata: lane.endpoint.metadata(),
        pair: OnceCell::new(),
    });
    let io = Metered::new(connected.io, plan.cluster.stats.clone(), connected.permit);
    let opened = match protocol {
        HttpProtocol::Http1 => match http1::open(&lane, &plan.cluster, io, facts, generation).await {
            Ok(connection) => {
                lane.add_http1(connection.clone());
                drop(dial);
                lane.offer_http1(connection);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        },
        HttpProtocol::Http2 => match http2::open(&lane, &plan.cluster, io, facts, generation).await {
            Ok(connection) => {
                lane.add_http2(connection.clone());
                drop(dial);
                lane.offer_http2(&connection);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        },
    };
    match opened {
        // The connection may bring less than it was expected to.
        Ok(()) => lane.dial_for_waiters(),
        Err(error) => {
            let reason = format!("HTTP handshake failed: {error}");
            lane.fail_waiters(&ConnectError { kind: ConnectErrorKind::Io, reason });
        }
    }
}
