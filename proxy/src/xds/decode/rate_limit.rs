//! `envoy.config.route.v3.RateLimit`: how requests become descriptors.

use std::sync::Arc;

use outrigger_wire::pb::{
    envoy::{
        config::route::v3::{
            RateLimit as Pb,
            rate_limit::{
                Action as PbAction, HitsAddend, Override, XRateLimitOption,
                action::{self, ActionSpecifier as A, meta_data::Source},
                r#override::OverrideSpecifier,
            },
        },
        r#type::{
            matcher::v3::AddressMatcher,
            metadata::v3::{MetadataKey as PbKey, metadata_key::path_segment},
            v3::RateLimitUnit,
        },
    },
    xds::core::v3::CidrRange,
};

use super::{
    at::At,
    fields::fields,
    format_string::template,
    matcher,
    report::{NoteKind, Reject},
    scalar::{bool_or, enumeration, header_name, not_empty, u32_in},
};
use crate::ir::{
    matcher::Cidr,
    rate_limit::{Action, Hits, HitsNumber, Limit, LimitOverride, MetadataKey, MetadataSource, RateLimits, Rule},
};

/// Envoy's bound on stages.
pub(crate) const MAX_STAGE: u32 = 10;

/// Envoy's bound on hits.
const MAX_HITS: u64 = 1_000_000_000;

/// Who the rules are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    Route,
    LocalFilter,
    GlobalFilter,
}

/// The `rate_limits` of a route or virtual host; `None` without any.
pub(crate) fn of_level(messages: &[Pb], include: bool, at: &At<'_>) -> Result<Option<Arc<RateLimits>>, Reject> {
    if messages.is_empty() && !include {
        return Ok(None);
    }
    let rules = rules(messages, Of::Route, at)?;
    Ok(Some(crate::ir::share::share(RateLimits { rules, include_virtual_host: include })))
}

pub(crate) fn rules(messages: &[Pb], of: Of, at: &At<'_>) -> Result<Vec<Rule>, Reject> {
    at.each("rate_limits", messages, |m, at| rule(m, of, at))
}

fn rule(message: &Pb, of: Of, at: &At<'_>) -> Result<Rule, Reject> {
    fields!(at, message => Pb {
        read: [stage, disable_key, actions, limit, hits_addend, apply_on_stream_done, x_ratelimit_option],
    });
    let refuse = |name: &str, set: bool| match set {
        true => Err(at.field(name).reject("is not possible here")),
        false => Ok(()),
    };
    if of != Of::Route {
        refuse("stage", message.stage.is_some())?;
        refuse("disable_key", !message.disable_key.is_empty())?;
    }
    if of == Of::LocalFilter {
        refuse("limit", message.limit.is_some())?;
    }
    if of == Of::Route && message.hits_addend.is_some() {
        at.field("hits_addend").unsupported("has an effect in filters and typed_per_filter_config only, as in Envoy");
    }
    if message.actions.is_empty() {
        return Err(at.field("actions").reject("must not be empty"));
    }
    let option: XRateLimitOption = enumeration(message.x_ratelimit_option, &at.field("x_ratelimit_option"))?;
    let format = message.hits_addend.as_ref().is_some_and(|h| !h.format.is_empty());
    if message.apply_on_stream_done && format && of != Of::Route {
        return Err(at.field("hits_addend").reject(
            "a format is not possible with apply_on_stream_done: descriptors are made as the request comes in",
        ));
    }
    let hits = message.hits_addend.as_ref().filter(|_| of != Of::Route);
    Ok(Rule {
        stage: u32_in(&message.stage, 0, 0..=MAX_STAGE, &at.field("stage"))?,
        disable_key: !message.disable_key.is_empty(),
        actions: at.each("actions", &message.actions, |m, at| action(m, of, at))?,
        limit: message.limit.as_ref().map(|m| limit(m, &at.field("limit"))).transpose()?,
        hits: hits.map(|m| hits_addend(m, &at.field("hits_addend"))).transpose()?,
        on_stream_done: message.apply_on_stream_done,
        headers: match option {
            XRateLimitOption::Unspecified => None,
            XRateLimitOption::Off => Some(false),
            XRateLimitOption::DraftVersion03 => Some(true),
        },
    })
}

fn limit(message: &Override, at: &At<'_>) -> Result<LimitOverride, Reject> {
    Ok(match at.required("override_specifier", &message.override_specifier)? {
        OverrideSpecifier::DynamicMetadata(m) => {
            let at = at.field("dynamic_metadata");
            LimitOverride::Metadata(metadata_key(&m.metadata_key, &at)?)
        }
        OverrideSpecifier::RateLimit(m) => {
            enumeration::<RateLimitUnit>(m.unit, &at.field("rate_limit").field("unit"))?;
            LimitOverride::Fixed(Limit { requests: m.requests_per_unit, unit: m.unit })
        }
    })
}

fn hits_addend(message: &HitsAddend, at: &At<'_>) -> Result<Hits, Reject> {
    fields!(at, message => HitsAddend { read: [number, format, is_negative_hits] });
    let number = match (&message.number, message.format.as_str()) {
        (Some(number), "") if number.value <= MAX_HITS => HitsNumber::Fixed(number.value),
        (Some(number), "") => {
            return Err(at.field("number").reject(format!("{} is more than {MAX_HITS}", number.value)));
        }
        (None, format) if !format.is_empty() => {
            let parsed = template(format, &at.field("format"))?;
            if parsed.segments.len() != 1 || parsed.literal().is_some() {
                return Err(at.field("format").reject("must be exactly one substitution"));
            }
            HitsNumber::Format(parsed)
        }
        _ => return Err(at.reject("must contain either a format or a number")),
    };
    Ok(Hits { number, negative: message.is_negative_hits })
}

/// A key that has a default.
fn key_or(key: &str, default: &str) -> Box<str> {
    if key.is_empty() { default.into() } else { key.into() }
}

fn action(message: &PbAction, of: Of, at: &At<'_>) -> Result<Action, Reject> {
    let value = |text: &str, default: &str, at: &At<'_>| -> Result<Box<str>, Reject> {
        if !default.is_empty() {
            at.field("default_value").harmless("the value is taken as it is, so it is never empty");
        }
        Ok(not_empty(text, &at.field("descriptor_value"))?.into())
    };
    let key = |text: &str, at: &At<'_>| Ok::<Box<str>, Reject>(not_empty(text, &at.field("descriptor_key"))?.into());
    Ok(match at.required("action_specifier", &message.action_specifier)? {
        A::SourceCluster(_) => Action::SourceCluster,
        A::DestinationCluster(_) => Action::DestinationCluster,
        A::RequestHeaders(m) => {
            let at = at.field("request_headers");
            let name = m.header_name.to_ascii_lowercase();
            header_name(name.strip_prefix(':').unwrap_or(&name), &at.field("header_name"))?;
            let key = key(&m.descriptor_key, &at)?;
            Action::RequestHeader { name: name.into(), key, skip_if_absent: m.skip_if_absent }
        }
        A::QueryParameters(m) => {
            let at = at.field("query_parameters");
            let name = not_empty(&m.query_parameter_name, &at.field("query_parameter_name"))?.into();
            Action::QueryParameter { name, key: key(&m.descriptor_key, &at)?, skip_if_absent: m.skip_if_absent }
        }
        A::RemoteAddress(_) => Action::RemoteAddress,
        A::MaskedRemoteAddress(m) => {
            let at = at.field("masked_remote_address");
            let length = |value, bound, name| -> Result<u8, Reject> {
                let length = u32_in(value, bound, 0..=bound, &at.field(name))?;
                Ok(u8::try_from(length).unwrap_or(u8::MAX))
            };
            Action::MaskedRemoteAddress {
                v4: length(&m.v4_prefix_mask_len, 32, "v4_prefix_mask_len")?,
                v6: length(&m.v6_prefix_mask_len, 128, "v6_prefix_mask_len")?,
            }
        }
        A::GenericKey(m) => {
            let at = at.field("generic_key");
            let value = value(&m.descriptor_value, &m.default_value, &at)?;
            Action::Generic { key: key_or(&m.descriptor_key, "generic_key"), value }
        }
        A::HeaderValueMatch(m) => {
            let at = at.field("header_value_match");
            if m.headers.is_empty() {
                return Err(at.field("headers").reject("must not be empty"));
            }
            Action::HeaderMatch {
                key: key_or(&m.descriptor_key, "header_match"),
                value: value(&m.descriptor_value, &m.default_value, &at)?,
                expect: bool_or(&m.expect_match, true),
                headers: matcher::headers("headers", &m.headers, &at)?,
            }
        }
        A::QueryParameterValueMatch(m) => {
            let at = at.field("query_parameter_value_match");
            if m.query_parameters.is_empty() {
                return Err(at.field("query_parameters").reject("must not be empty"));
            }
            Action::QueryMatch {
                key: key_or(&m.descriptor_key, "query_match"),
                value: value(&m.descriptor_value, &m.default_value, &at)?,
                expect: bool_or(&m.expect_match, true),
                parameters: at.each("query_parameters", &m.query_parameters, matcher::query)?,
            }
        }
        A::RemoteAddressMatch(m) => address_match(m, &at.field("remote_address_match"))?,
        A::DynamicMetadata(m) => {
            let at = at.field("dynamic_metadata");
            if of != Of::Route {
                return Err(at.reject("is not possible here: use metadata"));
            }
            at.note(NoteKind::Deprecated, "use metadata");
            Action::Metadata {
                key: key(&m.descriptor_key, &at)?,
                from: MetadataSource::Dynamic,
                at: metadata_key(&m.metadata_key, &at)?,
                default: m.default_value.as_str().into(),
                skip_if_absent: false,
            }
        }
        A::Metadata(m) => {
            let at = at.field("metadata");
            Action::Metadata {
                key: key(&m.descriptor_key, &at)?,
                from: match enumeration(m.source, &at.field("source"))? {
                    Source::Dynamic => MetadataSource::Dynamic,
                    Source::RouteEntry => MetadataSource::Route,
                    Source::ClusterEntry => MetadataSource::Cluster,
                    Source::ClusterLocalityEntry => {
                        return Err(at.field("source").reject("no host is chosen when requests are limited"));
                    }
                },
                at: metadata_key(&m.metadata_key, &at)?,
                default: m.default_value.as_str().into(),
                skip_if_absent: m.skip_if_absent,
            }
        }
        A::Extension(m) => {
            let kind = m.typed_config.as_ref().map_or("", |any| super::extension::short(&any.type_url));
            let reason = format!("{} {kind} is not supported by this release", m.name);
            return Err(at.field("extension").reject(reason));
        }
    })
}

fn address_match(message: &action::RemoteAddressMatch, at: &At<'_>) -> Result<Action, Reject> {
    fields!(at, message => action::RemoteAddressMatch {
        read: [descriptor_value, descriptor_key, default_value, address_matcher],
    });
    let matcher = at.required("address_matcher", &message.address_matcher)?;
    let inner = at.field("address_matcher");
    fields!(&inner, matcher => AddressMatcher { read: [ranges, invert_match] });
    let source = not_empty(&message.descriptor_value, &at.field("descriptor_value"))?;
    Ok(Action::AddressMatch {
        key: key_or(&message.descriptor_key, "remote_address_match"),
        value: template(source, &at.field("descriptor_value"))?,
        default: message.default_value.as_str().into(),
        ranges: inner.each("ranges", &matcher.ranges, range)?,
        invert: matcher.invert_match,
    })
}

fn range(message: &CidrRange, at: &At<'_>) -> Result<Cidr, Reject> {
    let ip = message.address_prefix.parse().map_err(|_| at.field("address_prefix").reject("malformed IP address"))?;
    let length = message.prefix_len.map_or(Some(0), |l| u8::try_from(l.value).ok());
    length.and_then(|l| Cidr::new(ip, l)).ok_or_else(|| at.field("prefix_len").reject("is longer than the address"))
}

fn metadata_key(message: &Option<PbKey>, at: &At<'_>) -> Result<MetadataKey, Reject> {
    let message = at.required("metadata_key", message)?;
    let at = at.field("metadata_key");
    fields!(&at, message => PbKey { read: [key, path] });
    if message.path.is_empty() {
        return Err(at.field("path").reject("must not be empty"));
    }
    let path = at.each("path", &message.path, |m, at| match at.required("segment", &m.segment)? {
        path_segment::Segment::Key(key) => Ok(not_empty(key, &at.field("key"))?.into()),
        path_segment::Segment::Index(_) => Err(at.field("index").reject("is not supported by this release")),
    })?;
    Ok(MetadataKey { namespace: not_empty(&message.key, &at.field("key"))?.into(), path })
}
