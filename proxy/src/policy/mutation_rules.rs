//! What a service outside may change of a request's headers, as its `HeaderMutationRules` say.

use crate::ir::ext_authz::MutationRules;

/// What is done to a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Set,
    Append,
    Remove,
}

/// What becomes of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    Allowed,
    Ignored,
    /// The request fails.
    Forbidden,
}

/// Decides on one change of the header `name`, lower case. Without rules everything is allowed but the removal of what
/// a request cannot do without.
pub fn rule(rules: Option<&MutationRules>, change: Change, name: &str) -> Ruling {
    let pseudo = name.starts_with(':');
    let vital = change == Change::Remove && (pseudo || name == "host");
    let Some(rules) = rules else { return if vital { Ruling::Ignored } else { Ruling::Allowed } };
    let barred = vital || (change == Change::Append && pseudo);
    let allowed = !barred && may_change(rules, name);
    match allowed {
        true => Ruling::Allowed,
        false if rules.disallow_is_error => Ruling::Forbidden,
        false => Ruling::Ignored,
    }
}

fn may_change(rules: &MutationRules, name: &str) -> bool {
    if rules.disallow.as_ref().is_some_and(|r| r.is_match(name)) {
        return false;
    }
    if rules.allow.as_ref().is_some_and(|r| r.is_match(name)) {
        return true;
    }
    let routing = matches!(name, "host" | ":authority" | ":scheme" | ":method");
    let barred = rules.disallow_all
        || (routing && !rules.allow_routing)
        || (rules.disallow_system && name.starts_with(':'))
        || (!rules.allow_envoy && name.starts_with("x-envoy-"));
    !barred
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::matcher::Regex;

    fn allowed(rules: &MutationRules, change: Change, name: &str) -> bool {
        rule(Some(rules), change, name) == Ruling::Allowed
    }

    #[test]
    fn without_rules_only_what_is_vital_stays() {
        for (change, name, wanted) in [
            (Change::Set, ":path", Ruling::Allowed),
            (Change::Remove, "x", Ruling::Allowed),
            (Change::Remove, "host", Ruling::Ignored),
            (Change::Remove, ":path", Ruling::Ignored),
        ] {
            assert_eq!(rule(None, change, name), wanted, "{name}");
        }
    }

    #[test]
    fn defaults_protect_routing_and_the_proxys_own() {
        let rules = MutationRules::default();
        for (change, name, wanted) in [
            (Change::Set, "x-a", true),
            (Change::Set, ":path", true),
            (Change::Append, ":path", false),
            (Change::Remove, ":path", false),
            (Change::Set, ":method", false),
            (Change::Set, ":authority", false),
            (Change::Set, "host", false),
            (Change::Set, "x-envoy-retry-on", false),
        ] {
            assert_eq!(allowed(&rules, change, name), wanted, "{change:?} {name}");
        }
    }

    #[test]
    fn expressions_come_first_and_forbidden_comes_before_allowed() {
        let regex = |text| Some(Regex::full(text).unwrap());
        let rules = MutationRules {
            disallow_all: true,
            allow: regex("x-.*"),
            disallow: regex("x-no.*"),
            disallow_is_error: true,
            ..MutationRules::default()
        };
        assert!(allowed(&rules, Change::Set, "x-envoy-a"));
        assert_eq!(rule(Some(&rules), Change::Set, "x-not"), Ruling::Forbidden);
        assert_eq!(rule(Some(&rules), Change::Set, "a"), Ruling::Forbidden);
        let rules = MutationRules { disallow_system: true, ..MutationRules::default() };
        assert_eq!(rule(Some(&rules), Change::Set, ":path"), Ruling::Ignored);
    }
}
