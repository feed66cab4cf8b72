//! Circuit breakers of a cluster.

use outrigger_wire::pb::envoy::config::{
    cluster::v3::{
        CircuitBreakers,
        circuit_breakers::{Thresholds, thresholds::RetryBudget as PbBudget},
    },
    core::v3::RoutingPriority,
};

use super::{
    at::At,
    fields::fields,
    report::Reject,
    scalar::{enumeration, percent, u32_or},
};
use crate::ir::cluster::{BreakerThresholds, RetryBudget};

/// The limits of a cluster, by routing priority, and those of its single hosts.
#[derive(Default)]
pub(crate) struct Breakers {
    pub(crate) default: BreakerThresholds,
    pub(crate) high: BreakerThresholds,
    /// Connections to one host.
    pub(crate) per_host: Option<u32>,
}

pub(crate) fn breakers(message: &Option<CircuitBreakers>, at: &At<'_>) -> Result<Breakers, Reject> {
    let mut breakers = Breakers::default();
    let Some(message) = message else { return Ok(breakers) };
    let at = at.field("circuit_breakers");
    fields!(&at, message => CircuitBreakers { read: [thresholds, per_host_thresholds] });
    let mut given = [false; 2];
    for (i, m) in message.thresholds.iter().enumerate() {
        let at = at.index("thresholds", i);
        let (slot, seen) = match enumeration(m.priority, &at.field("priority"))? {
            RoutingPriority::Default => (&mut breakers.default, &mut given[0]),
            RoutingPriority::High => (&mut breakers.high, &mut given[1]),
        };
        // Of several for one priority Envoy uses the first.
        if std::mem::replace(seen, true) {
            at.unsupported("the first thresholds of a priority count");
            continue;
        }
        *slot = thresholds(m, &at)?;
    }
    for (i, m) in message.per_host_thresholds.iter().enumerate() {
        let at = at.index("per_host_thresholds", i);
        // Envoy refuses the others in the same way.
        let Thresholds { priority, max_connections, .. } = m;
        let alone = Thresholds { priority: *priority, max_connections: *max_connections, ..Thresholds::default() };
        if *m != alone {
            return Err(at.reject("only max_connections can be limited per host"));
        }
        match enumeration(*priority, &at.field("priority"))? {
            RoutingPriority::Default if breakers.per_host.is_none() => {
                breakers.per_host = max_connections.as_ref().map(|v| v.value);
            }
            RoutingPriority::Default => at.unsupported("the first thresholds of a priority count"),
            // One count per host, as in Envoy: only the default priority's limit is looked at.
            RoutingPriority::High => at.field("priority").unsupported("only the default priority's limit counts"),
        }
    }
    Ok(breakers)
}

fn thresholds(message: &Thresholds, at: &At<'_>) -> Result<BreakerThresholds, Reject> {
    fields!(at, message => Thresholds {
        read: [
            priority, max_connections, max_pending_requests, max_requests, max_retries, retry_budget, track_remaining,
            max_connection_pools,
        ],
    });
    let default = BreakerThresholds::default();
    let mut result = BreakerThresholds {
        max_connections: u32_or(&message.max_connections, default.max_connections),
        max_pending_requests: u32_or(&message.max_pending_requests, default.max_pending_requests),
        max_requests: u32_or(&message.max_requests, default.max_requests),
        max_retries: u32_or(&message.max_retries, default.max_retries),
        max_connection_pools: u32_or(&message.max_connection_pools, default.max_connection_pools),
        track_remaining: message.track_remaining,
        retry_budget: default.retry_budget,
    };
    if let Some(budget) = &message.retry_budget {
        let at = at.field("retry_budget");
        fields!(&at, budget => PbBudget {
            read: [budget_percent, min_retry_concurrency],
            unsupported: [budget_interval],
        });
        let share = match &budget.budget_percent {
            Some(p) => percent(p, &at.field("budget_percent"))?,
            None => 20.0,
        };
        result.retry_budget = RetryBudget {
            permille: (share * 10.0).round() as u32,
            min_concurrency: u32_or(&budget.min_retry_concurrency, 3),
            yields: false,
        };
        // A configured budget takes the place of the fixed limit.
        result.max_retries = u32::MAX;
    }
    Ok(result)
}
