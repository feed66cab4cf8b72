//! Path templates: the two extensions for matching and rewriting paths.

use outrigger_wire::pb::envoy::{
    config::core::v3::TypedExtensionConfig,
    extensions::path::{
        r#match::uri_template::v3::UriTemplateMatchConfig, rewrite::uri_template::v3::UriTemplateRewriteConfig,
    },
};

use super::{at::At, extension, fields::fields, report::Reject};
use crate::ir::{
    path_template::{PathTemplate, TemplateRewrite},
    route::{PathMatch, PathRewrite},
};

pub(crate) fn matching(message: &TypedExtensionConfig, at: &At<'_>) -> Result<PathMatch, Reject> {
    let at = at.field("typed_config");
    let any = message.typed_config.as_ref().ok_or_else(|| at.reject("is required"))?;
    let extension = extension::open(any, &at)?;
    if !extension.is::<UriTemplateMatchConfig>() {
        return Err(extension.refuse("path matcher", &at));
    }
    let config: UriTemplateMatchConfig = extension.message(&at)?;
    fields!(&at, &config => UriTemplateMatchConfig { read: [path_template] });
    let template = PathTemplate::parse(&config.path_template).map_err(|e| at.field("path_template").reject(e))?;
    Ok(PathMatch::Template(template))
}

/// The rewrite of a route with this match.
pub(crate) fn rewrite(message: &TypedExtensionConfig, matched: &PathMatch, at: &At<'_>) -> Result<PathRewrite, Reject> {
    let at = at.field("typed_config");
    let any = message.typed_config.as_ref().ok_or_else(|| at.reject("is required"))?;
    let extension = extension::open(any, &at)?;
    if !extension.is::<UriTemplateRewriteConfig>() {
        return Err(extension.refuse("path rewriter", &at));
    }
    let PathMatch::Template(template) = matched else {
        return Err(at.reject("needs a route that matches by a path template"));
    };
    let config: UriTemplateRewriteConfig = extension.message(&at)?;
    fields!(&at, &config => UriTemplateRewriteConfig { read: [path_template_rewrite] });
    let rewrite = TemplateRewrite::parse(&config.path_template_rewrite, template);
    rewrite.map(PathRewrite::Template).map_err(|e| at.field("path_template_rewrite").reject(e))
}
