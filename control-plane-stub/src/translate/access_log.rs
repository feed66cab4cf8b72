//! Access logs of connection managers and TCP proxies, as Istio writes them.

use outrigger_wire::pb::envoy::{
    config::accesslog::v3::{AccessLog, access_log},
    extensions::{
        access_loggers::file::v3::{FileAccessLog, file_access_log},
        filters::network::tcp_proxy::v3::TcpProxy,
    },
};
use prost::Message as _;
use serde_json::Value as Json;

use super::{
    filters,
    pb::{self, any, core, listener},
    scope::Scope,
};
use crate::model::{AccessLogEncoding, AccessLogFormat};

/// Istio's fields, by their names in JSON, in the order of its text.
const FIELDS: &[(&str, &str)] = &[
    ("start_time", "%START_TIME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("route_name", "%ROUTE_NAME%"),
];

/// Istio's text.
const TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" \
%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \
\"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// The mesh's access log, where it has one.
pub(super) fn of(scope: &Scope<'_>) -> Vec<AccessLog> {
    let Some((file, format)) = scope.world.mesh.access_log() else { return Vec::new() };
    use core::substitution_format_string::Format;
    let text = |text: &str| {
        let source = core::data_source::Specifier::InlineString(text.to_owned());
        Format::TextFormatSource(core::DataSource { specifier: Some(source), ..Default::default() })
    };
    let format = match format {
        AccessLogFormat::Default(AccessLogEncoding::Text) => text(TEXT),
        AccessLogFormat::Text(own) => text(&own),
        AccessLogFormat::Default(AccessLogEncoding::Json) => {
            let value = |text: &str| pb::Value { kind: Some(pb::Kind::StringValue(text.to_owned())) };
            let fields = FIELDS.iter().map(|(name, operator)| ((*name).to_owned(), value(operator)));
            Format::JsonFormat(pb::Struct { fields: fields.collect() })
        }
        AccessLogFormat::Json(own) => Format::JsonFormat(object(own)),
    };
    let format = core::SubstitutionFormatString { format: Some(format), ..Default::default() };
    let log = FileAccessLog {
        path: file.to_owned(),
        access_log_format: Some(file_access_log::AccessLogFormat::LogFormat(format)),
    };
    vec![AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        config_type: Some(access_log::ConfigType::TypedConfig(any(log))),
        ..Default::default()
    }]
}

/// Has the connections of a listener logged that are not HTTP.
pub(super) fn log_connections(scope: &Scope<'_>, listener: &mut listener::Listener) {
    let logs = of(scope);
    if logs.is_empty() {
        return;
    }
    let chains = listener.filter_chains.iter_mut().chain(&mut listener.default_filter_chain);
    let proxies = chains.flat_map(|chain| &mut chain.filters).filter(|filter| filter.name == filters::TCP_PROXY);
    for filter in proxies {
        let Some(listener::filter::ConfigType::TypedConfig(config)) = &mut filter.config_type else { continue };
        if let Ok(proxy) = TcpProxy::decode(&*config.value) {
            *config = any(TcpProxy { access_log: logs.clone(), ..proxy });
        }
    }
}

fn object(fields: serde_json::Map<String, Json>) -> pb::Struct {
    pb::Struct { fields: fields.into_iter().map(|(name, field)| (name, value(field))).collect() }
}

fn value(json: Json) -> pb::Value {
    let kind = match json {
        Json::Null => pb::Kind::NullValue(0),
        Json::Bool(value) => pb::Kind::BoolValue(value),
        Json::Number(number) => pb::Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => pb::Kind::StringValue(text),
        Json::Array(values) => pb::Kind::ListValue(pb::ListValue { values: values.into_iter().map(value).collect() }),
        Json::Object(fields) => pb::Kind::StructValue(object(fields)),
    };
    pb::Value { kind: Some(kind) }
}
