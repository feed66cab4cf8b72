//! Services that filters ask: gRPC services and HTTP URIs.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use outrigger_wire::pb::envoy::config::core::v3::{
    GrpcService as PbGrpc, HeaderValue as PbHeader, HttpUri as PbUri,
    grpc_service::{EnvoyGrpc, TargetSpecifier},
    http_uri::HttpUpstreamType,
};

use super::{
    at::At,
    fields::fields,
    format_string::template,
    report::Reject,
    scalar::{header_name, not_empty, zero_is_off},
};
use crate::ir::{
    format::Template,
    service::{GrpcService, HttpUri},
};

/// A gRPC service; `timeout` holds where it names none.
pub(crate) fn grpc_service(message: &PbGrpc, timeout: Option<Duration>, at: &At<'_>) -> Result<GrpcService, Reject> {
    fields!(at, message => PbGrpc {
        read: [timeout, initial_metadata, target_specifier],
        refuse: [retry_policy],
    });
    let target = match at.required("target_specifier", &message.target_specifier)? {
        TargetSpecifier::EnvoyGrpc(target) => target,
        TargetSpecifier::GoogleGrpc(_) => {
            return Err(at.field("google_grpc").reject("is not supported by this release: use envoy_grpc"));
        }
    };
    let inner = at.field("envoy_grpc");
    fields!(&inner, target => EnvoyGrpc {
        read: [cluster_name, authority, max_receive_message_length],
        unsupported: [skip_envoy_headers],
        refuse: [retry_policy],
    });
    let authority = (!target.authority.is_empty()).then(|| {
        let value = target.authority.parse::<http::uri::Authority>().ok();
        let value = value.and_then(|a| HeaderValue::from_str(a.as_str()).ok());
        value.ok_or_else(|| inner.field("authority").reject(format!("{:?} is no authority", target.authority)))
    });
    Ok(GrpcService {
        cluster: not_empty(&target.cluster_name, &inner.field("cluster_name"))?.into(),
        authority: authority.transpose()?,
        timeout: zero_is_off(at.duration("timeout", &message.timeout)?.or(timeout)),
        metadata: header_values("initial_metadata", &message.initial_metadata, at)?,
        max_message: target.max_receive_message_length.map(|v| v.value),
    })
}

/// Headers with their values, which may look at the request.
pub(crate) fn header_values(
    name: &str,
    messages: &[PbHeader],
    at: &At<'_>,
) -> Result<Vec<(HeaderName, Template)>, Reject> {
    at.each(name, messages, |message, at| {
        let key = header_name(&message.key, &at.field("key"))?;
        if !message.raw_value.is_empty() {
            return Err(at.field("raw_value").reject("is not supported by this release: use value"));
        }
        Ok((key, template(&message.value, &at.field("value"))?))
    })
}

/// A URI and the cluster that leads there.
pub(crate) fn http_uri(message: &PbUri, at: &At<'_>) -> Result<HttpUri, Reject> {
    fields!(at, message => PbUri { read: [uri, timeout, http_upstream_type] });
    let HttpUpstreamType::Cluster(cluster) = at.required("cluster", &message.http_upstream_type)?;
    at.required("timeout", &message.timeout)?;
    Ok(HttpUri {
        uri: not_empty(&message.uri, &at.field("uri"))?.into(),
        cluster: not_empty(cluster, &at.field("cluster"))?.into(),
        timeout: zero_is_off(at.duration("timeout", &message.timeout)?),
    })
}
