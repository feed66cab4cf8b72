//! AuthorizationPolicies: actions that can be taken, rules that say something.

use super::{attachment, place};
use crate::model::{
    Action, AuthorizationPolicy, Caller, Clause, Key, Object, Operation, Problem, Rule,
    authorization::{DRY_RUN, Pattern, dry_run},
    world::World,
};

/// As many service accounts as Istio takes in one list.
const MAX_ACCOUNTS: usize = 16;

pub(super) fn check(world: &World, notes: &mut Vec<String>, problems: &mut Vec<Problem>) {
    for object in &world.authorization_policies {
        let spec = &object.spec;
        attachment::check(world, object, (spec.selector.as_ref(), &spec.target_ref), notes, problems);
        action(world, object, problems);
        for (index, rule) in spec.rules.iter().enumerate() {
            let mut problem = |path: String, reason: String| {
                problems.push(object.source.problem(format!("spec.rules[{index}]{path}"), reason));
            };
            checked(rule, spec.action, &mut problem);
        }
        let mut note = |text: &str| notes.push(format!("AuthorizationPolicy {}: {text}", place(object)));
        if matches!(spec.action, Action::Deny | Action::Custom) && spec.rules.iter().any(denies_tcp) {
            note("a rule with nothing but attributes of HTTP takes every connection to ports that are not HTTP");
        }
        if spec.rules.iter().any(reads_tokens) && !has_tokens(world, object) {
            note("asks for tokens, but no RequestAuthentication of its namespace or the mesh checks any");
        }
    }
}

fn action(world: &World, object: &Object<AuthorizationPolicy>, problems: &mut Vec<Problem>) {
    let spec = &object.spec;
    let mut problem = |path: &str, reason: String| problems.push(object.source.problem(path, reason));
    let annotation = format!("metadata.annotations.{DRY_RUN}");
    match dry_run(&object.meta) {
        None => problem(&annotation, "is neither true nor false".to_owned()),
        Some(true) if spec.action == Action::Custom => {
            problem(&annotation, "CUSTOM has no dry run: only its provider knows the answer".to_owned());
        }
        Some(_) => {}
    }
    if spec.rules.is_empty() && matches!(spec.action, Action::Deny | Action::Custom) {
        problem("spec.rules", "is empty, so it never matches: add a rule {} to match everything".to_owned());
    }
    match (&spec.provider, spec.action) {
        (Some(provider), Action::Custom) if world.mesh.provider(&provider.name).is_none() => {
            let known: Vec<_> = world.mesh.extension_providers.iter().map(|p| p.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let reason = format!("no MeshConfig declares a provider {}; known: {known}", provider.name);
            problem("spec.provider.name", reason);
        }
        (None, Action::Custom) => problem("spec.provider", "is missing: CUSTOM needs to know whom to ask".to_owned()),
        (Some(_), Action::Allow | Action::Deny | Action::Audit) => {
            problem("spec.provider", "is for action CUSTOM only".to_owned());
        }
        _ => {}
    }
}

fn checked(rule: &Rule, action: Action, problem: &mut impl FnMut(String, String)) {
    for (index, from) in rule.from.iter().enumerate() {
        let path = format!(".from[{index}].source");
        source(&from.source, action, &path, problem);
    }
    for (index, to) in rule.to.iter().enumerate() {
        if to.operation == Operation::default() {
            problem(format!(".to[{index}].operation"), "must not be empty: remove it to match everything".to_owned());
        }
    }
    for (index, condition) in rule.when.iter().enumerate() {
        let key = &condition.key;
        let of_identity = matches!(condition.compared, Key::Namespace(_) | Key::ServiceAccount(_) | Key::Principal(_));
        if action == Action::Custom && (of_identity || key.starts_with("request.auth.")) {
            problem(format!(".when[{index}].key"), format!("{key} is not supported with action CUSTOM"));
        }
        if let Key::Principal(lists) = &condition.compared {
            let lists = [("values", lists.both().values), ("notValues", lists.both().not_values)];
            principals(&lists, &format!(".when[{index}]"), problem);
        }
        if let Key::ServiceAccount(lists) = &condition.compared
            && lists.both().values.len().max(lists.both().not_values.len()) > MAX_ACCOUNTS
        {
            problem(format!(".when[{index}]"), format!("more than {MAX_ACCOUNTS} service accounts"));
        }
    }
}

fn source(source: &Caller, action: Action, path: &str, problem: &mut impl FnMut(String, String)) {
    if *source == Caller::default() {
        return problem(path.to_owned(), "must not be empty: remove it to match everything".to_owned());
    }
    let clauses = source.clauses();
    let accounts = !source.service_accounts.is_empty() || !source.not_service_accounts.is_empty();
    let identity = |clause: &Clause<'_>| matches!(clause, Clause::Principal(_) | Clause::Namespace(_));
    if accounts && clauses.iter().any(identity) {
        let reason = "cannot be combined with namespaces or principals".to_owned();
        problem(format!("{path}.serviceAccounts"), reason);
    }
    if source.service_accounts.len().max(source.not_service_accounts.len()) > MAX_ACCOUNTS {
        problem(format!("{path}.serviceAccounts"), format!("more than {MAX_ACCOUNTS} service accounts"));
    }
    let lists = [("principals", source.principals.as_slice()), ("notPrincipals", &source.not_principals)];
    principals(&lists, path, problem);
    let addresses = |clause: &Clause<'_>| matches!(clause, Clause::SourceIp(_) | Clause::RemoteIp(_));
    if action == Action::Custom && !clauses.iter().all(addresses) {
        let reason = "of the caller, action CUSTOM knows ipBlocks and remoteIpBlocks only";
        problem(path.to_owned(), reason.to_owned());
    }
}

/// Identities are written without their scheme; with it, nobody would be meant.
fn principals(lists: &[(&str, &[Pattern])], path: &str, problem: &mut impl FnMut(String, String)) {
    for (field, patterns) in lists {
        for (index, pattern) in patterns.iter().enumerate().filter(|(_, p)| p.0.starts_with("spiffe://")) {
            let reason = format!("`{}` matches nobody: write it without spiffe://", pattern.0);
            problem(format!("{path}.{field}[{index}]"), reason);
        }
    }
}

/// Whether all that would be left of a rule on an opaque port is "everything".
fn denies_tcp(rule: &Rule) -> bool {
    let left = |lists: &[Vec<Clause<'_>>]| {
        lists.iter().any(|clauses| clauses.is_empty() || clauses.iter().all(Clause::is_http_only))
    };
    let says = !rule.from.is_empty() || !rule.to.is_empty() || !rule.when.is_empty();
    says && left(&rule.callers()) && left(&rule.calls())
}

fn reads_tokens(rule: &Rule) -> bool {
    let token = |clause: &Clause<'_>| {
        matches!(clause, Clause::RequestPrincipal(_) | Clause::Audience(_) | Clause::Presenter(_) | Clause::Claim(..))
    };
    rule.callers().iter().flatten().any(token)
}

fn has_tokens(world: &World, object: &Object<AuthorizationPolicy>) -> bool {
    let mut namespaces = world.request_authentications.iter().map(|other| &other.meta.namespace);
    let mesh = world.settings.is_root(&object.meta.namespace);
    namespaces.any(|namespace| mesh || *namespace == object.meta.namespace || world.settings.is_root(namespace))
}
