//! Role based access control of connections.

use super::filters::Refusal;
use crate::{
    ir::{Metadata, rbac::Engine},
    live::LiveNetworkRbac,
    policy::rbac::{self, Decision, Facts},
    telemetry::{flags::Flags, record::ConnInfo},
};

/// Decides on a connection and counts it.
pub(super) fn check(filter: &LiveNetworkRbac, info: &ConnInfo) -> Result<(), Refusal> {
    let config = &filter.config.rbac;
    let Some(engine) = &config.rules else { return Ok(()) };
    let decision = decide(engine, info);
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

fn decide<'a>(engine: &'a Engine, info: &ConnInfo) -> Decision<'a> {
    let metadata = info.metadata.get();
    rbac::decide(engine, &facts(info, metadata.as_deref()))
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
