//! Role based access control of connections.

use serde_json::{Map, Value};

use super::filters::Refusal;
use crate::{
    ir::{Metadata, rbac::Engine},
    live::LiveNetworkRbac,
    policy::rbac::{self, Decision, Facts},
    telemetry::{flags::Flags, record::ConnInfo},
};

/// Where results are noted.
const NAMESPACE: &str = "envoy.filters.network.rbac";
const COMMON: &str = "envoy.common";

/// Decides on a connection and counts it.
pub(super) fn check(filter: &LiveNetworkRbac, info: &ConnInfo) -> Result<(), Refusal> {
    let config = &filter.config.rbac;
    if let Some(engine) = &config.shadow {
        let decision = decide(engine, info);
        filter.counts.shadow.count(decision.allowed, decision.policy);
        note(info, &config.shadow_prefix, decision);
    }
    let Some(engine) = &config.rules else { return Ok(()) };
    let decision = decide(engine, info);
    filter.counts.rules.count(decision.allowed, decision.policy);
    if let Some(log) = decision.log {
        info.metadata.set(COMMON, Map::from_iter([("access_log_hint".into(), Value::Bool(log))]));
    }
    if decision.allowed {
        return Ok(());
    }
    let details = rbac::details(decision.policy).into();
    Err(Refusal { flags: Flags::default(), details, delay: filter.config.delay_deny })
}

/// Whether it would pass. Counts nothing.
pub(super) fn allows(filter: &LiveNetworkRbac, info: &ConnInfo) -> bool {
    filter.config.rbac.rules.as_ref().is_none_or(|engine| decide(engine, info).allowed)
}

pub(super) fn decide<'a>(engine: &'a Engine, info: &ConnInfo) -> Decision<'a> {
    let metadata = info.metadata.get();
    rbac::decide(engine, &facts(info, metadata.as_deref()))
}

/// Why a connection that passed before would be refused now. Counts only that.
pub(super) fn refusal(filter: &LiveNetworkRbac, info: &ConnInfo) -> Option<String> {
    let decision = decide(filter.config.rbac.rules.as_ref()?, info);
    if decision.allowed {
        return None;
    }
    filter.counts.rules.count(false, decision.policy);
    Some(rbac::details(decision.policy))
}

/// Notes what shadow rules say.
fn note(info: &ConnInfo, prefix: &str, decision: Decision<'_>) {
    let result = if decision.allowed { "allowed" } else { "denied" };
    let mut fields = Map::new();
    if let Some(policy) = decision.policy {
        fields.insert(format!("{prefix}shadow_effective_policy_id"), Value::String(policy.to_string()));
    }
    fields.insert(format!("{prefix}shadow_engine_result"), Value::String(result.into()));
    info.metadata.set(NAMESPACE, fields);
}

/// What is known of a connection without a request.
fn facts<'a>(info: &'a ConnInfo, metadata: Option<&'a Metadata>) -> Facts<'a> {
    Facts {
        tls: info.tls.as_deref(),
        local: info.local,
        peer: info.remote,
        client: info.remote,
        server_name: info.server_name.as_deref().unwrap_or_default(),
        http: None,
        dynamic: metadata,
        route: None,
    }
}
