//! A small language for resources in tests, and a decoder of it: what warming sees of a resource is only its references.
//!
//! `alt_stat_name` of a cluster and `stat_prefix` of a listener hold `key=a,b;key=c`: `secrets`, `rds`, `tcp`, `inline`.
//! A name that starts with `bad` is refused.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use outrigger_wire::pb::{
    envoy::config::{
        cluster::v3 as pb_cluster, endpoint::v3 as pb_endpoint, listener::v3 as pb_listener, route::v3 as pb_route,
    },
    envoy::extensions::transport_sockets::tls::v3 as pb_tls,
    google::protobuf::Any,
};
use prost::Message;

use super::{
    client::Item,
    decode::{Notes, Reject, Resource},
    kind::Kind,
    store::Now,
};
use crate::ir::{
    ConfigSource,
    cluster::{BreakerThresholds, Cluster, Discovery, LbPolicy, UpstreamHttp},
    endpoint::Assignment,
    http::{ClientCertDetails, Codec, ConnectionManager, Http1Options, Http2Options, RouteSource},
    listener::{Direction, FilterChain, Inspectors, Listener, TcpProxy, Terminal},
    route::{
        Action, Forward, HeaderOps, PathMatch, Route, RouteConfiguration, RouteMatch, Target, VirtualHost,
        WeightedTarget,
    },
    secret::{CertificateSource, CommonTls, Secret, SecretRef, UpstreamTls, Validation},
};

type Words = BTreeMap<String, Vec<String>>;

fn words(spec: &str) -> Words {
    let pair = |p: &str| {
        let (key, list) = p.split_once('=').unwrap();
        (key.to_owned(), list.split(',').map(str::to_owned).collect())
    };
    spec.split(';').filter(|p| !p.is_empty()).map(pair).collect()
}

fn get<'a>(words: &'a Words, key: &str) -> &'a [String] {
    words.get(key).map_or(&[], Vec::as_slice)
}

/// The source that the word `via` names: `ads` (or nothing), `self`, `file:...`, `grpc:CLUSTER`.
fn source(words: &Words) -> ConfigSource {
    match get(words, "via").first().map(String::as_str) {
        None | Some("ads") => ConfigSource::Ads,
        Some("self") => ConfigSource::SelfSource,
        Some("static") => ConfigSource::Static,
        Some(via) => match via.split_once(':').unwrap() {
            ("file", path) => ConfigSource::Path { path: path.to_owned(), watched_directory: None },
            ("grpc", cluster) => ConfigSource::Grpc { cluster: cluster.into(), delta: false },
            ("delta", cluster) => ConfigSource::Grpc { cluster: cluster.into(), delta: true },
            other => panic!("{other:?}"),
        },
    }
}

fn tls(words: &Words) -> CommonTls {
    let secret =
        |name: &String| CertificateSource::Sds(SecretRef { name: name.as_str().into(), source: source(words) });
    CommonTls { certificates: get(words, "secrets").iter().map(secret).collect(), ..CommonTls::default() }
}

fn any(kind: Kind, message: &impl Message) -> Any {
    Any { type_url: kind.type_url().to_owned(), value: message.encode_to_vec() }
}

/// An EDS cluster; `version` makes it differ.
pub(crate) fn eds(name: &str, version: u64, spec: &str) -> Any {
    let message = pb_cluster::Cluster {
        name: name.to_owned(),
        alt_stat_name: spec.to_owned(),
        connect_timeout: Some(outrigger_wire::pb::google::protobuf::Duration {
            seconds: i64::try_from(version).unwrap(),
            nanos: 0,
        }),
        cluster_discovery_type: Some(pb_cluster::cluster::ClusterDiscoveryType::Type(
            pb_cluster::cluster::DiscoveryType::Eds.into(),
        )),
        ..Default::default()
    };
    any(Kind::Cluster, &message)
}

/// A cluster that needs no endpoints.
pub(crate) fn fixed(name: &str, version: u64, spec: &str) -> Any {
    let mut message = pb_cluster::Cluster::decode(eds(name, version, spec).value.as_slice()).unwrap();
    message.cluster_discovery_type = None;
    any(Kind::Cluster, &message)
}

pub(crate) fn endpoints(name: &str, version: u32) -> Any {
    let policy = pb_endpoint::cluster_load_assignment::Policy {
        overprovisioning_factor: Some(outrigger_wire::pb::google::protobuf::UInt32Value { value: version }),
        ..Default::default()
    };
    let message = pb_endpoint::ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        policy: Some(policy),
        ..Default::default()
    };
    any(Kind::Endpoints, &message)
}

pub(crate) fn listener(name: &str, spec: &str) -> Any {
    let message = pb_listener::Listener { name: name.to_owned(), stat_prefix: spec.to_owned(), ..Default::default() };
    any(Kind::Listener, &message)
}

/// A route configuration to the comma-separated `clusters`.
pub(crate) fn routes(name: &str, clusters: &str) -> Any {
    let host = pb_route::VirtualHost { name: clusters.to_owned(), ..Default::default() };
    let message =
        pb_route::RouteConfiguration { name: name.to_owned(), virtual_hosts: vec![host], ..Default::default() };
    any(Kind::Routes, &message)
}

pub(crate) fn secret(name: &str, version: u8) -> Any {
    let validation = pb_tls::CertificateValidationContext {
        verify_certificate_hash: vec![version.to_string()],
        ..Default::default()
    };
    let message =
        pb_tls::Secret { name: name.to_owned(), r#type: Some(pb_tls::secret::Type::ValidationContext(validation)) };
    any(Kind::Secret, &message)
}

pub(crate) fn bare(any: Any) -> Item {
    Item::bare(any)
}

pub(crate) fn now(start: Instant, seconds: u64) -> Now {
    Now { mono: start + Duration::from_secs(seconds), wall: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) }
}

/// The decoder of this language.
pub(crate) fn decode(any: &Any, _notes: &mut Notes) -> Result<Resource, Reject> {
    let reject = |resource: &str, reason: &str| Reject {
        kind: any.type_url.as_str().into(),
        resource: resource.into(),
        path: "some.path".into(),
        reason: reason.to_owned(),
    };
    let bytes = any.value.as_slice();
    let resource = match Kind::from_type_url(&any.type_url).ok_or_else(|| reject("", "type"))? {
        Kind::Cluster => {
            let message = pb_cluster::Cluster::decode(bytes).map_err(|e| reject("", &e.to_string()))?;
            let words = words(&message.alt_stat_name);
            let eds = message.cluster_discovery_type.is_some();
            Resource::Cluster(cluster(&message.name, eds, message.connect_timeout.map_or(0, |d| d.seconds), &words))
        }
        Kind::Endpoints => {
            let message = pb_endpoint::ClusterLoadAssignment::decode(bytes).map_err(|e| reject("", &e.to_string()))?;
            let overprovisioning = message.policy.and_then(|p| p.overprovisioning_factor).map_or(140, |v| v.value);
            Resource::Endpoints {
                name: message.cluster_name.into(),
                assignment: Arc::new(Assignment { localities: Vec::new(), overprovisioning }),
            }
        }
        Kind::Listener => {
            let message = pb_listener::Listener::decode(bytes).map_err(|e| reject("", &e.to_string()))?;
            Resource::Listener(ir_listener(&message.name, &words(&message.stat_prefix)))
        }
        Kind::Routes => {
            let message = pb_route::RouteConfiguration::decode(bytes).map_err(|e| reject("", &e.to_string()))?;
            let clusters = message.virtual_hosts.first().map(|v| v.name.clone()).unwrap_or_default();
            Resource::Routes { name: message.name.into(), routes: Arc::new(ir_routes(clusters.split(','))) }
        }
        Kind::Secret => {
            let message = pb_tls::Secret::decode(bytes).map_err(|e| reject("", &e.to_string()))?;
            let Some(pb_tls::secret::Type::ValidationContext(context)) = message.r#type else {
                return Err(reject(&message.name, "secret"));
            };
            let mark = context.verify_certificate_hash[0].parse().unwrap();
            let validation = Validation { spki_sha256: vec![[mark; 32]], ..Validation::default() };
            Resource::Secret { name: message.name.into(), secret: Arc::new(Secret::Validation(Arc::new(validation))) }
        }
    };
    if resource.name().starts_with("bad") {
        return Err(reject(resource.name(), "bad by name"));
    }
    Ok(resource)
}

fn cluster(name: &str, eds: bool, version: i64, words: &Words) -> Arc<Cluster> {
    let service_name = get(words, "service").first().map_or(name, String::as_str).into();
    let common = tls(words);
    let upstream = UpstreamTls { common, sni: None, auto_host_sni: false, max_session_keys: 1 };
    Arc::new(Cluster {
        name: name.into(),
        stat_name: name.into(),
        discovery: match eds {
            true => Discovery::Eds { service_name, source: source(words) },
            false => Discovery::OriginalDst { port_override: None },
        },
        connect_timeout: Duration::from_secs(version.unsigned_abs()),
        lb: LbPolicy::RoundRobin,
        lb_options: Arc::default(),
        panic_threshold: 50,
        locality_weighted: false,
        http: UpstreamHttp::default().into(),
        tls: (!upstream.common.certificates.is_empty()).then(|| Arc::new(upstream)),
        transport_matches: Vec::new(),
        breaker: BreakerThresholds::default(),
        breaker_high: BreakerThresholds::default(),
        bind: None,
        keepalive: None,
        buffer_limit: 1 << 20,
        drain_on_host_removal: false,
        health: None,
        metadata: None,
    })
}

fn target(cluster: &str) -> WeightedTarget {
    WeightedTarget {
        cluster: cluster.into(),
        cluster_header: None,
        weight: 1,
        headers: HeaderOps::default(),
        host_rewrite: None,
        overrides: None,
        criteria: None,
    }
}

fn ir_routes<'a>(clusters: impl Iterator<Item = &'a str>) -> RouteConfiguration {
    let targets: Vec<_> = clusters.filter(|c| !c.is_empty()).map(target).collect();
    let forward = Forward {
        target: Target::Weighted(targets),
        cluster_not_found: http::StatusCode::SERVICE_UNAVAILABLE,
        path_rewrite: None,
        host_rewrite: None,
        append_forwarded_host: false,
        timeout: None,
        idle_timeout: None,
        flush_timeout: None,
        stream: None,
        grpc_timeout_max: None,
        grpc_timeout_offset: Duration::ZERO,
        retry: None,
        hedge: None,
        body_buffer: None,
        upgrades: Vec::new(),
        hash_policy: Vec::new(),
        criteria: None,
        high_priority: false,
        mirrors: Arc::default(),
        internal_redirect: None,
    };
    let matches = RouteMatch {
        path: PathMatch::Prefix("/".into()),
        case_sensitive: true,
        headers: Vec::new(),
        query: Vec::new(),
        grpc: false,
        fraction: None,
        further: None,
    };
    let route = Route {
        name: "".into(),
        matches: Arc::new(matches),
        action: Action::Forward(Arc::new(forward)),
        headers: HeaderOps::default().into(),
        metadata: None,
        overrides: None,
        tracing: None,
    };
    let host = VirtualHost {
        name: "any".into(),
        domains: vec!["*".into()],
        routes: vec![Arc::new(route)],
        headers: HeaderOps::default().into(),
        retry: None,
        hedge: false,
        timeout_retry_header: false,
        body_buffer: None,
        attempt_count_in_request: false,
        attempt_count_in_response: false,
        require_tls: false,
        overrides: None,
    };
    RouteConfiguration { virtual_hosts: vec![Arc::new(host)], ..RouteConfiguration::default() }
}

fn manager(routes: RouteSource) -> ConnectionManager {
    ConnectionManager {
        stat_prefix: "t".into(),
        istio_stats: None,
        codec: Codec::Auto,
        routes,
        filters: Vec::new(),
        http1: Http1Options::default(),
        http2: Http2Options::default(),
        idle_timeout: None,
        max_connection_duration: None,
        max_requests_per_connection: None,
        stream_idle_timeout: None,
        stream_flush_timeout: None,
        request_timeout: None,
        request_headers_timeout: None,
        max_stream_duration: None,
        drain_timeout: Duration::ZERO,
        max_header_bytes: 60 << 10,
        max_header_count: 100,
        underscores: Default::default(),
        normalize_path: false,
        merge_slashes: false,
        escaped_slashes: Default::default(),
        strip_port: Default::default(),
        server_name: http::HeaderValue::from_static(""),
        server_header: Default::default(),
        via: "".into(),
        use_remote_address: false,
        xff_trusted_hops: 0,
        skip_xff_append: false,
        internal_networks: Vec::new(),
        append_forwarded_port: false,
        client_cert: Default::default(),
        client_cert_details: ClientCertDetails::default(),
        generate_request_id: true,
        preserve_external_request_id: false,
        request_id_in_response: false,
        upgrades: Vec::new(),
        proxy_100_continue: false,
        access_log: Vec::new(),
        local_reply: None,
        tracing: None,
    }
}

fn ir_listener(name: &str, words: &Words) -> Arc<Listener> {
    let terminal = |terminal| {
        let common = tls(words);
        let tls = crate::ir::secret::DownstreamTls { common, require_client_certificate: true, resumption: true };
        Arc::new(FilterChain {
            name: "".into(),
            matches: Default::default(),
            tls: (!tls.common.certificates.is_empty()).then(|| Arc::new(tls)),
            handshake_timeout: Duration::from_secs(10),
            strict_trial: false,
            filters: Vec::new(),
            terminal,
        })
    };
    let http = |routes| Terminal::Http(Arc::new(manager(routes)));
    let mut chains = Vec::new();
    for name in get(words, "rds") {
        chains.push(terminal(http(RouteSource::Rds { name: name.as_str().into(), source: source(words) })));
    }
    for cluster in get(words, "inline") {
        chains.push(terminal(http(RouteSource::Inline(Arc::new(ir_routes(std::iter::once(cluster.as_str())))))));
    }
    if let Some(clusters) = words.get("tcp") {
        let tcp = TcpProxy {
            stat_prefix: "t".into(),
            istio_stats: None,
            targets: clusters.iter().map(|c| target(c)).collect(),
            idle_timeout: None,
            max_connection_duration: None,
            max_connect_attempts: 1,
            hash_policy: Vec::new(),
            access_log: Vec::new(),
        };
        chains.push(terminal(Terminal::Tcp(Arc::new(tcp))));
    }
    if chains.is_empty() && words.contains_key("secrets") {
        chains.push(terminal(http(RouteSource::Inline(Arc::default()))));
    }
    Arc::new(Listener {
        name: name.into(),
        addresses: get(words, "addr").iter().map(|a| a.parse().unwrap()).collect(),
        bind_to_port: true,
        use_original_dst: false,
        direction: Direction::Unspecified,
        inspectors: Inspectors::default(),
        inspection_timeout: None,
        continue_on_inspection_timeout: false,
        chains,
        default_chain: None,
        connection_limit: None,
        stat_prefix: name.into(),
        buffer_limit: 1 << 20,
        backlog: 128,
        transparent: false,
        freebind: false,
        keepalive: None,
        access_log: Vec::new(),
    })
}
