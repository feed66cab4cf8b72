//! AuthorizationPolicies as filters of an inbound chain: CUSTOM asks first, then DENY, then ALLOW.
//!
//! Each action is one RBAC filter whose policies are rules, named as Istio names them. Dry-run policies are its shadow
//! rules. Attributes of HTTP that a connection does not have narrow an ALLOW rule to nothing and widen a DENY rule to
//! everything else it says: what is not known is never let in.

mod custom;
mod matchers;
mod rules;

use std::collections::BTreeMap;

use outrigger_wire::pb::envoy::config::rbac::v3::rbac::Action as Effect;

pub(super) use self::matchers::TOKEN_PAYLOAD;
use self::rules::Rules;
use super::{
    filters,
    pb::{self, hcm, listener},
    scope::Scope,
    tokens,
};
use crate::model::{Action, AuthorizationPolicy, Object, Place, Service};

pub(super) const HTTP_RBAC: &str = "envoy.filters.http.rbac";
pub(super) const NETWORK_RBAC: &str = "envoy.filters.network.rbac";

/// What stands before the application on one port.
#[derive(Clone, Debug, Default)]
pub(super) struct Guards {
    pub http: Vec<hcm::HttpFilter>,
    pub tcp: Vec<listener::Filter>,
}

/// Which filter chain is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Http,
    Tcp,
}

/// The guards of a port that the Services named `services` lead to.
pub(super) fn guards(scope: &Scope<'_>, services: &[String]) -> Guards {
    let place = Place { namespace: scope.namespace, labels: scope.labels, services };
    let mut by_action: BTreeMap<Action, Vec<&Object<AuthorizationPolicy>>> = BTreeMap::new();
    for object in scope.world.authorization(place) {
        by_action.entry(object.spec.action).or_default().push(object);
    }
    let of = |action: Action| by_action.get(&action).map(Vec::as_slice).unwrap_or_default();
    let mut guards = Guards::default();
    custom::filters(scope, of(Action::Custom), &mut guards);
    guards.http.extend(tokens::filter(scope, place));
    for (action, effect) in [(Action::Audit, Effect::Log), (Action::Deny, Effect::Deny), (Action::Allow, Effect::Allow)]
    {
        let policies = of(action);
        if policies.is_empty() {
            continue;
        }
        guards.http.push(http(both(scope, policies, (effect, Layer::Http)), dry_run_prefix(effect)));
        guards.tcp.push(tcp(both(scope, policies, (effect, Layer::Tcp)), dry_run_prefix(effect)));
    }
    guards
}

/// The services that security policies of this workload ask: providers of CUSTOM policies, and holders of keys.
pub(super) fn asked<'a>(scope: &Scope<'a>) -> Vec<&'a Service> {
    let services = scope.own_services(None);
    let place = Place { namespace: scope.namespace, labels: scope.labels, services: &services };
    let world = scope.world;
    let custom = world.authorization_policies.iter().filter(|object| object.holds_at(&world.settings, place));
    let providers = custom.filter_map(|object| world.mesh.provider(&object.spec.provider.as_ref()?.name));
    let hosts = providers.filter_map(|provider| Some(provider.call()?.service));
    hosts.filter_map(|host| world.services.get(host)).chain(tokens::asked(scope)).collect()
}

/// Enforced rules and shadow rules.
type RulesAndShadow = (Option<Rules>, Option<Rules>);

fn both(
    scope: &Scope<'_>,
    policies: &[&Object<AuthorizationPolicy>],
    (effect, layer): (Effect, Layer),
) -> RulesAndShadow {
    let of = |dry_run: bool| {
        let wanted: Vec<_> = policies.iter().copied().filter(|object| object.is_dry_run() == dry_run).collect();
        (!wanted.is_empty()).then(|| rules::of(scope, &wanted, (effect, layer), ""))
    };
    (of(false), of(true))
}

fn dry_run_prefix(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "istio_dry_run_allow_",
        Effect::Deny => "istio_dry_run_deny_",
        Effect::Log => "",
    }
}

/// The HTTP filter. The maps within are written in order, which generated types cannot.
fn http((rules, shadow): RulesAndShadow, prefix: &str) -> hcm::HttpFilter {
    let mut message = pb::Message::default();
    message.optional(1, rules.map(|r| r.encode()));
    message.optional(2, shadow.as_ref().map(Rules::encode));
    if shadow.is_some() {
        message.text(3, prefix);
    }
    filters::http_filter(HTTP_RBAC, message.any("envoy.extensions.filters.http.rbac.v3.RBAC"))
}

fn tcp((rules, shadow): RulesAndShadow, prefix: &str) -> listener::Filter {
    let mut message = pb::Message::default();
    message.optional(1, rules.map(|r| r.encode()));
    message.optional(2, shadow.as_ref().map(Rules::encode));
    message.text(3, "tcp.");
    if shadow.is_some() {
        message.text(5, prefix);
    }
    filters::network(NETWORK_RBAC, message.any("envoy.extensions.filters.network.rbac.v3.RBAC"))
}
