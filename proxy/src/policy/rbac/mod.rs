//! Role based access control: what a rule set says of a connection or request.
//!
//! Pure, and the same for the HTTP and the network filter: where there is no request, rules on one match nothing (the
//! decoder has refused them there). A large set is not gone through: its index names the policies that can match.

mod facts;
mod rule;
mod tree;

#[cfg(test)]
mod tests;

pub use self::facts::Facts;
use crate::ir::{
    Name,
    rbac::{Action, Engine, Policies},
};
pub use crate::telemetry::record::PeerInfo;

/// What an engine decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    pub allowed: bool,
    /// The policy that made the difference, if one matched.
    pub policy: Option<&'a Name>,
    /// `access_log_hint`, where the engine has something to say about it.
    pub log: Option<bool>,
}

/// Decides.
pub fn decide<'a>(engine: &'a Engine, facts: &Facts<'_>) -> Decision<'a> {
    match engine {
        Engine::Policies(policies) => {
            let policy = first(policies, facts);
            let matched = policy.is_some();
            let (allowed, log) = match policies.action {
                Action::Allow => (matched, None),
                Action::Deny => (!matched, None),
                Action::Log => (true, Some(matched)),
            };
            Decision { allowed, policy, log }
        }
        Engine::Tree(tree) => tree::decide(tree, facts),
    }
}

/// The first policy that matches.
fn first<'a>(set: &'a Policies, facts: &Facts<'_>) -> Option<&'a Name> {
    let holds = |place: usize| {
        let policy = set.policies.get(place)?;
        let matched = rule::matches(&policy.permissions, facts) && rule::matches(&policy.principals, facts);
        matched.then_some(&policy.name)
    };
    if !set.index.useful {
        return (0..set.policies.len()).find_map(holds);
    }
    let mut places = facts.candidates(&set.index);
    places.sort_unstable();
    places.dedup();
    places.into_iter().find_map(|place| holds(place as usize))
}

/// What a refusal is logged as. Blanks would split a log line.
pub fn details(policy: Option<&Name>) -> String {
    let policy = policy.map_or("none", |name| &**name);
    let policy: String = policy.chars().map(|c| if c.is_ascii_whitespace() { '_' } else { c }).collect();
    format!("rbac_access_denied_matched_policy[{policy}]")
}
