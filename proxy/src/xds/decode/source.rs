//! `ConfigSource` and the gRPC services behind it.

use std::time::Duration;

use outrigger_wire::pb::envoy::config::core::v3::{
    ApiConfigSource, ApiVersion, ConfigSource as PbSource, GrpcService, HeaderValue, PathConfigSource,
    api_config_source::ApiType, config_source::ConfigSourceSpecifier, grpc_service::EnvoyGrpc,
    grpc_service::TargetSpecifier,
};

use super::{
    at::At,
    fields::fields,
    report::{NoteKind, Reject},
    scalar::{enumeration, header_name, not_empty},
};
use crate::ir::{ConfigSource, Name};

/// Where a gRPC stream goes.
pub(crate) struct Target {
    pub cluster: Name,
    pub authority: Option<Box<str>>,
    pub metadata: Vec<(Box<str>, Box<str>)>,
    pub timeout: Option<Duration>,
}

/// The gRPC flavour of an `ApiConfigSource`.
pub(crate) struct Api {
    pub target: Target,
    pub delta: bool,
    pub aggregated: bool,
    pub node_on_first_message_only: bool,
}

pub(crate) fn config_source(message: &PbSource, at: &At<'_>) -> Result<ConfigSource, Reject> {
    fields!(at, message => PbSource {
        read: [initial_fetch_timeout, resource_api_version, config_source_specifier],
        unsupported: [authorities],
    });
    if at.duration("initial_fetch_timeout", &message.initial_fetch_timeout)?.is_some_and(|d| !d.is_zero()) {
        at.field("initial_fetch_timeout").unsupported("warming waits without a limit; connections are held meanwhile");
    }
    v3(message.resource_api_version, &at.field("resource_api_version"))?;
    match at.required("config_source_specifier", &message.config_source_specifier)? {
        ConfigSourceSpecifier::Ads(_) => Ok(ConfigSource::Ads),
        ConfigSourceSpecifier::Self_(own) => {
            v3(own.transport_api_version, &at.field("self").field("transport_api_version"))?;
            Ok(ConfigSource::SelfSource)
        }
        ConfigSourceSpecifier::Path(path) => {
            at.field("path").note(NoteKind::Deprecated, "use path_config_source");
            let path = not_empty(path, &at.field("path"))?.to_owned();
            Ok(ConfigSource::Path { path, watched_directory: None })
        }
        ConfigSourceSpecifier::PathConfigSource(source) => {
            let at = at.field("path_config_source");
            fields!(&at, source => PathConfigSource { read: [path, watched_directory], unsupported: [poll_interval] });
            let path = not_empty(&source.path, &at.field("path"))?.to_owned();
            let watched_directory = source.watched_directory.as_ref().map(|w| w.path.clone());
            Ok(ConfigSource::Path { path, watched_directory })
        }
        ConfigSourceSpecifier::ApiConfigSource(source) => {
            let at = at.field("api_config_source");
            let api = api(source, &at)?;
            if api.aggregated {
                return Err(at.field("api_type").reject("use `ads: {}` for the aggregated stream"));
            }
            if !api.target.metadata.is_empty() {
                at.field("grpc_services").unsupported("initial_metadata is sent on the aggregated stream only");
            }
            Ok(ConfigSource::Grpc { cluster: api.target.cluster, delta: api.delta })
        }
    }
}

/// Any `ApiConfigSource` that names one gRPC service.
pub(crate) fn api(message: &ApiConfigSource, at: &At<'_>) -> Result<Api, Reject> {
    fields!(at, message => ApiConfigSource {
        read: [api_type, transport_api_version, cluster_names, grpc_services, set_node_on_first_message_only],
        unsupported: [refresh_delay, request_timeout, rate_limit_settings],
        refuse: [config_validators],
    });
    v3(message.transport_api_version, &at.field("transport_api_version"))?;
    let (delta, aggregated) = match enumeration(message.api_type, &at.field("api_type"))? {
        ApiType::Grpc => (false, false),
        ApiType::DeltaGrpc => (true, false),
        ApiType::AggregatedGrpc => (false, true),
        ApiType::AggregatedDeltaGrpc => (true, true),
        ApiType::Rest => {
            return Err(at.field("api_type").reject("REST is not supported by this release: use GRPC or DELTA_GRPC"));
        }
        ApiType::DeprecatedAndUnavailableDoNotUse => {
            return Err(at.field("api_type").reject("is required: GRPC or DELTA_GRPC"));
        }
    };
    if !message.cluster_names.is_empty() {
        return Err(at.field("cluster_names").reject("is for REST: name the cluster in grpc_services"));
    }
    let [service] = message.grpc_services.as_slice() else {
        let reason = format!("exactly one gRPC service is supported, not {}", message.grpc_services.len());
        return Err(at.field("grpc_services").reject(reason));
    };
    let target = grpc(service, &at.index("grpc_services", 0))?;
    let node_on_first_message_only = message.set_node_on_first_message_only;
    Ok(Api { target, delta, aggregated, node_on_first_message_only })
}

fn grpc(message: &GrpcService, at: &At<'_>) -> Result<Target, Reject> {
    fields!(at, message => GrpcService {
        read: [timeout, initial_metadata, target_specifier],
        unsupported: [retry_policy],
    });
    let envoy = match at.required("target_specifier", &message.target_specifier)? {
        TargetSpecifier::EnvoyGrpc(envoy) => envoy,
        TargetSpecifier::GoogleGrpc(_) => {
            return Err(at.field("google_grpc").reject("is not supported: use envoy_grpc with a cluster"));
        }
    };
    let metadata = at.each("initial_metadata", &message.initial_metadata, |m, at| {
        fields!(at, m => HeaderValue { read: [key, value], refuse: [raw_value] });
        let key = header_name(&m.key, &at.field("key"))?;
        if http::HeaderValue::from_str(&m.value).is_err() {
            return Err(at.field("value").reject("is not a header value"));
        }
        Ok((Box::from(key.as_str()), Box::from(m.value.as_str())))
    })?;
    let timeout = at.duration("timeout", &message.timeout)?;
    let at = at.field("envoy_grpc");
    fields!(&at, envoy => EnvoyGrpc {
        read: [cluster_name, authority],
        harmless: [max_receive_message_length, skip_envoy_headers],
        unsupported: [retry_policy],
    });
    let cluster = not_empty(&envoy.cluster_name, &at.field("cluster_name"))?.into();
    let authority: Option<Box<str>> = (!envoy.authority.is_empty()).then(|| envoy.authority.as_str().into());
    if let Some(text) = &authority
        && http::uri::Authority::try_from(&**text).is_err()
    {
        return Err(at.field("authority").reject("is not an authority"));
    }
    Ok(Target { cluster, authority, metadata, timeout })
}

/// V3 is all there is; AUTO means it.
fn v3(version: i32, at: &At<'_>) -> Result<(), Reject> {
    match enumeration(version, at)? {
        ApiVersion::V3 | ApiVersion::Auto => Ok(()),
        ApiVersion::V2 => Err(at.reject("V2 has been removed, as in Envoy: use V3")),
    }
}
