//! The match of a route.

use outrigger_wire::pb::envoy::config::route::v3::{RouteMatch as Pb, route_match::PathSpecifier};

use super::{
    at::At,
    fields::fields,
    matcher, path_template,
    report::Reject,
    scalar::{bool_or, not_empty, runtime_fraction},
};
use crate::ir::route::{PathMatch, RouteMatch};

pub(crate) fn route_match(message: &Pb, at: &At<'_>) -> Result<RouteMatch, Reject> {
    fields!(at, message => Pb {
        read: [case_sensitive, runtime_fraction, headers, query_parameters, grpc, path_specifier],
        // Without these a route would match too much.
        refuse: [cookies, tls_context, dynamic_metadata, filter_state],
    });
    let case_sensitive = bool_or(&message.case_sensitive, true);
    let fold = |text: &str| -> Box<str> { if case_sensitive { text.into() } else { text.to_ascii_lowercase().into() } };
    let path = match at.required("path_specifier", &message.path_specifier)? {
        PathSpecifier::Prefix(text) => PathMatch::Prefix(fold(text)),
        PathSpecifier::Path(text) => PathMatch::Exact(fold(text)),
        PathSpecifier::PathSeparatedPrefix(text) => {
            let at = at.field("path_separated_prefix");
            not_empty(text, &at)?;
            if text.len() < 2 || text.contains(['?', '#']) || text.ends_with('/') {
                return Err(at.reject(format!("{text:?} must be longer, without `?`, `#` and a `/` at the end")));
            }
            PathMatch::SeparatedPrefix(fold(text))
        }
        PathSpecifier::SafeRegex(m) => {
            if !case_sensitive {
                at.field("case_sensitive").harmless("has no effect on a regular expression");
            }
            PathMatch::Regex(matcher::regex(m, &at.field("safe_regex"))?)
        }
        PathSpecifier::ConnectMatcher(_) => PathMatch::Connect,
        PathSpecifier::PathMatchPolicy(m) => {
            if !case_sensitive {
                at.field("case_sensitive").harmless("has no effect on a path template");
            }
            path_template::matching(m, &at.field("path_match_policy"))?
        }
    };
    Ok(RouteMatch {
        path,
        case_sensitive,
        headers: matcher::headers("headers", &message.headers, at)?,
        query: at.each("query_parameters", &message.query_parameters, matcher::query)?,
        grpc: message.grpc.is_some(),
        fraction: match &message.runtime_fraction {
            Some(m) => Some(runtime_fraction(m, &at.field("runtime_fraction"))?),
            None => None,
        },
    })
}
