//! Conditions of HTTP routes, as Envoy's matchers.

use super::pb::{self, matcher, route};
use crate::model::{HttpMatch, StringMatch};
use matcher::string_matcher::MatchPattern;
use route::{
    header_matcher::HeaderMatchSpecifier, query_parameter_matcher::QueryParameterMatchSpecifier,
    route_match::PathSpecifier,
};

/// Any request.
pub(super) fn everything() -> route::RouteMatch {
    route::RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..Default::default() }
}

pub(super) fn condition(wanted: &HttpMatch) -> route::RouteMatch {
    let mut result = everything();
    if let Some(uri) = &wanted.uri {
        result.path_specifier = Some(match uri {
            StringMatch::Exact(path) => PathSpecifier::Path(path.clone()),
            StringMatch::Prefix(path) => PathSpecifier::Prefix(path.clone()),
            StringMatch::Regex(regex) => PathSpecifier::SafeRegex(pb::regex(&regex.0)),
            StringMatch::Present => PathSpecifier::Prefix("/".to_owned()),
        });
        if wanted.ignore_uri_case {
            match uri {
                // Envoy refuses `case_sensitive` beside a regular expression: the flag goes into it.
                StringMatch::Regex(regex) => {
                    let insensitive = pb::regex(&format!("(?i){}", regex.0));
                    result.path_specifier = Some(PathSpecifier::SafeRegex(insensitive));
                }
                _ => result.case_sensitive = pb::no(),
            }
        }
    }
    let pseudo = [(":method", &wanted.method), (":authority", &wanted.authority), (":scheme", &wanted.scheme)];
    for (name, value) in pseudo {
        result.headers.extend(value.as_ref().map(|value| header(name, value)));
    }
    result.headers.extend(wanted.headers.iter().map(|(name, value)| header(name, value)));
    for (name, value) in &wanted.without_headers {
        let mut unwanted = header(name, value);
        unwanted.invert_match = true;
        // Without this, a request that lacks the header would not match.
        unwanted.treat_missing_header_as_empty = *value != StringMatch::Present;
        result.headers.push(unwanted);
    }
    result.query_parameters = wanted.query_params.iter().map(|(name, value)| parameter(name, value)).collect();
    result
}

/// Whether it takes every request, so that routes behind it are never reached.
pub(super) fn is_everything(condition: &route::RouteMatch) -> bool {
    let any_path = match &condition.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => prefix == "/",
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex == ".*",
        _ => false,
    };
    any_path && condition.headers.is_empty() && condition.query_parameters.is_empty()
}

pub(super) fn pattern(value: &StringMatch) -> Option<matcher::StringMatcher> {
    Some(pb::string(match value {
        StringMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        StringMatch::Prefix(text) if text.is_empty() => return None,
        StringMatch::Prefix(text) => MatchPattern::Prefix(text.clone()),
        StringMatch::Regex(regex) => MatchPattern::SafeRegex(pb::regex(&regex.0)),
        StringMatch::Present => return None,
    }))
}

pub(super) fn header(name: &str, value: &StringMatch) -> route::HeaderMatcher {
    let specifier = pattern(value).map_or(HeaderMatchSpecifier::PresentMatch(true), HeaderMatchSpecifier::StringMatch);
    route::HeaderMatcher {
        name: name.to_ascii_lowercase(),
        header_match_specifier: Some(specifier),
        ..Default::default()
    }
}

fn parameter(name: &str, value: &StringMatch) -> route::QueryParameterMatcher {
    let specifier = pattern(value)
        .map_or(QueryParameterMatchSpecifier::PresentMatch(true), QueryParameterMatchSpecifier::StringMatch);
    route::QueryParameterMatcher { name: name.to_owned(), query_parameter_match_specifier: Some(specifier) }
}
