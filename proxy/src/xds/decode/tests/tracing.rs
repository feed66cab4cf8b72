use super::*;
use crate::ir::{
    Fraction,
    format::{MetadataSource, Operator, Segment},
    listener::Terminal,
    route::Route,
    tracing::{Collector, RouteTracing, Sampler, Tracing},
};

const PROVIDER: &str = "envoy.config.trace.v3.OpenTelemetryConfig";
const SAMPLERS: &str = "type.googleapis.com/envoy.extensions.tracers.opentelemetry.samplers.v3";
const DETECTORS: &str = "type.googleapis.com/envoy.extensions.tracers.opentelemetry.resource_detectors.v3";

fn with(fields: &str) -> String {
    hcm("", &format!("tracing: {{{fields}}},"))
}

fn provided(fields: &str) -> String {
    with(&format!("provider: {{name: t, typed_config: {{\"@type\": {T}/{PROVIDER}, {fields}}}}}"))
}

fn sampled_by(sampler: &str) -> String {
    provided(&format!("sampler: {{name: s, typed_config: {sampler}}}"))
}

fn tracing(yaml: &str) -> Arc<Tracing> {
    match &the_listener(yaml).chains[0].terminal {
        Terminal::Http(m) => m.tracing.clone().expect("tracing"),
        other => panic!("{other:?}"),
    }
}

fn of_route(fields: &str) -> Option<Arc<RouteTracing>> {
    let routes = the_routes(&route_of(&format!("route: {{cluster: c}}, {fields}")));
    let route: &Route = &routes.virtual_hosts[0].routes[0];
    route.tracing.clone()
}

#[test]
fn defaults_are_envoys() {
    let t = tracing(&with(""));
    let all = |f: Fraction| f.numerator == f.denominator;
    assert!(all(t.shares.client) && all(t.shares.random) && all(t.shares.overall));
    assert_eq!((t.verbose, t.max_path, t.spawn_upstream_span), (false, 256, false));
    assert!(t.request_id.pack_reason && t.request_id.decides && !t.no_context_propagation);
    assert!(t.provider.is_none() && t.operation.is_none() && t.custom_tags.is_empty());
    assert_eq!(of_route(""), None);
}

#[test]
fn shares_are_counted_as_envoy_does_and_finer() {
    let t =
        tracing(&with("client_sampling: {value: 0}, random_sampling: {value: 1.5}, overall_sampling: {value: 0.0123}"));
    assert_eq!(t.shares.client.numerator, 0);
    assert_eq!(t.shares.random, Fraction { numerator: 150, denominator: 10_000 });
    assert_eq!(t.shares.overall, Fraction { numerator: 123, denominator: 1_000_000 });
}

#[test]
fn the_request_id_extension_and_the_router_have_a_say() {
    let ids = format!(
        "request_id_extension: {{typed_config: {{\"@type\": {T}/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig, \
         pack_trace_reason: false, use_request_id_for_trace_sampling: false}}}}, tracing: {{}},"
    );
    let t = tracing(&hcm("", &ids));
    assert!(!t.request_id.pack_reason && !t.request_id.decides);
    let child =
        hcm("", "tracing: {},").replace("http.router.v3.Router}", "http.router.v3.Router, start_child_span: true}");
    assert!(tracing(&child).spawn_upstream_span);
}

#[test]
fn a_collector_is_a_cluster() {
    let grpc = "grpc_service: {envoy_grpc: {cluster_name: otel}, timeout: 1s}, service_name: shop, max_cache_size: 10";
    let provider = tracing(&provided(grpc)).provider.clone().unwrap();
    let Some(Collector::Grpc(service)) = &provider.collector else { panic!("{provider:?}") };
    assert_eq!((&*service.cluster, provider.capacity), ("otel", Some(10)));
    let first = provider.resource.first().map(|(key, value)| (&**key, &**value));
    assert_eq!((first, provider.resource.len()), (Some(("service.name", "shop")), 4));

    let http = "http_service: {http_uri: {uri: 'http://otel.obs:4318/v1/traces', cluster: otel, timeout: 2s}, \
                request_headers_to_add: [{header: {key: x-key, value: k}}]}, set_telemetry_sdk_resource_attributes: false";
    let provider = tracing(&provided(http)).provider.clone().unwrap();
    let Some(Collector::Http(service)) = &provider.collector else { panic!("{provider:?}") };
    assert_eq!((&*service.authority, service.path.as_str()), ("otel.obs:4318", "/v1/traces"));
    assert_eq!(service.headers[0].0, "x-key");
    assert_eq!(&*provider.resource[0].1, "unknown_service:outrigger");
    assert_eq!(provider.resource.len(), 1);
}

#[test]
fn samplers_and_detectors_arrive() {
    let sampler = |text: &str| tracing(&sampled_by(text)).provider.clone().unwrap().sampler.clone();
    let on = format!("{{\"@type\": {SAMPLERS}.AlwaysOnSamplerConfig}}");
    let ratio = format!(
        "{{\"@type\": {SAMPLERS}.TraceIdRatioBasedSamplerConfig, sampling_percentage: {{numerator: 5, denominator: MILLION}}}}"
    );
    let limited = |fields: &str| {
        format!(
            "{{\"@type\": {T}/xds.type.v3.TypedStruct, type_url: {T}/outrigger.tracers.samplers.v1.RateLimited, \
             value: {{{fields}}}}}"
        )
    };
    let parent = |inner: &str| {
        format!(
            "{{\"@type\": {SAMPLERS}.ParentBasedSamplerConfig, wrapped_sampler: {{name: w, typed_config: {inner}}}}}"
        )
    };
    assert_eq!(sampler(&on), Some(Sampler::AlwaysOn));
    let share = Fraction { numerator: 5, denominator: 1_000_000 };
    assert_eq!(sampler(&parent(&ratio)), Some(Sampler::ParentBased(Box::new(Sampler::Ratio(share)))));
    assert_eq!(sampler(&limited("traces_per_second: 7")), Some(Sampler::RateLimited(7)));
    let at = format!("{HCM}.tracing.provider.typed_config.sampler.typed_config");
    let deep = parent(&parent(&parent(&parent(&on))));
    let inner = format!("{at}{}", ".wrapped_sampler.typed_config".repeat(3));
    let bad = |rate: &str| (sampled_by(&limited(rate)), format!("{at}.value"));
    let (too_deep, (negative, value), (unknown, _)) =
        (format!("{inner}.wrapped_sampler"), bad("traces_per_second: -1"), bad("traces_per_second: 1, burst: 2"));
    refused(&[
        (sampled_by(&deep), &too_deep, "samplers in each other"),
        (negative, &value, "traces_per_second"),
        (unknown, &value, "traces_per_second"),
    ]);

    let provider = tracing(&provided(&format!(
        "resource_detectors: [{{name: e, typed_config: {{\"@type\": {DETECTORS}.EnvironmentResourceDetectorConfig}}}}, \
         {{name: s, typed_config: {{\"@type\": {DETECTORS}.StaticConfigResourceDetectorConfig, attributes: {{b: two, a: one}}}}}}]"
    )));
    let provider = provider.provider.clone().unwrap();
    assert!(provider.detects_environment);
    let own: Vec<_> = provider.resource[4..].iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(own, [("a", "one"), ("b", "two")]);
}

#[test]
fn tags_take_their_values_from_anywhere() {
    let t = tracing(&with(
        "custom_tags: [{tag: a, literal: {value: l}}, {tag: b, environment: {name: E, default_value: d}}, \
         {tag: c, request_header: {name: X-Tenant}}, {tag: d, value: '%REQ(:path)%!'}, \
         {tag: e, metadata: {kind: {request: {}}, metadata_key: {key: ns, path: [{key: p}]}}}]",
    ));
    let ops: Vec<_> = t.custom_tags.iter().map(|tag| &tag.value.segments[0]).collect();
    assert!(matches!(ops[0], Segment::Text(text) if &**text == "l"));
    assert!(matches!(ops[1], Segment::Op { op: Operator::Environment(name), .. } if &**name == "E"));
    assert!(matches!(ops[2], Segment::Op { op: Operator::Req(name, None), .. } if &**name == "x-tenant"));
    let Segment::Op { op: Operator::Metadata(path), .. } = ops[4] else { panic!("{:?}", ops[4]) };
    assert_eq!((path.source, &*path.namespace), (MetadataSource::Dynamic, "ns"));
    assert_eq!(&*t.custom_tags[1].default, "d");
}

#[test]
fn routes_have_decorators_and_shares_of_their_own() {
    let t = of_route("decorator: {operation: reviews}").unwrap();
    let decorator = t.decorator.as_ref().unwrap();
    assert_eq!((&*decorator.operation, decorator.propagate, t.own.is_some()), ("reviews", true, false));
    let t = of_route("tracing: {random_sampling: {numerator: 5}, operation: '%REQ(:method)%'}").unwrap();
    let own = t.own.as_ref().unwrap();
    assert_eq!(own.shares.random, Fraction { numerator: 5, denominator: 100 });
    assert_eq!(own.shares.client.numerator, 100);
    assert!(own.operation.is_some());
}

#[test]
fn what_cannot_be_is_refused_and_what_is_not_there_is_noted() {
    let at = |rest: &str| format!("{HCM}.tracing.{rest}");
    let config = |rest: &str| at(&format!("provider.typed_config{rest}"));
    let both =
        "grpc_service: {envoy_grpc: {cluster_name: a}}, http_service: {http_uri: {uri: /, cluster: a, timeout: 1s}}";
    refused(&[
        (with("random_sampling: {value: 101}"), &at("random_sampling"), "not between"),
        (with("custom_tags: [{literal: {value: x}}]"), &at("custom_tags[0].tag"), "must not be empty"),
        (with("custom_tags: [{tag: x}]"), &at("custom_tags[0].type"), "required"),
        (with("operation: '%NO_SUCH%'"), &at("operation"), "NO_SUCH"),
        (provided(both), &config(".http_service"), "exclude"),
        (
            provided("http_service: {http_uri: {uri: 'http://[', cluster: a, timeout: 1s}}"),
            &config(".http_service.http_uri.uri"),
            "http://[",
        ),
        (route_of("route: {cluster: c}, decorator: {}"), &at_route("decorator.operation"), "must not be empty"),
    ]);
    let zipkin = with(&format!(
        "provider: {{name: z, typed_config: {{\"@type\": {T}/envoy.config.trace.v3.ZipkinConfig, collector_cluster: c, \
         collector_endpoint: /}}}}"
    ));
    noted(&[
        (zipkin, &config(""), NoteKind::Harmless),
        (
            with("custom_tags: [{tag: x, metadata: {kind: {host: {}}, metadata_key: {key: ns, path: [{key: p}]}}}]"),
            &at("custom_tags[0].metadata.kind"),
            NoteKind::Unsupported,
        ),
    ]);
}
