//! The filters of listeners: `tcp_proxy`, `http_connection_manager`.

use super::{
    pb::{self, any, core, hcm, listener, types},
    per_route,
};
use crate::model::Normalization;
use outrigger_wire::pb::envoy::{
    config::accesslog::v3::AccessLog,
    extensions::{
        filters::{
            http::{cors::v3::Cors, fault::v3::HttpFault, router::v3::Router},
            network::tcp_proxy::v3::{TcpProxy, tcp_proxy},
        },
        http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig,
        request_id::uuid::v3::UuidRequestIdConfig,
    },
};

/// The name of the filter that ends an opaque chain.
pub(super) const TCP_PROXY: &str = "envoy.filters.network.tcp_proxy";

/// Where connections go, by weight.
pub(super) type Targets = Vec<(String, u32)>;

/// What a DestinationRule says of opaque connections.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TcpSettings {
    pub idle: Option<std::time::Duration>,
    pub duration: Option<std::time::Duration>,
    /// Clients with one address go to one endpoint.
    pub by_source: bool,
}

/// A network filter.
pub(super) fn network(name: &str, config: pb::Any) -> listener::Filter {
    let config = listener::filter::ConfigType::TypedConfig(config);
    listener::Filter { name: name.to_owned(), config_type: Some(config) }
}

/// `tcp_proxy` to one cluster or, weighted, to several.
pub(super) fn tcp_proxy(stat_prefix: &str, mut targets: Targets, settings: TcpSettings) -> listener::Filter {
    if targets.len() > 1 {
        targets.retain(|(_, weight)| *weight > 0);
    }
    let specifier = if targets.len() == 1 {
        tcp_proxy::ClusterSpecifier::Cluster(targets.swap_remove(0).0)
    } else {
        let weight = |(name, weight)| tcp_proxy::weighted_cluster::ClusterWeight { name, weight, ..Default::default() };
        let clusters = targets.into_iter().map(weight).collect();
        tcp_proxy::ClusterSpecifier::WeightedClusters(tcp_proxy::WeightedCluster { clusters })
    };
    let config = TcpProxy {
        stat_prefix: stat_prefix.to_owned(),
        cluster_specifier: Some(specifier),
        idle_timeout: settings.idle.and_then(pb::duration),
        max_downstream_connection_duration: settings.duration.and_then(pb::duration),
        hash_policy: settings.by_source.then(by_source).into_iter().collect(),
        ..Default::default()
    };
    network(TCP_PROXY, any(config))
}

fn by_source() -> types::HashPolicy {
    let source = types::hash_policy::PolicySpecifier::SourceIp(types::hash_policy::SourceIp {});
    types::HashPolicy { policy_specifier: Some(source) }
}

/// Whether the application's view of the caller's certificate is ours to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientCertificate {
    /// Plaintext, or outbound: a header claiming one is removed.
    Remove,
    /// Verified by this listener: appended to `x-forwarded-client-cert`.
    Append,
}

/// HTTP/1 as transparent as it can be.
pub(super) fn http1_options(preserve_case: bool) -> core::Http1ProtocolOptions {
    let formatter = core::TypedExtensionConfig {
        name: "preserve_case".to_owned(),
        typed_config: Some(any(PreserveCaseFormatterConfig::default())),
    };
    use core::http1_protocol_options::{HeaderKeyFormat, header_key_format::HeaderFormat};
    let format = HeaderKeyFormat { header_format: Some(HeaderFormat::StatefulFormatter(formatter)) };
    core::Http1ProtocolOptions {
        accept_http_10: true,
        header_key_format: preserve_case.then_some(format),
        ..Default::default()
    }
}

/// The HTTP filter every chain ends with.
pub(super) fn router() -> hcm::HttpFilter {
    http_filter("envoy.filters.http.router", any(Router::default()))
}

/// For proxyless clients, of which older ones do not know it.
pub(super) fn optional_fault() -> hcm::HttpFilter {
    hcm::HttpFilter { is_optional: true, ..http_filter(per_route::FAULT, any(HttpFault::default())) }
}

/// The chain of the client's side. Faults and CORS are there always and do nothing until a route says so: a listener
/// must not change with its routes.
pub(super) fn client_side() -> Vec<hcm::HttpFilter> {
    let fault = http_filter(per_route::FAULT, any(HttpFault::default()));
    vec![fault, http_filter(per_route::CORS, any(Cors::default())), router()]
}

/// An HTTP filter.
pub(super) fn http_filter(name: &str, config: pb::Any) -> hcm::HttpFilter {
    let config = hcm::http_filter::ConfigType::TypedConfig(config);
    hcm::HttpFilter { name: name.to_owned(), config_type: Some(config), ..Default::default() }
}

/// What every connection manager has alike.
#[derive(Clone, Debug)]
pub(super) struct HttpSettings {
    pub preserve_case: bool,
    pub normalization: Normalization,
    pub tracing: Option<hcm::http_connection_manager::Tracing>,
    pub access_log: Vec<AccessLog>,
}

/// What Istio sets on the connection manager of a sidecar.
pub(super) fn http(
    stat_prefix: &str,
    routes: hcm::http_connection_manager::RouteSpecifier,
    http_filters: Vec<hcm::HttpFilter>,
    certificate: ClientCertificate,
    settings: HttpSettings,
) -> listener::Filter {
    use hcm::http_connection_manager as manager;
    let mut config = hcm::HttpConnectionManager {
        codec_type: manager::CodecType::Auto as i32,
        stat_prefix: stat_prefix.to_owned(),
        route_specifier: Some(routes),
        http_filters,
        use_remote_address: pb::no(),
        http_protocol_options: Some(http1_options(settings.preserve_case)),
        // So that websockets get through where proxies speak HTTP/2 to each other.
        http2_protocol_options: Some(core::Http2ProtocolOptions { allow_connect: true, ..Default::default() }),
        // An application may allow any method; what it does not know is for it to refuse.
        server_header_transformation: manager::ServerHeaderTransformation::PassThrough as i32,
        stream_idle_timeout: pb::zero(),
        normalize_path: if settings.normalization == Normalization::None { pb::no() } else { pb::yes() },
        proxy_100_continue: true,
        upgrade_configs: vec![manager::UpgradeConfig { upgrade_type: "websocket".to_owned(), ..Default::default() }],
        request_id_extension: Some(hcm::RequestIdExtension {
            typed_config: Some(any(UuidRequestIdConfig {
                use_request_id_for_trace_sampling: pb::yes(),
                ..Default::default()
            })),
        }),
        forward_client_cert_details: manager::ForwardClientCertDetails::Sanitize as i32,
        tracing: settings.tracing,
        access_log: settings.access_log,
        ..Default::default()
    };
    match settings.normalization {
        Normalization::Default | Normalization::None | Normalization::Base => {}
        Normalization::MergeSlashes => config.merge_slashes = true,
        Normalization::DecodeAndMergeSlashes => {
            config.merge_slashes = true;
            config.path_with_escaped_slashes_action = manager::PathWithEscapedSlashesAction::UnescapeAndForward as i32;
        }
    }
    if certificate == ClientCertificate::Append {
        config.forward_client_cert_details = manager::ForwardClientCertDetails::AppendForward as i32;
        config.set_current_client_cert_details = Some(manager::SetCurrentClientCertDetails {
            subject: pb::yes(),
            uri: true,
            dns: true,
            ..Default::default()
        });
    }
    network("envoy.filters.network.http_connection_manager", any(config))
}

/// Routes by name over ADS.
pub(super) fn rds(name: &str) -> hcm::http_connection_manager::RouteSpecifier {
    let rds = hcm::Rds { config_source: pb::ads(), route_config_name: name.to_owned() };
    hcm::http_connection_manager::RouteSpecifier::Rds(rds)
}

/// A listener filter, unless `disabled` holds for the connection.
pub(super) fn listener_filter(
    name: &str,
    config: pb::Any,
    disabled: Option<listener::ListenerFilterChainMatchPredicate>,
) -> listener::ListenerFilter {
    listener::ListenerFilter {
        name: name.to_owned(),
        filter_disabled: disabled,
        config_type: Some(listener::listener_filter::ConfigType::TypedConfig(config)),
    }
}

/// Ports as the half-open range that the predicate wants.
pub(super) fn port_range(port: u16) -> types::Int32Range {
    types::Int32Range { start: port.into(), end: i32::from(port) + 1 }
}
