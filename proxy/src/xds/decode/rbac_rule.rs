//! Permissions and principals of RBAC policies. Every kind is known or refused: a rule that is skipped is an open door.

use outrigger_wire::pb::envoy::{
    config::{
        core::v3::TypedExtensionConfig,
        rbac::v3::{
            MetadataSource as PbSource, Permission, Principal, SourcedMetadata,
            permission::Rule as PbRule,
            principal::{Authenticated, Identifier},
        },
        route::v3::HeaderMatcher as PbHeader,
    },
    extensions::{
        rbac::principals::mtls_authenticated::v3::Config as PbMtls,
        transport_sockets::tls::v3::{SubjectAltNameMatcher, subject_alt_name_matcher::SanType},
    },
    r#type::matcher::v3::{FilterStateMatcher, PathMatcher, filter_state_matcher, path_matcher},
};

use super::{
    address::cidr,
    at::At,
    extension,
    fields::fields,
    matcher,
    metadata_matcher::metadata_matcher,
    path_template,
    rbac::Layer,
    report::{NoteKind, Reject},
    scalar::{enumeration, port},
};
use crate::ir::{
    matcher::Pattern,
    rbac::{MetadataSource, Rule, SanKind, SanMatcher},
    route::PathMatch,
};

/// The filter state in which Istio keeps who the peer is.
const PEER_PRINCIPAL: &str = "io.istio.peer_principal";

pub(super) fn permission(message: &Permission, layer: Layer, at: &At<'_>) -> Result<Rule, Reject> {
    fields!(at, message => Permission { read: [rule] });
    Ok(match at.required("rule", &message.rule)? {
        PbRule::AndRules(set) => Rule::all_of(permissions(&set.rules, layer, &at.field("and_rules"))?),
        PbRule::OrRules(set) => Rule::any_of(permissions(&set.rules, layer, &at.field("or_rules"))?),
        PbRule::NotRule(rule) => Rule::Not(Box::new(permission(rule, layer, &at.field("not_rule"))?)),
        PbRule::Any(any) => any_rule(*any, at)?,
        PbRule::Header(m) => header(m, layer, at)?,
        PbRule::UrlPath(m) => url_path(m, layer, at)?,
        PbRule::UriTemplate(m) => uri_template(m, layer, at)?,
        PbRule::DestinationIp(range) => Rule::DestinationIp(cidr(range, &at.field("destination_ip"))?),
        PbRule::DestinationPort(value) => {
            let start = u32::from(port(*value, &at.field("destination_port"))?);
            Rule::DestinationPort { start, end: start + 1 }
        }
        PbRule::DestinationPortRange(range) => {
            let at = at.field("destination_port_range");
            match (u32::try_from(range.start), u32::try_from(range.end)) {
                (Ok(start), Ok(end)) if start < end && end <= 65536 => Rule::DestinationPort { start, end },
                _ => return Err(at.reject(format!("{} to {} is no range of ports", range.start, range.end))),
            }
        }
        PbRule::RequestedServerName(m) => Rule::ServerName(matcher::string(m, &at.field("requested_server_name"))?),
        PbRule::Metadata(m) => {
            let at = at.field("metadata");
            at.note(NoteKind::Deprecated, "use sourced_metadata");
            Rule::Metadata(Box::new(metadata_matcher(m, &at)?), MetadataSource::Dynamic)
        }
        PbRule::SourcedMetadata(m) => sourced(m, layer, &at.field("sourced_metadata"))?,
        PbRule::Matcher(m) => return Err(foreign(m, "RBAC matcher", &at.field("matcher"))),
    })
}

pub(super) fn principal(message: &Principal, layer: Layer, at: &At<'_>) -> Result<Rule, Reject> {
    fields!(at, message => Principal { read: [identifier] });
    Ok(match at.required("identifier", &message.identifier)? {
        Identifier::AndIds(set) => Rule::all_of(principals(&set.ids, layer, &at.field("and_ids"))?),
        Identifier::OrIds(set) => Rule::any_of(principals(&set.ids, layer, &at.field("or_ids"))?),
        Identifier::NotId(id) => Rule::Not(Box::new(principal(id, layer, &at.field("not_id"))?)),
        Identifier::Any(any) => any_rule(*any, at)?,
        Identifier::Header(m) => header(m, layer, at)?,
        Identifier::UrlPath(m) => url_path(m, layer, at)?,
        Identifier::Authenticated(m) => {
            let at = at.field("authenticated");
            fields!(&at, m => Authenticated { read: [principal_name] });
            let name = m.principal_name.as_ref();
            Rule::Authenticated(name.map(|m| matcher::string(m, &at.field("principal_name"))).transpose()?)
        }
        Identifier::SourceIp(range) => {
            let at = at.field("source_ip");
            at.note(NoteKind::Deprecated, "use direct_remote_ip or remote_ip");
            Rule::Peer(cidr(range, &at)?)
        }
        Identifier::DirectRemoteIp(range) => Rule::Peer(cidr(range, &at.field("direct_remote_ip"))?),
        Identifier::RemoteIp(range) => Rule::Client(cidr(range, &at.field("remote_ip"))?),
        Identifier::Metadata(m) => {
            let at = at.field("metadata");
            at.note(NoteKind::Deprecated, "use sourced_metadata");
            Rule::Metadata(Box::new(metadata_matcher(m, &at)?), MetadataSource::Dynamic)
        }
        Identifier::SourcedMetadata(m) => sourced(m, layer, &at.field("sourced_metadata"))?,
        Identifier::FilterState(m) => filter_state(m, &at.field("filter_state"))?,
        Identifier::Custom(m) => custom(m, &at.field("custom"))?,
    })
}

fn permissions(rules: &[Permission], layer: Layer, at: &At<'_>) -> Result<Vec<Rule>, Reject> {
    not_none(at.each("rules", rules, |m, at| permission(m, layer, at))?, "rules", at)
}

fn principals(ids: &[Principal], layer: Layer, at: &At<'_>) -> Result<Vec<Rule>, Reject> {
    not_none(at.each("ids", ids, |m, at| principal(m, layer, at))?, "ids", at)
}

fn not_none(rules: Vec<Rule>, name: &str, at: &At<'_>) -> Result<Vec<Rule>, Reject> {
    if rules.is_empty() { Err(at.field(name).reject("must not be empty")) } else { Ok(rules) }
}

fn any_rule(any: bool, at: &At<'_>) -> Result<Rule, Reject> {
    if any { Ok(Rule::Any) } else { Err(at.field("any").reject("must be true")) }
}

/// Envoy refuses such rules there as well: they would never match, which opens what they are to deny.
fn of_requests(layer: Layer, at: &At<'_>) -> Result<(), Reject> {
    match layer {
        Layer::Http => Ok(()),
        Layer::Network => Err(at.reject("looks at a request, which a network filter does not see")),
    }
}

fn header(message: &PbHeader, layer: Layer, at: &At<'_>) -> Result<Rule, Reject> {
    let at = at.field("header");
    of_requests(layer, &at)?;
    Ok(Rule::Header(Box::new(matcher::header(message, &at)?)))
}

fn url_path(message: &PathMatcher, layer: Layer, at: &At<'_>) -> Result<Rule, Reject> {
    let at = at.field("url_path");
    of_requests(layer, &at)?;
    let path_matcher::Rule::Path(m) = at.required("path", &message.rule)?;
    Ok(Rule::Path(matcher::string(m, &at.field("path"))?))
}

fn uri_template(message: &TypedExtensionConfig, layer: Layer, at: &At<'_>) -> Result<Rule, Reject> {
    let at = at.field("uri_template");
    of_requests(layer, &at)?;
    match path_template::matching(message, &at)? {
        PathMatch::Template(template) => Ok(Rule::Template(Box::new(template))),
        _ => Err(at.reject("is no path template")),
    }
}

fn sourced(message: &SourcedMetadata, layer: Layer, at: &At<'_>) -> Result<Rule, Reject> {
    fields!(at, message => SourcedMetadata { read: [metadata_matcher, metadata_source] });
    let m = at.required("metadata_matcher", &message.metadata_matcher)?;
    let source_at = at.field("metadata_source");
    let source = match enumeration(message.metadata_source, &source_at)? {
        PbSource::Dynamic => MetadataSource::Dynamic,
        PbSource::Route => {
            of_requests(layer, &source_at)?;
            MetadataSource::Route
        }
    };
    Ok(Rule::Metadata(Box::new(metadata_matcher(m, &at.field("metadata_matcher"))?), source))
}

fn filter_state(message: &FilterStateMatcher, at: &At<'_>) -> Result<Rule, Reject> {
    fields!(at, message => FilterStateMatcher { read: [key, matcher] });
    if message.key != PEER_PRINCIPAL {
        return Err(at.field("key").reject(format!("nothing sets {:?} here, only {PEER_PRINCIPAL}", message.key)));
    }
    match at.required("matcher", &message.matcher)? {
        filter_state_matcher::Matcher::StringMatch(m) => {
            Ok(Rule::PeerPrincipal(matcher::string(m, &at.field("string_match"))?))
        }
        filter_state_matcher::Matcher::AddressMatch(_) => {
            Err(at.field("address_match").reject("is not supported by this release"))
        }
    }
}

fn custom(message: &TypedExtensionConfig, at: &At<'_>) -> Result<Rule, Reject> {
    let at = at.field("typed_config");
    let any = message.typed_config.as_ref().ok_or_else(|| at.reject("is required"))?;
    let extension = extension::open(any, &at)?;
    if !extension.is::<PbMtls>() {
        return Err(extension.refuse("RBAC principal", &at));
    }
    let config: PbMtls = extension.message(&at)?;
    fields!(&at, &config => PbMtls { read: [san_matcher, any_validated_client_certificate] });
    match &config.san_matcher {
        Some(m) => Ok(Rule::Mtls(Some(san(m, &at.field("san_matcher"))?))),
        None if config.any_validated_client_certificate => Ok(Rule::Mtls(None)),
        None => Err(at.reject("needs san_matcher or any_validated_client_certificate")),
    }
}

fn san(message: &SubjectAltNameMatcher, at: &At<'_>) -> Result<SanMatcher, Reject> {
    fields!(at, message => SubjectAltNameMatcher { read: [san_type, matcher], refuse: [oid] });
    let kind = match enumeration(message.san_type, &at.field("san_type"))? {
        SanType::Uri => SanKind::Uri,
        SanType::Dns => SanKind::Dns,
        other => return Err(at.field("san_type").reject(format!("{} is not supported", other.as_str_name()))),
    };
    let matcher = matcher::string(at.required("matcher", &message.matcher)?, &at.field("matcher"))?;
    if let (SanKind::Dns, Pattern::Exact(name)) = (kind, &matcher.pattern)
        && name.contains('*')
    {
        return Err(at.field("matcher").reject("wildcards are not supported"));
    }
    Ok(SanMatcher { kind, matcher })
}

/// The refusal of an extension that is not known.
fn foreign(message: &TypedExtensionConfig, what: &str, at: &At<'_>) -> Reject {
    let at = at.field("typed_config");
    match message.typed_config.as_ref().map(|any| extension::open(any, &at)) {
        Some(Ok(extension)) => extension.refuse(what, &at),
        Some(Err(reject)) => reject,
        None => at.reject("is required"),
    }
}
