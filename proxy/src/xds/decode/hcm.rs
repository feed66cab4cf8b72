//! The HTTP connection manager: limits, routes, filters. Header and address handling is in `hcm_options`.

use std::{sync::Arc, time::Duration};

use outrigger_wire::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager as Pb,
    http_connection_manager::{CodecType, HcmAccessLogOptions, RouteSpecifier, UpgradeConfig},
};

use super::{
    access_log::access_logs,
    at::At,
    fields::fields,
    hcm_options as options,
    hosts::Apart,
    http_filter, http_options, istio_stats, local_reply,
    report::Reject,
    route,
    scalar::{bool_or, enumeration, not_empty, u32_in, zero_is_off},
    source::config_source,
    tracing,
};
use crate::ir::http::{Codec, ConnectionManager, RouteSource};

const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn manager(apart: &Apart<'_, Pb>, at: &At<'_>) -> Result<ConnectionManager, Reject> {
    let message = &apart.message;
    fields!(at, message => Pb {
        read: [
            codec_type, stat_prefix, http_filters, common_http_protocol_options, http_protocol_options,
            http2_protocol_options, server_name, server_header_transformation, max_request_headers_kb,
            stream_idle_timeout, request_timeout, request_headers_timeout, drain_timeout, access_log,
            access_log_options, use_remote_address, xff_num_trusted_hops, skip_xff_append, via, generate_request_id,
            preserve_external_request_id, always_set_request_id_in_response, forward_client_cert_details,
            set_current_client_cert_details, proxy_100_continue, upgrade_configs, normalize_path, merge_slashes,
            path_with_escaped_slashes_action, request_id_extension, strip_matching_host_port, append_x_forwarded_port,
            route_specifier, strip_port_mode, internal_address_config, stream_flush_timeout,
            local_reply_config, tracing,
        ],
        harmless: [
            access_log_flush_interval, delayed_close_timeout, append_local_overload,
            add_proxy_protocol_connection_state, http1_safe_max_connection_duration,
            stream_error_on_invalid_http_message, typed_header_validation_config,
        ],
        unsupported: [
            add_user_agent, http3_protocol_options, scheme_header_transformation, drain_timeout_jitter, flush_access_log_on_new_request, represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
            strip_trailing_host_dot, proxy_status_config, forward_proto_config,
        ],
        refuse: [
            original_ip_detection_extensions, early_header_mutation_extensions, forward_client_cert_matcher,
            path_normalization_options,
        ],
    });
    if let Some(m) = &message.access_log_options {
        let at = at.field("access_log_options");
        fields!(&at, m => HcmAccessLogOptions {
            read: [],
            unsupported: [
                access_log_flush_interval, flush_access_log_on_new_request, flush_log_on_tunnel_successfully_established,
            ],
        });
    }
    let common_at = at.field("common_http_protocol_options");
    let common = http_options::common(&message.common_http_protocol_options, &common_at)?;
    let stream_idle = at.duration("stream_idle_timeout", &message.stream_idle_timeout)?;
    let stream_flush = at.duration("stream_flush_timeout", &message.stream_flush_timeout)?;
    let header_kb = u32_in(&message.max_request_headers_kb, 60, 1..=8192, &at.field("max_request_headers_kb"))?;
    let (client_cert, client_cert_details) = options::client_cert(message, at)?;
    let filters = http_filter::filters(&message.http_filters, at)?;
    let request_id = tracing::request_id(&message.request_id_extension, at)?;
    Ok(ConnectionManager {
        tracing: tracing::manager(&message.tracing, (request_id, &filters), at)?,
        stat_prefix: not_empty(&message.stat_prefix, &at.field("stat_prefix"))?.into(),
        istio_stats: istio_stats::of_http(&message.http_filters, at)?,
        codec: match enumeration(message.codec_type, &at.field("codec_type"))? {
            CodecType::Auto => Codec::Auto,
            CodecType::Http1 => Codec::Http1,
            CodecType::Http2 => Codec::Http2,
            CodecType::Http3 => return Err(at.field("codec_type").reject("HTTP/3 is not supported by this release")),
        },
        routes: routes(apart, at)?,
        filters,
        http1: http_options::http1(&message.http_protocol_options, &at.field("http_protocol_options"))?,
        http2: http_options::http2(&message.http2_protocol_options, &at.field("http2_protocol_options"))?,
        idle_timeout: common.idle_timeout,
        max_connection_duration: common.max_connection_duration,
        max_requests_per_connection: common.max_requests_per_connection,
        stream_idle_timeout: zero_is_off(Some(stream_idle.unwrap_or(STREAM_IDLE_TIMEOUT))),
        stream_flush_timeout: stream_flush.map(|d| zero_is_off(Some(d))),
        request_timeout: zero_is_off(at.duration("request_timeout", &message.request_timeout)?),
        request_headers_timeout: zero_is_off(at.duration("request_headers_timeout", &message.request_headers_timeout)?),
        max_stream_duration: common.max_stream_duration,
        drain_timeout: at.duration("drain_timeout", &message.drain_timeout)?.unwrap_or(DRAIN_TIMEOUT),
        max_header_bytes: header_kb * 1024,
        max_header_count: common.max_headers_count,
        underscores: common.underscores,
        normalize_path: bool_or(&message.normalize_path, false),
        merge_slashes: message.merge_slashes,
        escaped_slashes: options::escaped_slashes(message, at)?,
        strip_port: options::strip_port(message, at)?,
        server_name: options::server_name(message, at)?,
        server_header: options::server_header(message, at)?,
        via: options::header_value(&message.via, &at.field("via"))?,
        use_remote_address: bool_or(&message.use_remote_address, false),
        xff_trusted_hops: message.xff_num_trusted_hops,
        skip_xff_append: message.skip_xff_append,
        internal_networks: options::internal_networks(message, at)?,
        append_forwarded_port: message.append_x_forwarded_port,
        client_cert,
        client_cert_details,
        generate_request_id: bool_or(&message.generate_request_id, true),
        preserve_external_request_id: message.preserve_external_request_id,
        request_id_in_response: message.always_set_request_id_in_response,
        upgrades: at.each("upgrade_configs", &message.upgrade_configs, upgrade)?,
        proxy_100_continue: message.proxy_100_continue,
        access_log: access_logs("access_log", &message.access_log, at)?,
        local_reply: match &message.local_reply_config {
            Some(m) => Some(Box::new(local_reply::local_reply(m, &at.field("local_reply_config"))?)),
            None => None,
        },
    })
}

fn routes(apart: &Apart<'_, Pb>, at: &At<'_>) -> Result<RouteSource, Reject> {
    match at.required("route_specifier", &apart.message.route_specifier)? {
        RouteSpecifier::RouteConfig(m) => {
            let routes = route::route_configuration(m, &apart.hosts, &at.field("route_config"))?;
            Ok(RouteSource::Inline(Arc::new(routes)))
        }
        RouteSpecifier::Rds(rds) => {
            let at = at.field("rds");
            let source = at.required("config_source", &rds.config_source)?;
            let source = config_source(source, &at.field("config_source"))?;
            let name = not_empty(&rds.route_config_name, &at.field("route_config_name"))?.into();
            Ok(RouteSource::Rds { name, source })
        }
        RouteSpecifier::ScopedRoutes(_) => {
            Err(at.field("scoped_routes").reject("scoped routes are not supported by this release"))
        }
    }
}

fn upgrade(message: &UpgradeConfig, at: &At<'_>) -> Result<(Box<str>, bool), Reject> {
    fields!(at, message => UpgradeConfig { read: [upgrade_type, enabled], refuse: [filters] });
    let kind = not_empty(&message.upgrade_type, &at.field("upgrade_type"))?.to_ascii_lowercase();
    Ok((kind.into(), bool_or(&message.enabled, true)))
}
