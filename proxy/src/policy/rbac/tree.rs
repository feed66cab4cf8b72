//! What a match tree decides.

use std::{borrow::Cow, fmt::Write, net::IpAddr};

use super::{Decision, Facts, rule::verified};
use crate::ir::{
    metadata::value_at,
    rbac::{
        Action,
        tree::{Input, Kind, Matcher, OnMatch, Predicate, Test, Tree},
    },
};

pub(super) fn decide<'a>(tree: &'a Tree, facts: &Facts<'_>) -> Decision<'a> {
    let Some(OnMatch::Leaf { name, action }) = find(&tree.root, facts) else {
        // What nothing matches is refused.
        return Decision { allowed: false, policy: None, log: None };
    };
    let log = tree.logs.then_some(*action == Action::Log);
    Decision { allowed: *action != Action::Deny, policy: Some(name), log }
}

/// The leaf that decides. Never a matcher: those are followed.
fn find<'a>(matcher: &'a Matcher, facts: &Facts<'_>) -> Option<&'a OnMatch> {
    let found = match &matcher.kind {
        None => None,
        Some(Kind::List(fields)) => {
            fields.iter().filter(|(predicate, _)| holds(predicate, facts)).find_map(|(_, next)| follow(next, facts))
        }
        Some(Kind::Exact(input, map)) => {
            value(input, facts).and_then(|value| map.get(&*value)).and_then(|next| follow(next, facts))
        }
        Some(Kind::Prefix(input, map)) => value(input, facts).and_then(|value| {
            // Of prefixes of one text the longer is the greater; where nothing below it matches, the next one counts.
            let fitting = map.iter().rev().filter(|(prefix, _)| value.starts_with(&***prefix));
            fitting.map(|(_, next)| next).find_map(|next| follow(next, facts))
        }),
    };
    found.or_else(|| matcher.otherwise.as_ref().and_then(|next| follow(next, facts)))
}

fn follow<'a>(next: &'a OnMatch, facts: &Facts<'_>) -> Option<&'a OnMatch> {
    match next {
        OnMatch::Matcher(matcher) => find(matcher, facts),
        OnMatch::Leaf { .. } => Some(next),
    }
}

fn holds(predicate: &Predicate, facts: &Facts<'_>) -> bool {
    match predicate {
        Predicate::Or(all) => all.iter().any(|p| holds(p, facts)),
        Predicate::And(all) => all.iter().all(|p| holds(p, facts)),
        Predicate::Not(one) => !holds(one, facts),
        Predicate::Single(input, Test::Text(matcher)) => value(input, facts).is_some_and(|v| matcher.matches(&v)),
        Predicate::Single(input, Test::Ip(networks)) => {
            let ip = value(input, facts).and_then(|v| v.parse::<IpAddr>().ok());
            ip.is_some_and(|ip| networks.iter().any(|net| net.contains(ip)))
        }
        Predicate::Single(input, Test::Metadata { value, invert }) => match input {
            Input::Metadata { namespace, path } => {
                let found = facts.dynamic.and_then(|all| value_at(all, namespace, path));
                value.matches(found) != *invert
            }
            _ => false,
        },
    }
}

/// What an input sees; `None` where it is absent.
fn value<'a>(input: &Input, facts: &Facts<'a>) -> Option<Cow<'a, str>> {
    let text = |text: &'a str| Some(Cow::Borrowed(text)).filter(|t| !t.is_empty());
    let shown = |value: &dyn std::fmt::Display| {
        let mut text = String::new();
        write!(text, "{value}").ok()?;
        Some(Cow::Owned(text))
    };
    let peer = || verified(facts);
    match input {
        Input::Header(name) => {
            facts.http.and_then(|http| crate::policy::router::header_value(http.headers, name.as_str()))
        }
        Input::Pseudo(name) => {
            let http = facts.http?;
            match &**name {
                ":method" => Some(Cow::Borrowed(http.method.as_str())),
                ":path" => text(http.path),
                ":authority" => text(http.authority),
                _ => text(http.scheme),
            }
        }
        Input::DestinationIp => shown(&facts.local.ip()),
        Input::DestinationPort => shown(&facts.local.port()),
        Input::SourceIp => shown(&facts.client.ip()),
        Input::SourcePort => shown(&facts.client.port()),
        Input::DirectSourceIp => shown(&facts.peer.ip()),
        Input::ServerName => text(facts.server_name),
        Input::UriSan => joined(&peer()?.uri_sans),
        Input::DnsSan => joined(&peer()?.dns_sans),
        Input::Subject => text(&peer()?.subject),
        // Matched as a value, not as text.
        Input::Metadata { .. } => None,
    }
}

fn joined(names: &[Box<str>]) -> Option<Cow<'_, str>> {
    match names {
        [] => None,
        [one] => Some(Cow::Borrowed(one)),
        all => Some(Cow::Owned(all.join(","))),
    }
}
