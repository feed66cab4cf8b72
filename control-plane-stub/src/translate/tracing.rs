//! Tracing of connection managers, as Istio asks for it.

use outrigger_wire::pb::envoy::{
    config::trace::v3::{OpenTelemetryConfig, tracing},
    r#type::{
        tracing::v3::{CustomTag, custom_tag},
        v3::Percent,
    },
};

use super::{
    names::{self, Variant},
    pb::{self, any, core, hcm::http_connection_manager::Tracing},
    scope::Scope,
};
use crate::model::OpenTelemetry;

/// Istio's, of calls over HTTP.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// The tracing of this workload's requests.
pub(super) fn of(scope: &Scope<'_>) -> Option<Tracing> {
    let (provider, sampling) = scope.world.mesh.tracing()?;
    let percent = |value| Some(Percent { value });
    let label = |names: &[&str]| names.iter().find_map(|name| scope.labels.get(*name)).cloned();
    let service = label(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    let revision = label(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
    let name = service.as_deref().unwrap_or("istio-proxy");
    let config = OpenTelemetryConfig { service_name: format!("{name}.{}", scope.namespace), ..collector(provider) };
    let tags = [
        ("istio.canonical_service", service.as_deref().unwrap_or("unknown")),
        ("istio.canonical_revision", revision.as_deref().unwrap_or("latest")),
        ("istio.namespace", scope.namespace),
    ];
    Some(Tracing {
        client_sampling: percent(100.0),
        random_sampling: percent(sampling),
        overall_sampling: percent(100.0),
        max_path_tag_length: provider.max_tag_length.and_then(pb::number),
        custom_tags: tags.into_iter().map(|(tag, value)| literal(tag, value)).collect(),
        provider: Some(tracing::Http {
            name: "envoy.tracers.opentelemetry".to_owned(),
            config_type: Some(tracing::http::ConfigType::TypedConfig(any(config))),
        }),
        ..Default::default()
    })
}

fn literal(tag: &str, value: &str) -> CustomTag {
    let value = custom_tag::Literal { value: value.to_owned() };
    CustomTag { tag: tag.to_owned(), r#type: Some(custom_tag::Type::Literal(value)) }
}

fn collector(provider: &OpenTelemetry) -> OpenTelemetryConfig {
    let cluster = names::outbound(Variant::Main, provider.port, None, &provider.service);
    let Some(http) = &provider.http else {
        use core::grpc_service::{EnvoyGrpc, TargetSpecifier};
        let target = EnvoyGrpc { cluster_name: cluster, authority: provider.service.clone(), ..Default::default() };
        let service =
            core::GrpcService { target_specifier: Some(TargetSpecifier::EnvoyGrpc(target)), ..Default::default() };
        return OpenTelemetryConfig { grpc_service: Some(service), ..Default::default() };
    };
    let uri = core::HttpUri {
        uri: format!("http://{}:{}{}", provider.service, provider.port, http.path.0),
        timeout: pb::duration(http.timeout.map_or(TIMEOUT, |timeout| timeout.0)),
        http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster(cluster)),
    };
    let service = core::HttpService { http_uri: Some(uri), ..Default::default() };
    OpenTelemetryConfig { http_service: Some(service), ..Default::default() }
}
