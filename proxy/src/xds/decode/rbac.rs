//! The RBAC filters, HTTP and network.

use outrigger_wire::pb::{
    envoy::{
        config::rbac::v3::{self as pb, rbac},
        extensions::filters::{
            http::rbac::v3::Rbac as PbHttp,
            network::rbac::v3::{Rbac as PbNetwork, rbac::EnforcementType},
        },
    },
    xds::r#type::matcher::v3::Matcher as PbMatcher,
};

use super::{
    at::At,
    fields::fields,
    rbac_rule::{permission, principal},
    rbac_tree,
    report::{NoteKind, Reject},
    scalar::{enumeration, not_empty, zero_is_off},
};
use crate::ir::rbac::{Action, Engine, NetworkRbac, Policies, Policy, Rbac, Rule};

/// Where rules apply: those on requests have no meaning where there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    Http,
    Network,
}

pub(crate) fn http(message: &PbHttp, at: &At<'_>) -> Result<Rbac, Reject> {
    fields!(at, message => PbHttp {
        read: [
            rules, rules_stat_prefix, matcher, shadow_rules, shadow_matcher, shadow_rules_stat_prefix,
            track_per_rule_stats,
        ],
    });
    let at = (at, Layer::Http);
    Ok(Rbac {
        rules: engine(("rules", &message.rules), ("matcher", &message.matcher), at)?,
        shadow: engine(("shadow_rules", &message.shadow_rules), ("shadow_matcher", &message.shadow_matcher), at)?,
        rules_prefix: message.rules_stat_prefix.as_str().into(),
        shadow_prefix: message.shadow_rules_stat_prefix.as_str().into(),
        track_per_rule: message.track_per_rule_stats,
    })
}

pub(crate) fn network(message: &PbNetwork, at: &At<'_>) -> Result<NetworkRbac, Reject> {
    fields!(at, message => PbNetwork {
        read: [
            rules, matcher, shadow_rules, shadow_matcher, shadow_rules_stat_prefix, stat_prefix, enforcement_type,
            delay_deny,
        ],
    });
    let enforcement: EnforcementType = enumeration(message.enforcement_type, &at.field("enforcement_type"))?;
    if enforcement == EnforcementType::Continuous {
        // Nothing here changes what a decision looks at while bytes pass, but its rules: those are always obeyed.
        at.field("enforcement_type").harmless("connections are decided on once, and again when the rules change");
    }
    let delay_deny = zero_is_off(at.duration("delay_deny", &message.delay_deny)?);
    let stat_prefix = not_empty(&message.stat_prefix, &at.field("stat_prefix"))?;
    let at = (at, Layer::Network);
    let rbac = Rbac {
        rules: engine(("rules", &message.rules), ("matcher", &message.matcher), at)?,
        shadow: engine(("shadow_rules", &message.shadow_rules), ("shadow_matcher", &message.shadow_matcher), at)?,
        shadow_prefix: message.shadow_rules_stat_prefix.as_str().into(),
        ..Rbac::default()
    };
    Ok(NetworkRbac { stat_prefix: stat_prefix.into(), rbac, delay_deny })
}

fn engine(
    (rules_name, rules): (&str, &Option<pb::Rbac>),
    (tree_name, tree): (&str, &Option<PbMatcher>),
    (at, layer): (&At<'_>, Layer),
) -> Result<Option<Engine>, Reject> {
    // What is ignored beside a match tree is decoded all the same: nobody relies on rules that mean nothing.
    let rules = rules.as_ref().map(|m| policies(m, layer, &at.field(rules_name))).transpose()?;
    let Some(tree) = tree else { return Ok(rules.map(Engine::Policies)) };
    if rules.is_some() {
        at.field(rules_name).harmless(format!("{tree_name} takes its place"));
    }
    rbac_tree::tree(tree, layer, &at.field(tree_name)).map(|tree| Some(Engine::Tree(tree)))
}

pub(super) fn action(value: i32, at: &At<'_>) -> Result<Action, Reject> {
    Ok(match enumeration(value, at)? {
        rbac::Action::Allow => Action::Allow,
        rbac::Action::Deny => Action::Deny,
        rbac::Action::Log => Action::Log,
    })
}

fn policies(message: &pb::Rbac, layer: Layer, at: &At<'_>) -> Result<Policies, Reject> {
    fields!(at, message => pb::Rbac { read: [action, policies, audit_logging_options] });
    if let Some(options) = &message.audit_logging_options
        && !options.logger_configs.is_empty()
    {
        at.field("audit_logging_options").note(NoteKind::Unsupported, "there are no audit loggers");
    }
    let mut all = Vec::with_capacity(message.policies.len());
    // In a stable order: a set with several faults is always refused for the same one.
    let mut named: Vec<_> = message.policies.iter().collect();
    named.sort_by_key(|(name, _)| *name);
    for (name, one) in named {
        all.push(policy(name, one, layer, &at.key("policies", name))?);
    }
    Ok(Policies::new(action(message.action, &at.field("action"))?, all))
}

fn policy(name: &str, message: &pb::Policy, layer: Layer, at: &At<'_>) -> Result<Policy, Reject> {
    // A condition that is skipped would open what it guards.
    fields!(at, message => pb::Policy {
        read: [permissions, principals],
        refuse: [condition, checked_condition, cel_config],
    });
    let any_of = |name: &str, rules: Vec<Rule>| match rules.len() {
        0 => Err(at.field(name).reject("must not be empty")),
        _ => Ok(Rule::any_of(rules)),
    };
    let permissions = at.each("permissions", &message.permissions, |m, at| permission(m, layer, at))?;
    let principals = at.each("principals", &message.principals, |m, at| principal(m, layer, at))?;
    Ok(Policy {
        name: name.into(),
        permissions: any_of("permissions", permissions)?,
        principals: any_of("principals", principals)?,
    })
}
