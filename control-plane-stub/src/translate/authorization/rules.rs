//! The rules of policies as one RBAC message.

use std::collections::BTreeMap;

use outrigger_wire::pb::envoy::config::rbac::v3::{
    Permission, Policy, Principal, permission, principal, rbac::Action as Effect,
};
use prost::Message;

use super::{Layer, matchers};
use crate::{
    model::{AuthorizationPolicy, Clause, Object, Rule},
    translate::{pb, scope::Scope},
};

/// An RBAC message whose policies have an order.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub effect: Effect,
    pub policies: BTreeMap<String, Policy>,
}

impl Rules {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut message = pb::Message::default();
        message.number(1, self.effect as u64);
        for (name, policy) in &self.policies {
            let mut entry = pb::Message::default();
            entry.text(1, name);
            entry.bytes(2, &policy.encode_to_vec());
            message.bytes(2, &entry.0);
        }
        message.0
    }
}

/// The rules of `policies`, their names beginning with `prefix`.
pub(super) fn of(
    scope: &Scope<'_>,
    policies: &[&Object<AuthorizationPolicy>],
    (effect, layer): (Effect, Layer),
    prefix: &str,
) -> Rules {
    let mut rules = Rules { effect, policies: BTreeMap::new() };
    for object in policies {
        let name =
            |index: usize| format!("{prefix}ns[{}]-policy[{}]-rule[{index}]", object.meta.namespace, object.meta.name);
        if object.spec.rules.is_empty() {
            rules.policies.insert(name(0), never());
        }
        for (index, rule) in object.spec.rules.iter().enumerate() {
            let context = Context { scope, namespace: &object.meta.namespace, effect, layer };
            if let Some(policy) = context.policy(rule) {
                rules.policies.insert(name(index), policy);
            }
        }
    }
    rules
}

/// Matches nothing: an ALLOW policy without rules allows nobody.
fn never() -> Policy {
    let any = Permission { rule: Some(permission::Rule::Any(true)) };
    let anybody = Principal { identifier: Some(principal::Identifier::Any(true)) };
    Policy {
        permissions: vec![Permission { rule: Some(permission::Rule::NotRule(Box::new(any))) }],
        principals: vec![Principal { identifier: Some(principal::Identifier::NotId(Box::new(anybody))) }],
        ..Default::default()
    }
}

pub(super) struct Context<'a, 'b> {
    pub scope: &'b Scope<'a>,
    /// The policy's.
    pub namespace: &'b str,
    pub effect: Effect,
    pub layer: Layer,
}

impl Context<'_, '_> {
    /// None where the rule asks for what the connection does not have, and matching less is the safe side.
    fn policy(&self, rule: &Rule) -> Option<Policy> {
        let (calls, callers) = (rule.calls(), rule.callers());
        let permissions: Option<Vec<_>> = calls.iter().map(|clauses| self.permission(clauses)).collect();
        let principals: Option<Vec<_>> = callers.iter().map(|clauses| self.principal(clauses)).collect();
        Some(Policy { permissions: permissions?, principals: principals?, ..Default::default() })
    }

    /// The clauses that a connection of the layer has; none if an ALLOW rule needs others.
    fn known<'c>(&self, clauses: &[Clause<'c>]) -> Option<Vec<Clause<'c>>> {
        if self.layer == Layer::Http {
            return Some(clauses.to_vec());
        }
        let known: Vec<_> = clauses.iter().copied().filter(|clause| !clause.is_http_only()).collect();
        (self.effect != Effect::Allow || known.len() == clauses.len()).then_some(known)
    }

    fn permission(&self, clauses: &[Clause<'_>]) -> Option<Permission> {
        let mut all: Vec<_> = self.known(clauses)?.iter().flat_map(matchers::permissions).collect();
        if all.is_empty() {
            all.push(Permission { rule: Some(permission::Rule::Any(true)) });
        }
        Some(Permission { rule: Some(permission::Rule::AndRules(permission::Set { rules: all })) })
    }

    fn principal(&self, clauses: &[Clause<'_>]) -> Option<Principal> {
        let known = self.known(clauses)?;
        let mut all: Vec<_> = known.iter().flat_map(|clause| matchers::principals(self, clause)).collect();
        if all.is_empty() {
            all.push(Principal { identifier: Some(principal::Identifier::Any(true)) });
        }
        Some(Principal { identifier: Some(principal::Identifier::AndIds(principal::Set { ids: all })) })
    }
}
