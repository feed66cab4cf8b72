//! The match of a route.

use outrigger_wire::pb::envoy::config::route::v3::{
    CookieMatcher, RouteMatch as Pb,
    route_match::{PathSpecifier, TlsContextMatchOptions},
};

use super::{
    at::At,
    fields::fields,
    matcher, path_template,
    report::Reject,
    scalar::{bool_or, not_empty, runtime_fraction},
};
use crate::ir::{
    matcher as ir,
    route::{FurtherMatch, PathMatch, RouteMatch},
};

pub(crate) fn route_match(message: &Pb, at: &At<'_>) -> Result<RouteMatch, Reject> {
    fields!(at, message => Pb {
        read: [
            case_sensitive, runtime_fraction, headers, query_parameters, grpc, path_specifier, cookies, tls_context,
        ],
        // Without these a route would match too much.
        refuse: [dynamic_metadata, filter_state],
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
        further: further(message, at)?,
    })
}

fn further(message: &Pb, at: &At<'_>) -> Result<Option<Box<FurtherMatch>>, Reject> {
    let cookies = at.each("cookies", &message.cookies, |m, at| {
        fields!(at, m => CookieMatcher { read: [name, string_match, invert_match] });
        not_empty(&m.name, &at.field("name"))?;
        let value = at.required("string_match", &m.string_match)?;
        let value = matcher::string(value, &at.field("string_match"))?;
        Ok(ir::CookieMatcher { name: m.name.as_str().into(), value, invert: m.invert_match })
    })?;
    let mut further = FurtherMatch { cookies, ..FurtherMatch::default() };
    if let Some(m) = &message.tls_context {
        fields!(&at.field("tls_context"), m => TlsContextMatchOptions { read: [presented, validated] });
        (further.presented, further.validated) =
            (m.presented.as_ref().map(|v| v.value), m.validated.as_ref().map(|v| v.value));
    }
    Ok((further != FurtherMatch::default()).then(|| Box::new(further)))
}
