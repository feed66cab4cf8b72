//! Internal redirects of a route.

use http::StatusCode;
use outrigger_wire::pb::envoy::{
    config::{
        core::v3::TypedExtensionConfig,
        route::v3::{InternalRedirectPolicy as Pb, RouteAction, route_action::InternalRedirectAction},
    },
    extensions::internal_redirect::{
        allow_listed_routes::v3::AllowListedRoutesConfig, previous_routes::v3::PreviousRoutesConfig,
        safe_cross_scheme::v3::SafeCrossSchemeConfig,
    },
};

use super::{
    at::At,
    extension,
    fields::fields,
    report::{NoteKind, Reject},
    scalar::{enumeration, header_name, u32_or},
};
use crate::ir::route::{InternalRedirect, RedirectPredicate};

pub(crate) fn internal_redirect(route: &RouteAction, at: &At<'_>) -> Result<Option<InternalRedirect>, Reject> {
    if let Some(message) = &route.internal_redirect_policy {
        return policy(message, &at.field("internal_redirect_policy")).map(Some);
    }
    let old = at.field("internal_redirect_action");
    match enumeration(route.internal_redirect_action, &old)? {
        InternalRedirectAction::PassThroughInternalRedirect => Ok(None),
        InternalRedirectAction::HandleInternalRedirect => {
            old.note(NoteKind::Deprecated, "use internal_redirect_policy");
            Ok(Some(InternalRedirect {
                max: u32_or(&route.max_internal_redirects, 1),
                codes: vec![StatusCode::FOUND],
                cross_scheme: false,
                copied_headers: Vec::new(),
                predicates: Vec::new(),
            }))
        }
    }
}

fn policy(message: &Pb, at: &At<'_>) -> Result<InternalRedirect, Reject> {
    fields!(at, message => Pb {
        read: [
            max_internal_redirects, redirect_response_codes, predicates, allow_cross_scheme_redirect,
            response_headers_to_copy,
        ],
    });
    // Others are not redirects, and ignored.
    let known = |code: &u32| matches!(code, 301 | 302 | 303 | 307 | 308);
    let codes: Vec<StatusCode> = message
        .redirect_response_codes
        .iter()
        .filter(|code| known(code))
        .filter_map(|code| StatusCode::from_u16(u16::try_from(*code).ok()?).ok())
        .collect();
    if message.redirect_response_codes.iter().any(|code| !known(code)) {
        at.field("redirect_response_codes").unsupported("codes other than 301, 302, 303, 307 and 308 have no effect");
    }
    let default = message.redirect_response_codes.is_empty();
    Ok(InternalRedirect {
        max: u32_or(&message.max_internal_redirects, 1),
        codes: if default { vec![StatusCode::FOUND] } else { codes },
        cross_scheme: message.allow_cross_scheme_redirect,
        copied_headers: at.each("response_headers_to_copy", &message.response_headers_to_copy, |n, at| {
            let name = header_name(n, at)?;
            match name.as_str() {
                "host" | "content-length" | "transfer-encoding" | "connection" => Err(at.reject("may not be copied")),
                _ => Ok(name),
            }
        })?,
        predicates: at.each("predicates", &message.predicates, predicate)?,
    })
}

fn predicate(message: &TypedExtensionConfig, at: &At<'_>) -> Result<RedirectPredicate, Reject> {
    let any = at.required("typed_config", &message.typed_config)?;
    let at = at.field("typed_config");
    let extension = extension::open(any, &at)?;
    if extension.is::<PreviousRoutesConfig>() {
        return Ok(RedirectPredicate::PreviousRoutes);
    }
    if extension.is::<SafeCrossSchemeConfig>() {
        return Ok(RedirectPredicate::SafeCrossScheme);
    }
    if extension.is::<AllowListedRoutesConfig>() {
        let config: AllowListedRoutesConfig = extension.message(&at)?;
        fields!(&at, &config => AllowListedRoutesConfig { read: [allowed_route_names] });
        let names = config.allowed_route_names.iter().map(|n| n.as_str().into()).collect();
        return Ok(RedirectPredicate::AllowListedRoutes(names));
    }
    // Without it a redirect would be followed that the operator wanted refused.
    Err(extension.refuse("internal redirect predicate", &at))
}
