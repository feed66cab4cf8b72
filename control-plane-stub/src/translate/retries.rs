//! Retry policies of routes, with Istio's defaults.

use super::pb::{self, any, route};
use crate::model::Retries;
use outrigger_wire::pb::envoy::extensions::retry::{
    host::previous_hosts::v3::PreviousHostsPredicate, priority::previous_priorities::v3::PreviousPrioritiesConfig,
};
use route::retry_policy::{RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority};

/// What is retried where nothing is said, as in Istio up to 1.23: what never reached an application, what it took back,
/// and a 503, which is also what the sidecar of a Pod that leaves answers once its application is gone.
const RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";

/// The policy of a route; `hashed` where requests belong to one endpoint, which a retry must not leave.
pub(super) fn policy(retries: Option<&Retries>, hashed: bool) -> Option<route::RetryPolicy> {
    if retries.is_some_and(|r| r.attempts == 0) {
        return None;
    }
    let mut policy = route::RetryPolicy {
        retry_on: RETRY_ON.to_owned(),
        num_retries: pb::number(2),
        retriable_status_codes: vec![503],
        retry_host_predicate: if hashed { Vec::new() } else { vec![other_hosts()] },
        host_selection_retry_max_attempts: 5,
        ..Default::default()
    };
    let Some(retries) = retries else { return Some(policy) };
    policy.num_retries = pb::number(retries.attempts.into());
    policy.per_try_timeout = retries.per_try_timeout.and_then(|t| pb::duration(t.0));
    if !retries.retry_on.conditions.is_empty() || !retries.retry_on.codes.is_empty() {
        let mut conditions = retries.retry_on.conditions.clone();
        if !retries.retry_on.codes.is_empty() && !conditions.iter().any(|c| c == "retriable-status-codes") {
            conditions.push("retriable-status-codes".to_owned());
        }
        policy.retry_on = conditions.join(",");
        policy.retriable_status_codes.clone_from(&retries.retry_on.codes);
    }
    match retries.retry_ignore_previous_hosts {
        Some(true) => policy.retry_host_predicate = vec![other_hosts()],
        Some(false) => {
            policy.retry_host_predicate.clear();
            policy.host_selection_retry_max_attempts = 0;
        }
        None => {}
    }
    if retries.retry_remote_localities {
        let config = any(PreviousPrioritiesConfig { update_frequency: 2 });
        policy.retry_priority = Some(RetryPriority {
            name: "envoy.retry_priorities.previous_priorities".to_owned(),
            config_type: Some(retry_priority::ConfigType::TypedConfig(config)),
        });
    }
    policy.retry_back_off = retries.backoff.map(|backoff| RetryBackOff {
        base_interval: pb::duration(backoff.0),
        max_interval: pb::duration(backoff.0 * 10),
    });
    Some(policy)
}

fn other_hosts() -> RetryHostPredicate {
    let config = any(PreviousHostsPredicate::default());
    RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(config)),
    }
}
