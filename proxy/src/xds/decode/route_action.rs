//! What a route does: forward, redirect, or answer directly.

use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use outrigger_wire::pb::envoy::config::{
    core::v3::{RoutingPriority, SubstitutionFormatString},
    route::v3::{
        DirectResponseAction, RedirectAction, RouteAction, WeightedCluster,
        redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
        route_action::{
            ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier, MaxStreamDuration, UpgradeConfig,
        },
        weighted_cluster::{ClusterWeight, cluster_weight},
    },
};

use super::{
    at::At,
    fields::fields,
    format_string,
    hash_policy::hash_policies,
    hcm_options::header_value,
    header_ops::{header_ops, lists},
    internal_redirect::internal_redirect,
    lb_subset, matcher,
    mirror::mirrors,
    path_template, per_route,
    report::{NoteKind, Reject},
    retry::{hedge, retry},
    scalar::{bool_or, enumeration, header_name, not_empty, port, u32_or, zero_is_off},
    secret::inline_text,
    virtual_host::Inherited,
};
use crate::ir::{
    balancing::Criteria,
    format::{Operator, Template},
    route::{
        BodyFormat, DirectResponse, Forward, HostRewrite, PathMatch, PathRewrite, Redirect, StreamDuration, Target,
        WeightedTarget,
    },
    share::share,
};

/// Envoy's default route timeout.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(15);

pub(crate) fn forward(
    message: &RouteAction,
    path: &PathMatch,
    inherited: &Inherited,
    at: &At<'_>,
) -> Result<Forward, Reject> {
    fields!(at, message => RouteAction {
        read: [
            cluster_not_found_response_code, prefix_rewrite, regex_rewrite, append_x_forwarded_host, timeout,
            idle_timeout, retry_policy, priority, hash_policy, cors, max_grpc_timeout, upgrade_configs,
            internal_redirect_action, max_stream_duration, cluster_specifier, host_rewrite_specifier, metadata_match,
            grpc_timeout_offset, hedge_policy, request_mirror_policies, path_rewrite_policy, internal_redirect_policy,
            max_internal_redirects, flush_timeout, path_rewrite, rate_limits, include_vh_rate_limits,
        ],
        harmless: [early_data_policy],
        unsupported: [
            retry_policy_typed_config,
        ],
    });
    if *path == PathMatch::Connect && (!message.prefix_rewrite.is_empty() || message.regex_rewrite.is_some()) {
        at.unsupported("a CONNECT request has no path to rewrite");
    }
    let not_found = enumeration(message.cluster_not_found_response_code, &at.field("cluster_not_found_response_code"))?;
    let stream = match &message.max_stream_duration {
        Some(m) => Some(Box::new(stream_duration(m, &at.field("max_stream_duration"))?)),
        None => None,
    };
    for (name, value) in
        [("max_grpc_timeout", &message.max_grpc_timeout), ("grpc_timeout_offset", &message.grpc_timeout_offset)]
    {
        match (value, &stream) {
            (None, _) => {}
            (Some(_), None) => at.field(name).note(NoteKind::Deprecated, "use max_stream_duration"),
            (Some(_), Some(_)) => at.field(name).unsupported("does not apply next to max_stream_duration"),
        }
    }
    let priority: RoutingPriority = enumeration(message.priority, &at.field("priority"))?;
    let criteria = lb_subset::criteria(&message.metadata_match, None, at);
    Ok(Forward {
        target: target(message, criteria.as_ref(), at)?,
        cluster_not_found: match not_found {
            ClusterNotFoundResponseCode::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            ClusterNotFoundResponseCode::NotFound => StatusCode::NOT_FOUND,
            ClusterNotFoundResponseCode::InternalServerError => StatusCode::INTERNAL_SERVER_ERROR,
        },
        path_rewrite: path_rewrite(message, path, at)?,
        host_rewrite: host_rewrite(message, at)?,
        append_forwarded_host: message.append_x_forwarded_host,
        timeout: zero_is_off(at.duration("timeout", &message.timeout)?.or(Some(TIMEOUT))),
        idle_timeout: at.duration("idle_timeout", &message.idle_timeout)?.map(|d| zero_is_off(Some(d))),
        flush_timeout: at.duration("flush_timeout", &message.flush_timeout)?.map(|d| zero_is_off(Some(d))),
        stream,
        grpc_timeout_max: at.duration("max_grpc_timeout", &message.max_grpc_timeout)?.map(|d| zero_is_off(Some(d))),
        grpc_timeout_offset: at.duration("grpc_timeout_offset", &message.grpc_timeout_offset)?.unwrap_or_default(),
        retry: retry(&message.retry_policy, at)?,
        hedge: hedge(&message.hedge_policy, at),
        // A field of the route around it.
        body_buffer: None,
        upgrades: at.each("upgrade_configs", &message.upgrade_configs, upgrade)?,
        hash_policy: hash_policies(&message.hash_policy, at)?,
        criteria,
        high_priority: priority == RoutingPriority::High,
        internal_redirect: internal_redirect(message, at)?.map(share),
        mirrors: mirrors(&message.request_mirror_policies, &inherited.mirrors, at)?,
    })
}

fn stream_duration(message: &MaxStreamDuration, at: &At<'_>) -> Result<StreamDuration, Reject> {
    fields!(at, message => MaxStreamDuration {
        read: [max_stream_duration, grpc_timeout_header_max, grpc_timeout_header_offset],
    });
    let off = |d| zero_is_off(Some(d));
    let offset = at.duration("grpc_timeout_header_offset", &message.grpc_timeout_header_offset)?;
    Ok(StreamDuration {
        max: at.duration("max_stream_duration", &message.max_stream_duration)?.map(off),
        grpc_max: at.duration("grpc_timeout_header_max", &message.grpc_timeout_header_max)?.map(off),
        grpc_offset: offset.unwrap_or_default(),
    })
}

fn target(message: &RouteAction, criteria: Option<&Arc<Criteria>>, at: &At<'_>) -> Result<Target, Reject> {
    match at.required("cluster_specifier", &message.cluster_specifier)? {
        ClusterSpecifier::Cluster(name) => Ok(Target::Cluster(not_empty(name, &at.field("cluster"))?.into())),
        ClusterSpecifier::ClusterHeader(name) => Ok(Target::Header(header_name(name, &at.field("cluster_header"))?)),
        ClusterSpecifier::WeightedClusters(m) => {
            weighted(m, criteria, &at.field("weighted_clusters")).map(Target::Weighted)
        }
        ClusterSpecifier::ClusterSpecifierPlugin(_) | ClusterSpecifier::InlineClusterSpecifierPlugin(_) => {
            Err(at.field("cluster_specifier_plugin").reject("is not supported by this release"))
        }
    }
}

fn weighted(
    message: &WeightedCluster,
    criteria: Option<&Arc<Criteria>>,
    at: &At<'_>,
) -> Result<Vec<WeightedTarget>, Reject> {
    fields!(at, message => WeightedCluster {
        read: [clusters, total_weight],
        harmless: [runtime_key_prefix],
        unsupported: [random_value_specifier],
    });
    let targets = at.each("clusters", &message.clusters, |m, at| {
        fields!(at, m => ClusterWeight {
            read: [
                name, cluster_header, weight, request_headers_to_add, request_headers_to_remove, response_headers_to_add,
                response_headers_to_remove, typed_per_filter_config, host_rewrite_specifier, metadata_match,
            ],
        });
        let overrides = per_route::overrides(&m.typed_per_filter_config, (None, None), at)?;
        let host_rewrite = match &m.host_rewrite_specifier {
            Some(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host)) => {
                Some(a_host(host, &at.field("host_rewrite_literal"))?)
            }
            None => None,
        };
        let cluster_header = match (m.name.as_str(), m.cluster_header.as_str()) {
            (_, "") => None,
            ("", name) => Some(header_name(name, &at.field("cluster_header"))?),
            _ => return Err(at.field("cluster_header").reject("excludes name")),
        };
        if cluster_header.is_none() {
            not_empty(&m.name, &at.field("name"))?;
        }
        Ok(WeightedTarget {
            cluster: m.name.as_str().into(),
            cluster_header,
            weight: u32_or(&m.weight, 0),
            headers: header_ops(&lists!(m), at)?,
            host_rewrite,
            overrides,
            criteria: lb_subset::criteria(&m.metadata_match, criteria, at),
        })
    })?;
    let sum: u64 = targets.iter().map(|t| u64::from(t.weight)).sum();
    if sum == 0 || sum > u64::from(u32::MAX) {
        return Err(at.field("clusters").reject(format!("the sum of the weights must be 1 to 2^32-1, not {sum}")));
    }
    if message.total_weight.is_some() {
        at.field("total_weight").note(NoteKind::Deprecated, "the sum of the weights counts");
    }
    Ok(targets)
}

fn path_rewrite(message: &RouteAction, path: &PathMatch, at: &At<'_>) -> Result<Option<PathRewrite>, Reject> {
    let mut all = Vec::new();
    if !message.prefix_rewrite.is_empty() {
        all.push((
            "prefix_rewrite",
            PathRewrite::Prefix(a_path(&message.prefix_rewrite, &at.field("prefix_rewrite"))?),
        ));
    }
    if let Some(m) = &message.regex_rewrite {
        let (pattern, substitution) = matcher::substitution(m, &at.field("regex_rewrite"))?;
        all.push(("regex_rewrite", PathRewrite::Regex { pattern, substitution }));
    }
    if let Some(m) = &message.path_rewrite_policy {
        let at = at.field("path_rewrite_policy");
        all.push(("path_rewrite_policy", path_template::rewrite(m, path, &at)?));
    }
    if !message.path_rewrite.is_empty() {
        all.push(("path_rewrite", PathRewrite::Format(a_format(&message.path_rewrite, &at.field("path_rewrite"))?)));
    }
    match (all.len(), all.pop()) {
        (0 | 1, last) => Ok(last.map(|(_, rewrite)| rewrite)),
        (_, Some((name, _))) => Err(at.field(name).reject("excludes the other rewrites")),
        (_, None) => Ok(None),
    }
}

/// A format whose text may stand in a request line or a header.
fn a_format(text: &str, at: &At<'_>) -> Result<Template, Reject> {
    header_value(not_empty(text, at)?, at)?;
    format_string::template(text, at)
}

fn host_rewrite(message: &RouteAction, at: &At<'_>) -> Result<Option<HostRewrite>, Reject> {
    use HostRewriteSpecifier as S;
    Ok(match &message.host_rewrite_specifier {
        None => None,
        Some(S::HostRewriteLiteral(host)) => {
            Some(HostRewrite::Literal(a_host(host, &at.field("host_rewrite_literal"))?))
        }
        Some(S::AutoHostRewrite(auto)) => auto.value.then_some(HostRewrite::Auto),
        Some(S::HostRewriteHeader(name)) => {
            Some(HostRewrite::Header(header_name(name, &at.field("host_rewrite_header"))?))
        }
        Some(S::HostRewritePathRegex(m)) => {
            let (pattern, substitution) = matcher::substitution(m, &at.field("host_rewrite_path_regex"))?;
            Some(HostRewrite::PathRegex { pattern, substitution })
        }
        Some(S::HostRewrite(text)) => Some(HostRewrite::Format(a_format(text, &at.field("host_rewrite"))?)),
    })
}

fn upgrade(message: &UpgradeConfig, at: &At<'_>) -> Result<(Box<str>, bool), Reject> {
    fields!(at, message => UpgradeConfig {
        read: [upgrade_type, enabled],
        // Termination of CONNECT: the payload would go out as if it were a request.
        refuse: [connect_config],
    });
    let kind = not_empty(&message.upgrade_type, &at.field("upgrade_type"))?.to_ascii_lowercase();
    Ok((kind.into(), bool_or(&message.enabled, true)))
}

pub(crate) fn redirect(message: &RedirectAction, at: &At<'_>) -> Result<Redirect, Reject> {
    fields!(at, message => RedirectAction {
        read: [host_redirect, port_redirect, response_code, strip_query, scheme_rewrite_specifier, path_rewrite_specifier],
    });
    let (https, scheme) = match &message.scheme_rewrite_specifier {
        None => (false, None),
        Some(SchemeRewriteSpecifier::HttpsRedirect(on)) => (*on, None),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => {
            let at = at.field("scheme_redirect");
            let valid = http::uri::Scheme::try_from(scheme.as_str()).map_err(|_| at.reject("is not a scheme"))?;
            (false, Some(valid.as_str().into()))
        }
    };
    let (path, rewrite) = match &message.path_rewrite_specifier {
        None => (None, None),
        Some(PathRewriteSpecifier::PathRedirect(text)) => (Some(a_path(text, &at.field("path_redirect"))?), None),
        Some(PathRewriteSpecifier::PrefixRewrite(text)) => {
            (None, Some(PathRewrite::Prefix(a_path(text, &at.field("prefix_rewrite"))?)))
        }
        Some(PathRewriteSpecifier::RegexRewrite(m)) => {
            let (pattern, substitution) = matcher::substitution(m, &at.field("regex_rewrite"))?;
            (None, Some(PathRewrite::Regex { pattern, substitution }))
        }
        Some(PathRewriteSpecifier::PathRewrite(text)) => {
            (None, Some(PathRewrite::Format(a_format(text, &at.field("path_rewrite"))?)))
        }
    };
    let host = match message.host_redirect.as_str() {
        "" => None,
        host => Some(a_host(host, &at.field("host_redirect"))?),
    };
    Ok(Redirect {
        status: match enumeration(message.response_code, &at.field("response_code"))? {
            RedirectResponseCode::MovedPermanently => StatusCode::MOVED_PERMANENTLY,
            RedirectResponseCode::Found => StatusCode::FOUND,
            RedirectResponseCode::SeeOther => StatusCode::SEE_OTHER,
            RedirectResponseCode::TemporaryRedirect => StatusCode::TEMPORARY_REDIRECT,
            RedirectResponseCode::PermanentRedirect => StatusCode::PERMANENT_REDIRECT,
        },
        https,
        scheme,
        host,
        port: Some(port(message.port_redirect, &at.field("port_redirect"))?).filter(|p| *p != 0),
        path: path.filter(|p| !p.is_empty()),
        rewrite: rewrite.filter(|r| *r != PathRewrite::Prefix("".into())),
        strip_query: message.strip_query,
    })
}

pub(crate) fn direct(message: &DirectResponseAction, max: usize, at: &At<'_>) -> Result<DirectResponse, Reject> {
    fields!(at, message => DirectResponseAction { read: [status, body, body_format] });
    let status = u16::try_from(message.status).ok().filter(|s| (200..600).contains(s));
    let status = status.and_then(|s| StatusCode::from_u16(s).ok());
    let status =
        status.ok_or_else(|| at.field("status").reject(format!("{} is not between 200 and 599", message.status)))?;
    let body = match &message.body {
        Some(source) => inline_text(source, &at.field("body"))?,
        None => &[],
    };
    if body.len() > max {
        return Err(at.field("body").reject(format!("{} bytes are more than {max}", body.len())));
    }
    let format = match &message.body_format {
        Some(m) => Some(body_format(m, Some(body), &at.field("body_format"))?),
        None => None,
    };
    Ok(DirectResponse { status, body: bytes::Bytes::copy_from_slice(body), format })
}

/// How a body is made; with `body` what that is in it.
pub(crate) fn body_format(
    message: &SubstitutionFormatString,
    body: Option<&[u8]>,
    at: &At<'_>,
) -> Result<BodyFormat, Reject> {
    let content_type = match message.content_type.as_str() {
        "" => None,
        text => {
            Some(HeaderValue::from_str(text).map_err(|_| at.field("content_type").reject("is not a header value"))?)
        }
    };
    let rest = SubstitutionFormatString { content_type: String::new(), ..message.clone() };
    let mut format = format_string::format(&rest, at)?;
    if let Some(body) = body {
        let body = std::str::from_utf8(body).map_err(|_| at.reject("needs a body that is UTF-8"))?;
        format.substitute(&Operator::LocalReplyBody, body);
    }
    Ok(BodyFormat { format, content_type })
}

fn a_host(text: &str, at: &At<'_>) -> Result<Box<str>, Reject> {
    header_value(not_empty(text, at)?, at)
}

/// A path that goes into a request line or a `location`: visible ASCII and UTF-8, no controls, no blanks.
fn a_path(text: &str, at: &At<'_>) -> Result<Box<str>, Reject> {
    if text.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return Err(at.reject("contains control characters or blanks"));
    }
    Ok(text.into())
}
