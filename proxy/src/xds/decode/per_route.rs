//! `typed_per_filter_config`: accepted only where it changes nothing.

use std::collections::HashMap;

use outrigger_wire::pb::{
    envoy::{
        config::route::v3::{CorsPolicy as RouteCors, FilterConfig},
        extensions::filters::http::{
            cors::v3::CorsPolicy, fault::v3::HttpFault, stateful_session::v3::StatefulSessionPerRoute,
        },
    },
    google::protobuf::Any,
};

use super::{
    at::At,
    extension::{self, Extension},
    fields::fields,
    report::Reject,
};

pub(crate) fn check(configs: &HashMap<String, Any>, at: &At<'_>) -> Result<(), Reject> {
    // In a stable order, so that the same resource is always refused for the same reason.
    let mut configs: Vec<_> = configs.iter().collect();
    configs.sort_by_key(|(name, _)| *name);
    for (name, any) in configs {
        let at = at.key("typed_per_filter_config", name);
        let extension = extension::open(any, &at)?;
        if !extension.is::<FilterConfig>() {
            one(&extension, &at)?;
            continue;
        }
        let config: FilterConfig = extension.message(&at)?;
        fields!(&at, &config => FilterConfig { read: [config, disabled], harmless: [is_optional] });
        if config.disabled {
            if name == "istio.alpn" || name == "envoy.filters.http.router" {
                return Err(at.field("disabled").reject("is not supported by this release for this filter"));
            }
            at.field("disabled").harmless("the filter does nothing here in any case");
            continue;
        }
        if let Some(any) = &config.config {
            let at = at.field("config");
            let inner = extension::open(any, &at)?;
            if inner.is::<FilterConfig>() {
                return Err(at.reject("FilterConfig in FilterConfig"));
            }
            one(&inner, &at)?;
        }
    }
    Ok(())
}

fn one(extension: &Extension<'_>, at: &At<'_>) -> Result<(), Reject> {
    let no_op = extension.is_empty()
        && (extension.is::<HttpFault>()
            || extension.is::<CorsPolicy>()
            || extension.is::<RouteCors>()
            || extension.is::<StatefulSessionPerRoute>());
    if no_op {
        at.harmless("is empty and does nothing");
        return Ok(());
    }
    extension.ignore("per-route configuration", at)
}
