//! The virtual host and route of a request, and what kept it from the routes before.

use outrigger_wire::{
    json,
    pb::envoy::{
        config::route::v3 as route,
        r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
    },
};
use route::{
    header_matcher::HeaderMatchSpecifier, query_parameter_matcher::QueryParameterMatchSpecifier,
    route_match::PathSpecifier,
};

use super::{
    Request, decide,
    decide::Choice,
    read,
    report::{Passed, RouteTaken},
};
use crate::resources::Resources;

#[derive(Default)]
pub(super) struct Found {
    pub virtual_host: Option<String>,
    pub taken: Option<RouteTaken>,
    pub passed: Vec<Passed>,
}

pub(super) fn route(resources: &Resources, name: &str, request: &Request) -> Result<Found, String> {
    let any = resources.routes.get(name).ok_or_else(|| format!("the routes {name} are not among the resources"))?;
    let config: route::RouteConfiguration = read(&any.value, &format!("the routes {name}"))?;
    let choice = decide::route(&config, request)?;
    let (place, chosen) = match choice {
        Choice::NoHost => return Ok(Found::default()),
        Choice::NoRoute(host) => (host, None),
        Choice::Route(host, route) => (host, Some(route)),
    };
    let host = &config.virtual_hosts[place];
    let mut passed = Vec::new();
    for (index, route) in host.routes.iter().take(chosen.unwrap_or(usize::MAX)).enumerate() {
        let unmet = unmet(route.r#match.as_ref(), request)?;
        passed.push(Passed { index, name: route.name.clone(), unmet });
    }
    let kind = any.type_url.rsplit('/').next().unwrap_or_default();
    let sent = json::bytes_to_value(kind, &any.value).map_err(|e| e.to_string())?;
    let taken = chosen.map(|index| RouteTaken {
        index,
        name: host.routes[index].name.clone(),
        conditions: host.routes[index].r#match.as_ref().map(conditions).unwrap_or_default(),
        wire: sent["virtual_hosts"][place]["routes"][index].clone(),
    });
    Ok(Found { virtual_host: Some(host.name.clone()), taken, passed })
}

/// Each condition by itself, in words and as a match of its own.
fn parts(wanted: &route::RouteMatch) -> Vec<(String, route::RouteMatch)> {
    let anything = || Some(PathSpecifier::Prefix("/".to_owned()));
    let path = route::RouteMatch {
        path_specifier: wanted.path_specifier.clone(),
        case_sensitive: wanted.case_sensitive,
        ..Default::default()
    };
    let mut parts = vec![(path_text(wanted), path)];
    for header in &wanted.headers {
        let alone =
            route::RouteMatch { path_specifier: anything(), headers: vec![header.clone()], ..Default::default() };
        parts.push((header_text(header), alone));
    }
    for parameter in &wanted.query_parameters {
        let alone = route::RouteMatch {
            path_specifier: anything(),
            query_parameters: vec![parameter.clone()],
            ..Default::default()
        };
        parts.push((parameter_text(parameter), alone));
    }
    parts
}

fn conditions(wanted: &route::RouteMatch) -> Vec<String> {
    parts(wanted).into_iter().map(|(text, _)| text).collect()
}

fn unmet(wanted: Option<&route::RouteMatch>, request: &Request) -> Result<Vec<String>, String> {
    let mut unmet = Vec::new();
    for (text, alone) in wanted.map(parts).unwrap_or_default() {
        if !decide::matches(alone, request)? {
            unmet.push(text);
        }
    }
    Ok(unmet)
}

fn path_text(wanted: &route::RouteMatch) -> String {
    let text = match &wanted.path_specifier {
        Some(PathSpecifier::Prefix(text)) => format!("path prefix {text}"),
        Some(PathSpecifier::Path(text)) => format!("path {text}"),
        Some(PathSpecifier::SafeRegex(regex)) => format!("path regex {}", regex.regex),
        _ => "path".to_owned(),
    };
    let folded = wanted.case_sensitive.is_some_and(|sensitive| !sensitive.value);
    if folded { format!("{text} in any case") } else { text }
}

fn text_of(matcher: &StringMatcher) -> String {
    match &matcher.match_pattern {
        Some(MatchPattern::Exact(text)) => format!("exact {text}"),
        Some(MatchPattern::Prefix(text)) => format!("prefix {text}"),
        Some(MatchPattern::SafeRegex(regex)) => format!("regex {}", regex.regex),
        _ => "some text".to_owned(),
    }
}

fn header_text(header: &route::HeaderMatcher) -> String {
    let value = match &header.header_match_specifier {
        Some(HeaderMatchSpecifier::StringMatch(matcher)) => text_of(matcher),
        _ => "present".to_owned(),
    };
    let not = if header.invert_match { "not " } else { "" };
    let name = match header.name.as_str() {
        ":method" => "method",
        ":authority" => "authority",
        ":scheme" => "scheme",
        name => return format!("header {name} {not}{value}"),
    };
    format!("{name} {not}{value}")
}

fn parameter_text(parameter: &route::QueryParameterMatcher) -> String {
    let value = match &parameter.query_parameter_match_specifier {
        Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => text_of(matcher),
        _ => "present".to_owned(),
    };
    format!("query parameter {} {value}", parameter.name)
}
