//! HTTP protocol options, down- and upstream: HTTP/1, HTTP/2, and what is common to both.

use std::time::Duration;

use outrigger_wire::pb::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions, KeepaliveSettings,
    http_protocol_options::HeadersWithUnderscoresAction,
    http1_protocol_options::{HeaderKeyFormat, header_key_format::HeaderFormat},
    http2_protocol_options::SettingsParameter,
};

use super::{
    at::At,
    extension,
    fields::fields,
    report::Reject,
    scalar::{bool_or, enumeration, positive, u32_in, zero_is_off},
};
use crate::ir::http::{Http1Options, Http2Options, Underscores};

/// Envoy's bounds of an HTTP/2 flow control window.
const WINDOW: std::ops::RangeInclusive<u32> = 65_535..=0x7fff_ffff;

pub(crate) fn http1(message: &Option<Http1ProtocolOptions>, at: &At<'_>) -> Result<Http1Options, Reject> {
    let mut options = Http1Options::default();
    let Some(message) = message else { return Ok(options) };
    fields!(at, message => Http1ProtocolOptions {
        // HTTP/1.0 and trailers are always on: an application must not notice the proxy. Absolute URLs likewise.
        read: [
            allow_absolute_url, accept_http_10, default_host_for_http_10, header_key_format, enable_trailers,
            allow_custom_methods,
        ],
        harmless: [use_balsa_parser, override_stream_error_on_invalid_http_message],
        unsupported: [allow_chunked_length, send_fully_qualified_url, ignore_http_11_upgrade],
    });
    if !bool_or(&message.allow_absolute_url, true) {
        at.field("allow_absolute_url").unsupported("absolute URLs are always accepted");
    }
    options.default_host_for_http_10 = message.default_host_for_http_10.as_str().into();
    if let Some(HeaderKeyFormat { header_format: Some(format) }) = &message.header_key_format {
        let at = at.field("header_key_format");
        match format {
            HeaderFormat::ProperCaseWords(_) => {
                at.field("proper_case_words").unsupported("the case that the peer used is preserved instead");
            }
            HeaderFormat::StatefulFormatter(formatter) => {
                let at = at.field("stateful_formatter");
                let any = at.required("typed_config", &formatter.typed_config)?;
                let at = at.field("typed_config");
                extension::open(any, &at)?.ignore("header formatter", &at)?;
            }
        }
    }
    Ok(options)
}

pub(crate) fn http2(message: &Option<Http2ProtocolOptions>, at: &At<'_>) -> Result<Http2Options, Reject> {
    let mut options = Http2Options::default();
    let Some(message) = message else { return Ok(options) };
    fields!(at, message => Http2ProtocolOptions {
        read: [
            max_concurrent_streams, initial_stream_window_size, initial_connection_window_size, allow_connect,
            connection_keepalive,
        ],
        harmless: [
            hpack_table_size, use_oghttp2_codec, enable_huffman_encoding, max_outbound_frames,
            max_outbound_control_frames, max_consecutive_inbound_frames_with_empty_payload,
            max_inbound_priority_frames_per_stream, max_inbound_window_update_frames_per_data_frame_sent,
            stream_error_on_invalid_http_messaging, override_stream_error_on_invalid_http_message, disallow_obs_text,
            stream_reset_burst, stream_reset_rate,
        ],
        unsupported: [allow_metadata, custom_settings_parameters, max_metadata_size, max_header_field_size_kb],
    });
    for (i, m) in message.custom_settings_parameters.iter().enumerate() {
        let at = at.index("custom_settings_parameters", i);
        fields!(&at, m => SettingsParameter { read: [identifier, value] });
        // ENABLE_PUSH and what has a field of its own: Envoy refuses these.
        if m.identifier.as_ref().is_some_and(|id| matches!(id.value, 0x2 | 0x8 | 0x3 | 0x4 | 0x1)) {
            return Err(at.field("identifier").reject("must be set by its own field, not as a custom parameter"));
        }
    }
    let number = |name: &str, value, default, range| u32_in(value, default, range, &at.field(name));
    let streams = &message.max_concurrent_streams;
    options.max_concurrent_streams =
        number("max_concurrent_streams", streams, options.max_concurrent_streams, 1..=0x7fff_ffff)?;
    options.stream_window =
        number("initial_stream_window_size", &message.initial_stream_window_size, options.stream_window, WINDOW)?;
    let connection = &message.initial_connection_window_size;
    options.connection_window =
        number("initial_connection_window_size", connection, options.connection_window, WINDOW)?;
    options.allow_connect = message.allow_connect;
    if let Some(m) = &message.connection_keepalive {
        let at = at.field("connection_keepalive");
        fields!(&at, m => KeepaliveSettings {
            read: [interval, timeout],
            unsupported: [interval_jitter, connection_idle_interval],
        });
        let least = |name: &str, value: Option<Duration>| match value {
            Some(d) if d < Duration::from_millis(1) => Err(at.field(name).reject("must be at least 1 ms")),
            d => Ok(d),
        };
        options.keepalive_interval = least("interval", at.duration("interval", &m.interval)?)?;
        at.required("timeout", &m.timeout)?;
        if let Some(timeout) = least("timeout", at.duration("timeout", &m.timeout)?)? {
            options.keepalive_timeout = timeout;
        }
    }
    Ok(options)
}

/// `HttpProtocolOptions`, with Envoy's defaults where they are shared by both sides.
pub(crate) struct Common {
    pub idle_timeout: Option<Duration>,
    pub max_connection_duration: Option<Duration>,
    pub max_headers_count: u32,
    pub max_stream_duration: Option<Duration>,
    pub underscores: Underscores,
    pub max_requests_per_connection: Option<u32>,
}

pub(crate) fn common(message: &Option<HttpProtocolOptions>, at: &At<'_>) -> Result<Common, Reject> {
    let fallback = HttpProtocolOptions::default();
    let message = message.as_ref().unwrap_or(&fallback);
    fields!(at, message => HttpProtocolOptions {
        read: [
            idle_timeout, max_connection_duration, max_headers_count, max_stream_duration,
            headers_with_underscores_action, max_requests_per_connection,
        ],
        unsupported: [max_connection_duration_jitter, max_response_headers_kb],
    });
    let idle = at.duration("idle_timeout", &message.idle_timeout)?;
    let connection = at.duration("max_connection_duration", &message.max_connection_duration)?;
    let stream = at.duration("max_stream_duration", &message.max_stream_duration)?;
    let requests = message.max_requests_per_connection.as_ref().map(|v| v.value).filter(|v| *v > 0);
    let action_at = at.field("headers_with_underscores_action");
    Ok(Common {
        idle_timeout: zero_is_off(Some(idle.unwrap_or(Duration::from_secs(3600)))),
        max_connection_duration: positive(connection, &at.field("max_connection_duration"))?,
        max_headers_count: u32_in(&message.max_headers_count, 100, 1..=u32::MAX, &at.field("max_headers_count"))?,
        max_stream_duration: zero_is_off(stream),
        underscores: match enumeration(message.headers_with_underscores_action, &action_at)? {
            HeadersWithUnderscoresAction::Allow => Underscores::Allow,
            HeadersWithUnderscoresAction::RejectRequest => Underscores::RejectRequest,
            HeadersWithUnderscoresAction::DropHeader => Underscores::DropHeader,
        },
        max_requests_per_connection: requests,
    })
}
