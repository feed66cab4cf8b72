//! CORS policies: of `typed_per_filter_config`, and the deprecated field of routes and virtual hosts.

use http::HeaderValue;
use outrigger_wire::pb::{
    envoy::{
        config::{
            core::v3::RuntimeFractionalPercent,
            route::v3::{CorsPolicy as PbOld, cors_policy::EnabledSpecifier},
        },
        extensions::filters::http::cors::v3::CorsPolicy as Pb,
    },
    google::protobuf::BoolValue,
};

use super::{
    at::At,
    fields::fields,
    matcher,
    report::{NoteKind, Reject},
    scalar::runtime_fraction,
};
use crate::ir::{Fraction, filters::Cors};

const ALWAYS: Fraction = Fraction { numerator: 100, denominator: 100 };

pub(crate) fn cors(message: &Pb, at: &At<'_>) -> Result<Cors, Reject> {
    fields!(at, message => Pb {
        read: [
            allow_origin_string_match, allow_methods, allow_headers, expose_headers, max_age, allow_credentials,
            filter_enabled, shadow_enabled, allow_private_network_access, forward_not_matching_preflights,
        ],
    });
    let flag = |value: &Option<BoolValue>| value.as_ref().map(|v| v.value);
    Ok(Cors {
        allow_origins: at.each("allow_origin_string_match", &message.allow_origin_string_match, matcher::string)?,
        allow_methods: value("allow_methods", &message.allow_methods, at)?,
        allow_headers: value("allow_headers", &message.allow_headers, at)?,
        expose_headers: value("expose_headers", &message.expose_headers, at)?,
        max_age: value("max_age", &message.max_age, at)?,
        allow_credentials: flag(&message.allow_credentials),
        allow_private_network: flag(&message.allow_private_network_access),
        forward_not_matching_preflights: flag(&message.forward_not_matching_preflights),
        enabled: share("filter_enabled", &message.filter_enabled, at)?.unwrap_or(ALWAYS),
        shadow: share("shadow_enabled", &message.shadow_enabled, at)?,
    })
}

/// The policy of the deprecated `cors` field.
pub(crate) fn old(message: &Option<PbOld>, at: &At<'_>) -> Result<Option<Cors>, Reject> {
    let Some(message) = message else { return Ok(None) };
    let at = at.field("cors");
    at.note(NoteKind::Deprecated, "use typed_per_filter_config");
    fields!(&at, message => PbOld {
        read: [
            allow_origin_string_match, allow_methods, allow_headers, expose_headers, max_age, allow_credentials,
            shadow_enabled, allow_private_network_access, forward_not_matching_preflights, enabled_specifier,
        ],
    });
    let filter_enabled = message.enabled_specifier.as_ref().map(|EnabledSpecifier::FilterEnabled(f)| f.clone());
    let same = Pb {
        allow_origin_string_match: message.allow_origin_string_match.clone(),
        allow_methods: message.allow_methods.clone(),
        allow_headers: message.allow_headers.clone(),
        expose_headers: message.expose_headers.clone(),
        max_age: message.max_age.clone(),
        allow_credentials: message.allow_credentials,
        filter_enabled,
        shadow_enabled: message.shadow_enabled.clone(),
        allow_private_network_access: message.allow_private_network_access,
        forward_not_matching_preflights: message.forward_not_matching_preflights,
    };
    cors(&same, &at).map(Some)
}

fn value(name: &str, text: &str, at: &At<'_>) -> Result<Option<HeaderValue>, Reject> {
    if text.is_empty() {
        return Ok(None);
    }
    let value = HeaderValue::from_str(text).map_err(|_| at.field(name).reject("is not a header value"))?;
    Ok(Some(value))
}

fn share(name: &str, message: &Option<RuntimeFractionalPercent>, at: &At<'_>) -> Result<Option<Fraction>, Reject> {
    message.as_ref().map(|m| runtime_fraction(m, &at.field(name))).transpose()
}
