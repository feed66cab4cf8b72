//! Role based access control of requests, as [`policy::rbac`](crate::policy::rbac) decides.

use std::{net::SocketAddr, sync::Arc};

use http::StatusCode;
use serde_json::{Map, Value};

use super::{Call, Stop, is_on, rbac_in_force};
use crate::{
    ir::{
        http::FilterKind,
        rbac::{Engine, Rbac},
    },
    l7::{pipeline::Inbound, respond::Reply},
    live::RbacCounts,
    policy::{
        rbac::{self, Decision, Facts},
        router::RequestFacts,
    },
};

/// Where results are noted, whatever the filter's name.
const NAMESPACE: &str = "envoy.filters.http.rbac";

/// What filters tell each other and access logs.
const COMMON: &str = "envoy.common";

impl Call<'_> {
    /// Decides with `rbac`; `counts` are the filter's, whatever a route overrides.
    pub(super) fn rbac(&self, rbac: &Arc<Rbac>, counts: &RbacCounts, request: &Inbound) -> Result<(), Stop> {
        if let Some(engine) = &rbac.shadow {
            // Statistics and metadata are all that comes of it.
            self.decide(engine, request, |decision| {
                counts.shadow.count(decision.allowed, decision.policy);
                if self.results_are_read() {
                    self.note(&rbac.shadow_prefix, "shadow", decision);
                }
            });
        }
        let Some(engine) = &rbac.rules else { return Ok(()) };
        self.decide(engine, request, |decision| {
            counts.rules.count(decision.allowed, decision.policy);
            let noted = self.results_are_read();
            if let Some(log) = decision.log.filter(|_| noted) {
                self.flow.record.metadata.set(COMMON, Map::from_iter([("access_log_hint".into(), Value::Bool(log))]));
            }
            if noted {
                self.note(&rbac.rules_prefix, "enforced", decision);
            }
            denial(decision).map_or(Ok(()), |reply| Err(Stop::Reply(Box::new(reply))))
        })
    }

    /// Why the filters would refuse a request now that they let through. `whole`: its headers are known.
    pub(in crate::l7) fn refused_again(
        &self,
        request: RequestFacts<'_>,
        client: SocketAddr,
        whole: bool,
    ) -> Option<String> {
        let levels = self.concerned()?;
        let mut on = self.filters.list().iter().enumerate().filter(|(_, filter)| is_on(filter, &levels));
        on.find_map(|(place, filter)| {
            let FilterKind::Rbac(base) = &filter.kind else { return None };
            let engine = rbac_in_force(base, filter, &levels)?.rules.as_ref()?;
            if !whole && engine.reads_headers() {
                return Some("no_longer_known".to_owned());
            }
            let refused = |decision: Decision<'_>| {
                let counts = self.filters.rbac(place).filter(|_| !decision.allowed)?;
                counts.rules.count(false, decision.policy);
                Some(rbac::details(decision.policy))
            };
            self.judge(engine, (request, client), refused)
        })
    }

    /// Has `then` look at what the engine says of the request.
    pub(super) fn decide<T>(&self, engine: &Engine, request: &Inbound, then: impl FnOnce(Decision<'_>) -> T) -> T {
        self.judge(engine, (request.facts(self.random), request.sane.origin.remote), then)
    }

    fn judge<T>(
        &self,
        engine: &Engine,
        (request, client): (RequestFacts<'_>, SocketAddr),
        then: impl FnOnce(Decision<'_>) -> T,
    ) -> T {
        let conn = &self.conn.scope.conn;
        let decision = {
            let dynamic = self.flow.record.metadata.get();
            rbac::decide(
                engine,
                &Facts {
                    tls: conn.tls.as_deref(),
                    local: conn.local,
                    peer: conn.remote,
                    client,
                    server_name: conn.server_name.as_deref().unwrap_or_default(),
                    http: Some(request),
                    dynamic: dynamic.as_deref(),
                    route: self.selected.and_then(|s| s.route.metadata.as_deref()),
                },
            )
        };
        then(decision)
    }

    /// Notes cost more than most decisions.
    pub(super) fn results_are_read(&self) -> bool {
        self.filters.results_are_read || self.table.is_some_and(|table| table.looks_at_notes)
    }

    pub(super) fn note(&self, prefix: &str, engine: &str, decision: Decision<'_>) {
        let result = if decision.allowed { "allowed" } else { "denied" };
        let mut fields = Map::new();
        if let Some(policy) = decision.policy {
            fields.insert(format!("{prefix}{engine}_effective_policy_id"), Value::String(policy.to_string()));
        }
        fields.insert(format!("{prefix}{engine}_engine_result"), Value::String(result.into()));
        self.flow.record.metadata.set(NAMESPACE, fields);
    }
}

/// The answer that a decision comes to, if any.
pub(super) fn denial(decision: Decision<'_>) -> Option<Reply> {
    (!decision.allowed)
        .then(|| Reply::new(StatusCode::FORBIDDEN, rbac::details(decision.policy)).body("RBAC: access denied"))
}
