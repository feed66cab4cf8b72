//! `typed_per_filter_config`: what one level overrides of the filters.

use std::{collections::HashMap, sync::Arc};

use outrigger_wire::pb::{
    envoy::{
        config::route::v3::{CorsPolicy as RouteCors, FilterConfig},
        extensions::filters::http::{
            buffer::v3::{BufferPerRoute, buffer_per_route},
            cors::v3::CorsPolicy,
            fault::v3::HttpFault,
            header_mutation::v3::HeaderMutationPerRoute,
            rbac::v3::RbacPerRoute,
            stateful_session::v3::StatefulSessionPerRoute,
        },
    },
    google::protobuf::Any,
};

use super::{
    at::At,
    cors,
    extension::{self, Extension},
    fault::fault,
    fields::fields,
    header_mutation::mutations,
    http_filter::max_request_bytes,
    rbac,
    report::Reject,
};
use crate::ir::{
    filters::{Cors, Override, Overrides, Setting},
    share::share,
};

/// The overrides of a level, whose deprecated field says `cors`; `None` when there are none.
pub(crate) fn overrides(
    configs: &HashMap<String, Any>,
    cors: Option<Cors>,
    at: &At<'_>,
) -> Result<Option<Arc<Overrides>>, Reject> {
    // In a stable order: the same resource is always the same configuration, or refused for the same reason.
    let mut configs: Vec<_> = configs.iter().collect();
    configs.sort_by_key(|(name, _)| *name);
    let mut filters = Vec::with_capacity(configs.len());
    for (name, any) in configs {
        if let Some(setting) = setting(name, any, &at.key("typed_per_filter_config", name))? {
            filters.push(Override { filter: name.as_str().into(), setting });
        }
    }
    let all = Overrides { filters: filters.into(), cors: cors.map(share) };
    Ok((!all.is_empty()).then(|| share(all)))
}

fn setting(name: &str, any: &Any, at: &At<'_>) -> Result<Option<Setting>, Reject> {
    let extension = extension::open(any, at)?;
    if !extension.is::<FilterConfig>() {
        return one(&extension, at);
    }
    let config: FilterConfig = extension.message(at)?;
    fields!(at, &config => FilterConfig { read: [config, disabled], harmless: [is_optional] });
    if config.disabled {
        if name == "envoy.filters.http.router" {
            return Err(at.field("disabled").reject("the router cannot be disabled"));
        }
        return Ok(Some(Setting::Disabled));
    }
    let inner = at.field("config");
    match &config.config {
        None => Err(inner.reject("is required where the filter is not disabled")),
        Some(any) if any.type_url.is_empty() => Ok(Some(Setting::Enabled)),
        Some(any) => {
            let extension = extension::open(any, &inner)?;
            if extension.is::<FilterConfig>() {
                return Err(inner.reject("FilterConfig in FilterConfig"));
            }
            one(&extension, &inner)
        }
    }
}

fn one(extension: &Extension<'_>, at: &At<'_>) -> Result<Option<Setting>, Reject> {
    if extension.is::<HttpFault>() {
        return Ok(Some(Setting::Fault(share(fault(&extension.message(at)?, at)?))));
    }
    if extension.is::<CorsPolicy>() {
        return Ok(Some(Setting::Cors(share(cors::cors(&extension.message(at)?, at)?))));
    }
    if extension.is::<HeaderMutationPerRoute>() {
        let message: HeaderMutationPerRoute = extension.message(at)?;
        fields!(at, &message => HeaderMutationPerRoute { read: [mutations] });
        let all = message.mutations.unwrap_or_default();
        return Ok(Some(Setting::HeaderMutation(share(mutations(&all, &at.field("mutations"))?))));
    }
    if extension.is::<BufferPerRoute>() {
        let message: BufferPerRoute = extension.message(at)?;
        fields!(at, &message => BufferPerRoute { read: [r#override] });
        return Ok(Some(match at.required("override", &message.r#override)? {
            buffer_per_route::Override::Disabled(true) => Setting::Buffer(None),
            buffer_per_route::Override::Disabled(false) => {
                return Err(at.field("disabled").reject("must be true"));
            }
            buffer_per_route::Override::Buffer(m) => Setting::Buffer(Some(max_request_bytes(m, &at.field("buffer"))?)),
        }));
    }
    if extension.is::<RbacPerRoute>() {
        let message: RbacPerRoute = extension.message(at)?;
        fields!(at, &message => RbacPerRoute { read: [rbac] });
        let inner = at.field("rbac");
        if message.rbac.as_ref().is_some_and(|rbac| rbac.track_per_rule_stats) {
            inner.field("track_per_rule_stats").unsupported("policies of routes are not counted one by one");
        }
        let rbac = message.rbac.as_ref().map(|m| rbac::http(m, &inner)).transpose()?;
        return Ok(Some(Setting::Rbac(rbac.map(share))));
    }
    if extension.is_empty() && (extension.is::<RouteCors>() || extension.is::<StatefulSessionPerRoute>()) {
        at.harmless("is empty and does nothing");
        return Ok(None);
    }
    extension.ignore("per-route configuration", at)?;
    // Whatever it would say, the filter is not here; that there is an entry at all switches one on.
    Ok(Some(Setting::Enabled))
}
