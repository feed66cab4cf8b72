//! `RouteAction.HashPolicy`.

use outrigger_wire::pb::envoy::config::route::v3::route_action::{
    HashPolicy as Pb,
    hash_policy::{Cookie, Header, PolicySpecifier},
};

use super::{
    at::At,
    fields::fields,
    report::Reject,
    scalar::{header_name, not_empty},
};
use crate::ir::route::HashPolicy;

pub(crate) fn hash_policies(messages: &[Pb], at: &At<'_>) -> Result<Vec<HashPolicy>, Reject> {
    Ok(at.each("hash_policy", messages, policy)?.into_iter().flatten().collect())
}

fn policy(message: &Pb, at: &At<'_>) -> Result<Option<HashPolicy>, Reject> {
    let terminal = message.terminal;
    Ok(Some(match at.required("policy_specifier", &message.policy_specifier)? {
        PolicySpecifier::Header(m) => {
            let at = at.field("header");
            fields!(&at, m => Header { read: [header_name], unsupported: [regex_rewrite] });
            HashPolicy::Header { name: header_name(&m.header_name, &at.field("header_name"))?, terminal }
        }
        PolicySpecifier::Cookie(m) => {
            let at = at.field("cookie");
            fields!(&at, m => Cookie { read: [name, ttl, path], unsupported: [attributes] });
            let name = not_empty(&m.name, &at.field("name"))?;
            // Both end up in a Set-Cookie header.
            let plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && !b";,=\"".contains(&b));
            if !plain(name) {
                return Err(at.field("name").reject("is not a cookie name"));
            }
            if !m.path.bytes().all(|b| b.is_ascii_graphic() && b != b';') {
                return Err(at.field("path").reject("is not a cookie path"));
            }
            let ttl = at.duration("ttl", &m.ttl)?;
            HashPolicy::Cookie { name: name.into(), ttl, path: m.path.as_str().into(), terminal }
        }
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
