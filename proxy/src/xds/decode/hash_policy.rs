//! `RouteAction.HashPolicy`.

use std::fmt::Write;

use outrigger_wire::pb::envoy::config::route::v3::route_action::{
    HashPolicy as Pb,
    hash_policy::{Cookie, CookieAttribute, Header, PolicySpecifier},
};

use super::{
    at::At,
    fields::fields,
    matcher,
    report::Reject,
    scalar::{header_name, not_empty},
};
use crate::ir::route::{HashCookie, HashHeader, HashPolicy, Rewrite};

pub(crate) fn hash_policies(messages: &[Pb], at: &At<'_>) -> Result<Vec<HashPolicy>, Reject> {
    Ok(at.each("hash_policy", messages, policy)?.into_iter().flatten().collect())
}

fn policy(message: &Pb, at: &At<'_>) -> Result<Option<HashPolicy>, Reject> {
    let terminal = message.terminal;
    Ok(Some(match at.required("policy_specifier", &message.policy_specifier)? {
        PolicySpecifier::Header(m) => {
            let at = at.field("header");
            fields!(&at, m => Header { read: [header_name, regex_rewrite] });
            let rewrite = match &m.regex_rewrite {
                Some(m) => {
                    let (pattern, substitution) = matcher::substitution(m, &at.field("regex_rewrite"))?;
                    Some(Rewrite { pattern, substitution })
                }
                None => None,
            };
            HashPolicy::Header { name: header(&m.header_name, &at.field("header_name"))?, rewrite, terminal }
        }
        PolicySpecifier::Cookie(m) => HashPolicy::Cookie(HashCookie { terminal, ..cookie(m, &at.field("cookie"))? }),
        PolicySpecifier::ConnectionProperties(m) => {
            if !m.source_ip {
                at.field("connection_properties").harmless("without source_ip the policy yields no hash");
                return Ok(None);
            }
            HashPolicy::SourceIp { terminal }
        }
        PolicySpecifier::QueryParameter(m) => {
            let name = not_empty(&m.name, &at.field("query_parameter").field("name"))?.into();
            HashPolicy::Query { name, terminal }
        }
        PolicySpecifier::FilterState(_) => {
            at.field("filter_state").unsupported("nothing sets filter state: the policy yields no hash");
            return Ok(None);
        }
    }))
}

fn header(name: &str, at: &At<'_>) -> Result<HashHeader, Reject> {
    Ok(match name {
        ":authority" => HashHeader::Authority,
        ":method" => HashHeader::Method,
        ":path" => HashHeader::Path,
        ":scheme" => HashHeader::Scheme,
        name => match header_name(name, at)? {
            http::header::HOST => HashHeader::Authority,
            name => HashHeader::Regular(name),
        },
    })
}

fn cookie(message: &Cookie, at: &At<'_>) -> Result<HashCookie, Reject> {
    fields!(at, message => Cookie { read: [name, ttl, path, attributes] });
    let name = not_empty(&message.name, &at.field("name"))?;
    // All of it ends up in a Set-Cookie header.
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && !b";,=\"".contains(&b));
    let value = |text: &str| text.bytes().all(|b| (b.is_ascii_graphic() || b == b' ') && b != b';');
    if !plain(name) {
        return Err(at.field("name").reject("is not a cookie name"));
    }
    if !value(&message.path) {
        return Err(at.field("path").reject("is not a cookie path"));
    }
    let ttl = at.duration("ttl", &message.ttl)?.map(|ttl| ttl.as_secs());
    let mut attributes = String::new();
    let mut add = |name: &str, value: &str| {
        let written = match value {
            "" => write!(attributes, "; {name}"),
            value => write!(attributes, "; {name}={value}"),
        };
        written.expect("writing to a string cannot fail");
    };
    if let Some(ttl) = ttl.filter(|ttl| *ttl > 0) {
        add("Max-Age", &ttl.to_string());
    }
    if !message.path.is_empty() {
        add("Path", &message.path);
    }
    for (i, attribute) in message.attributes.iter().enumerate() {
        let at = at.index("attributes", i);
        fields!(&at, attribute => CookieAttribute { read: [name, value] });
        if !plain(not_empty(&attribute.name, &at.field("name"))?) || !value(&attribute.value) {
            return Err(at.reject("is not a cookie attribute"));
        }
        add(&attribute.name, &attribute.value);
    }
    add("HttpOnly", "");
    Ok(HashCookie { name: name.into(), ttl, attributes: attributes.into(), terminal: false })
}
