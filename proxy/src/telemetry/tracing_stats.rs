//! Statistics of tracing decisions, `http.<stat_prefix>.tracing.*` under Envoy's names.

use super::{
    metrics::{Block, Counter, Kind},
    trace::sampling::Reason,
};

/// Of the connection managers with one stat prefix.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct TracingStats {
    random_sampling: Counter,
    service_forced: Counter,
    client_enabled: Counter,
    not_traceable: Counter,
    /// Envoy counts requests here that its health check filter answers, which this proxy does not have.
    health_check: Counter,
}

impl TracingStats {
    pub fn count(&self, reason: Reason) {
        match reason {
            Reason::NotTraceable => &self.not_traceable,
            Reason::Sampling => &self.random_sampling,
            Reason::ServiceForced => &self.service_forced,
            Reason::ClientForced => &self.client_enabled,
        }
        .inc();
    }
}

impl Block for TracingStats {
    fn visit(&self, visitor: &mut dyn FnMut(&'static str, Kind, u64)) {
        for (name, counter) in [
            ("tracing.random_sampling", &self.random_sampling),
            ("tracing.service_forced", &self.service_forced),
            ("tracing.client_enabled", &self.client_enabled),
            ("tracing.not_traceable", &self.not_traceable),
            ("tracing.health_check", &self.health_check),
        ] {
            visitor(name, Kind::Counter, counter.get());
        }
    }
}
