//! Match trees of RBAC filters.

use std::collections::{BTreeMap, HashMap};

use outrigger_wire::pb::{
    envoy::config::rbac::v3::Action as PbAction,
    xds::{
        core::v3::TypedExtensionConfig,
        r#type::matcher::v3::{
            Matcher as Pb,
            matcher::{
                MatcherList, MatcherTree, MatcherType, OnMatch as PbOnMatch,
                matcher_list::{
                    FieldMatcher, Predicate as PbPredicate, predicate::MatchType, predicate::PredicateList,
                },
                matcher_tree::TreeType,
                on_match,
            },
        },
    },
};

use super::{
    at::At,
    extension,
    fields::fields,
    rbac::{Layer, action},
    rbac_input::{input, single},
    report::Reject,
    scalar::not_empty,
};
use crate::ir::rbac::{
    Action,
    tree::{Input, Kind, Matcher, OnMatch, Predicate, Tree},
};

pub(super) fn tree(message: &Pb, layer: Layer, at: &At<'_>) -> Result<Tree, Reject> {
    let root = matcher(message, layer, at)?;
    Ok(Tree {
        logs: logs(&root),
        reads_metadata: reads(&root, |input| matches!(input, Input::Metadata { .. })),
        reads_headers: reads(&root, |input| matches!(input, Input::Header(_))),
        root,
    })
}

fn matcher(message: &Pb, layer: Layer, at: &At<'_>) -> Result<Matcher, Reject> {
    fields!(at, message => Pb { read: [on_no_match, matcher_type] });
    let kind = match &message.matcher_type {
        None => None,
        Some(MatcherType::MatcherList(list)) => Some(matcher_list(list, layer, &at.field("matcher_list"))?),
        Some(MatcherType::MatcherTree(tree)) => Some(matcher_tree(tree, layer, &at.field("matcher_tree"))?),
    };
    let otherwise = message.on_no_match.as_ref().map(|m| on_match(m, layer, &at.field("on_no_match"))).transpose()?;
    Ok(Matcher { kind, otherwise })
}

fn matcher_list(message: &MatcherList, layer: Layer, at: &At<'_>) -> Result<Kind, Reject> {
    if message.matchers.is_empty() {
        return Err(at.field("matchers").reject("must not be empty"));
    }
    let all = at.each("matchers", &message.matchers, |m, at| {
        fields!(at, m => FieldMatcher { read: [predicate, on_match] });
        let when = predicate(at.required("predicate", &m.predicate)?, layer, &at.field("predicate"))?;
        let then = on_match(at.required("on_match", &m.on_match)?, layer, &at.field("on_match"))?;
        Ok((when, then))
    })?;
    Ok(Kind::List(all.into()))
}

fn predicate(message: &PbPredicate, layer: Layer, at: &At<'_>) -> Result<Predicate, Reject> {
    let several = |list: &PredicateList, name: &str| {
        let at = at.field(name);
        if list.predicate.len() < 2 {
            return Err(at.field("predicate").reject("must have at least two elements"));
        }
        at.each("predicate", &list.predicate, |m, at| predicate(m, layer, at)).map(Box::from)
    };
    Ok(match at.required("match_type", &message.match_type)? {
        MatchType::SinglePredicate(m) => single(m, layer, &at.field("single_predicate"))?,
        MatchType::OrMatcher(list) => Predicate::Or(several(list, "or_matcher")?),
        MatchType::AndMatcher(list) => Predicate::And(several(list, "and_matcher")?),
        MatchType::NotMatcher(m) => Predicate::Not(Box::new(predicate(m, layer, &at.field("not_matcher"))?)),
    })
}

fn matcher_tree(message: &MatcherTree, layer: Layer, at: &At<'_>) -> Result<Kind, Reject> {
    fields!(at, message => MatcherTree { read: [input, tree_type] });
    let from = input(at.required("input", &message.input)?, layer, &at.field("input"))?;
    if matches!(from, Input::Metadata { .. }) {
        return Err(at.field("input").reject("is no text, which is what a map looks up"));
    }
    match at.required("tree_type", &message.tree_type)? {
        TreeType::ExactMatchMap(m) => Ok(Kind::Exact(from, map(&m.map, layer, &at.field("exact_match_map"))?)),
        TreeType::PrefixMatchMap(m) => Ok(Kind::Prefix(from, map(&m.map, layer, &at.field("prefix_match_map"))?)),
        TreeType::CustomMatch(m) => Err(refuse(m, "matcher", &at.field("custom_match"))),
    }
}

fn map(entries: &HashMap<String, PbOnMatch>, layer: Layer, at: &At<'_>) -> Result<BTreeMap<Box<str>, OnMatch>, Reject> {
    if entries.is_empty() {
        return Err(at.field("map").reject("must not be empty"));
    }
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by_key(|(key, _)| *key);
    sorted.into_iter().map(|(key, m)| Ok((Box::from(&**key), on_match(m, layer, &at.key("map", key))?))).collect()
}

fn on_match(message: &PbOnMatch, layer: Layer, at: &At<'_>) -> Result<OnMatch, Reject> {
    fields!(at, message => PbOnMatch { read: [on_match], refuse: [keep_matching] });
    match at.required("on_match", &message.on_match)? {
        on_match::OnMatch::Matcher(m) => Ok(OnMatch::Matcher(Box::new(matcher(m, layer, &at.field("matcher"))?))),
        on_match::OnMatch::Action(m) => {
            let at = at.field("action");
            leaf(m, &at.field("typed_config"))
        }
    }
}

fn leaf(message: &TypedExtensionConfig, at: &At<'_>) -> Result<OnMatch, Reject> {
    let any = message.typed_config.as_ref().ok_or_else(|| at.reject("is required"))?;
    let extension = extension::open(any, at)?;
    if !extension.is::<PbAction>() {
        return Err(extension.refuse("action", at));
    }
    let leaf: PbAction = extension.message(at)?;
    fields!(at, &leaf => PbAction { read: [name, action] });
    let name = not_empty(&leaf.name, &at.field("name"))?.into();
    Ok(OnMatch::Leaf { name, action: action(leaf.action, &at.field("action"))? })
}

/// The refusal of an extension that is not known.
pub(super) fn refuse(message: &TypedExtensionConfig, what: &str, at: &At<'_>) -> Reject {
    let at = at.field("typed_config");
    match message.typed_config.as_ref().map(|any| extension::open(any, &at)) {
        Some(Ok(extension)) => extension.refuse(what, &at),
        Some(Err(reject)) => reject,
        None => at.reject("is required"),
    }
}

/// Whether some input is one of `these`.
fn reads(matcher: &Matcher, these: fn(&Input) -> bool) -> bool {
    fn asked(predicate: &Predicate, these: fn(&Input) -> bool) -> bool {
        match predicate {
            Predicate::Single(input, _) => these(input),
            Predicate::Or(all) | Predicate::And(all) => all.iter().any(|one| asked(one, these)),
            Predicate::Not(one) => asked(one, these),
        }
    }
    let next = |next: &OnMatch| matches!(next, OnMatch::Matcher(matcher) if reads(matcher, these));
    let within = match &matcher.kind {
        None => false,
        Some(Kind::List(fields)) => fields.iter().any(|(when, then)| asked(when, these) || next(then)),
        Some(Kind::Exact(input, map) | Kind::Prefix(input, map)) => these(input) || map.values().any(next),
    };
    within || matcher.otherwise.as_ref().is_some_and(next)
}

fn logs(matcher: &Matcher) -> bool {
    let next = |next: &OnMatch| match next {
        OnMatch::Matcher(matcher) => logs(matcher),
        OnMatch::Leaf { action, .. } => *action == Action::Log,
    };
    let within = match &matcher.kind {
        None => false,
        Some(Kind::List(fields)) => fields.iter().any(|(_, then)| next(then)),
        Some(Kind::Exact(_, map) | Kind::Prefix(_, map)) => map.values().any(next),
    };
    within || matcher.otherwise.as_ref().is_some_and(next)
}
