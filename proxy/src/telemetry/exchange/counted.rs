//! What Istio's metrics need to know of an exchange.

use std::{rc::Rc, time::Duration};

use http::HeaderMap;

use super::RequestRecord;
use crate::telemetry::mesh::{Outcome, Pair, Protocol, Scope};

impl RequestRecord {
    /// Whether it is a gRPC call.
    pub fn grpc(&self, grpc: bool) {
        if grpc {
            self.spoken.set(Protocol::Grpc(None));
        }
    }

    /// Whom the request is counted for in Istio's metrics.
    pub fn peers(&self, pair: Rc<Pair>) {
        *self.pair.borrow_mut() = Some(pair);
    }

    /// Whether somebody said so.
    pub fn has_peers(&self) -> bool {
        self.pair.borrow().is_some()
    }

    /// Notes the status of a call, of which the last one counts.
    pub(super) fn grpc_status(&self, headers: &HeaderMap) {
        if self.scope.mesh.is_some()
            && let Protocol::Grpc(_) = self.spoken.get()
            && let Some(status) = headers.get("grpc-status")
        {
            self.spoken.set(Protocol::grpc(status.as_bytes()));
        }
    }

    pub(super) fn count(&self, scope: &Scope, took: Duration) {
        let pair = self.pair.take().unwrap_or_else(|| scope.nowhere(&self.scope.conn));
        let outcome = Outcome { code: self.status.get(), protocol: self.spoken.get(), flags: self.flags.get() };
        pair.request(outcome, took, (self.bytes_received.get(), self.bytes_sent.get()));
    }
}
