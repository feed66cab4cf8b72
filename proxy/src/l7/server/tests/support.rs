//! A proxy over loopback, and peers that say exactly what a test tells them to.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::StatusCode;
use tokio::net::{TcpListener, TcpStream};

use super::peer::{Peer, Upstream};
pub(super) use super::running::{run, until};
use crate::{
    drain,
    ir::{
        cluster::{BreakerThresholds, Cluster, Discovery, LbPolicy, UpstreamHttp, UpstreamProtocol},
        endpoint::{Address, Assignment, Endpoint, Health, Locality},
        filters::Overrides,
        format::{AccessLog, LogFormat, Operator, Segment, Sink, Template},
        http::*,
        listener::Direction,
        route::*,
        snapshot::Snapshot,
    },
    l7::{Engine, engine::Gauge, server},
    live::{Builder, Live, LiveFilters, LiveHcm, Publisher, Reader},
    policy::{debug::DebugKeys, router::RouteTable},
    telemetry::{
        access_log::{Logger, Loggers, Sinks},
        filters::FilterStats,
        limits::LocalLimitStats,
        metrics::{ClusterStats, HttpStats, Sharded},
        record::ConnInfo,
        registry::Registry,
    },
    tls::Secrets,
    upstream::Deps,
};

pub(crate) fn hcm() -> ConnectionManager {
    ConnectionManager {
        stat_prefix: "test".into(),
        istio_stats: None,
        codec: Codec::Auto,
        routes: RouteSource::Inline(Arc::default()),
        filters: vec![HttpFilter {
            name: "router".into(),
            kind: FilterKind::Router(Router::default()),
            disabled: false,
        }],
        http1: Http1Options::default(),
        http2: Http2Options::default(),
        idle_timeout: Some(Duration::from_secs(3600)),
        max_connection_duration: None,
        max_requests_per_connection: None,
        stream_idle_timeout: Some(Duration::from_secs(300)),
        stream_flush_timeout: None,
        request_timeout: None,
        request_headers_timeout: None,
        max_stream_duration: None,
        drain_timeout: Duration::from_secs(5),
        max_header_bytes: 60 * 1024,
        max_header_count: 100,
        underscores: Underscores::Allow,
        normalize_path: true,
        merge_slashes: false,
        escaped_slashes: EscapedSlashes::Keep,
        strip_port: StripPort::No,
        server_name: http::HeaderValue::from_static("outrigger"),
        server_header: ServerHeader::Overwrite,
        via: "".into(),
        use_remote_address: false,
        xff_trusted_hops: 0,
        skip_xff_append: false,
        internal_networks: Vec::new(),
        append_forwarded_port: false,
        client_cert: ForwardClientCert::Sanitize,
        client_cert_details: ClientCertDetails::default(),
        generate_request_id: true,
        preserve_external_request_id: false,
        request_id_in_response: false,
        upgrades: vec![("websocket".into(), true), ("connect".into(), true)],
        proxy_100_continue: true,
        access_log: Vec::new(),
        local_reply: None,
        tracing: None,
    }
}

pub(crate) fn forward() -> Forward {
    Forward {
        target: Target::Cluster("up".into()),
        cluster_not_found: StatusCode::SERVICE_UNAVAILABLE,
        path_rewrite: None,
        host_rewrite: None,
        append_forwarded_host: false,
        timeout: Some(Duration::from_secs(15)),
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
    }
}

pub(super) fn retry(on: &str, max_retries: u32) -> Arc<RetryPolicy> {
    Arc::new(RetryPolicy {
        on: RetryOn::parse(on).0,
        max_retries,
        backoff_base: Duration::from_millis(1),
        backoff_max: Duration::from_millis(2),
        avoid_previous_hosts: true,
        host_selection_attempts: 3,
        ..RetryPolicy::default()
    })
}

/// What a test may change before the proxy starts.
pub(super) struct Setup {
    pub hcm: ConnectionManager,
    pub forward: Forward,
    pub action: Option<Action>,
    pub vhost: VirtualHost,
    pub headers: HeaderOps,
    pub overrides: Option<Arc<Overrides>>,
    /// Without an access log.
    pub unlogged: bool,
    pub debug: Option<Arc<DebugKeys>>,
    pub cluster: Cluster,
    /// Further clusters like that one.
    pub others: Vec<(&'static str, SocketAddr)>,
}

impl Setup {
    pub(super) fn new(upstreams: &[SocketAddr]) -> Self {
        let endpoint = |address: &SocketAddr| Endpoint {
            address: Address::Ip(*address),
            hostname: "backend.internal".into(),
            weight: 1,
            health: Health::Healthy,
            metadata: None,
            check: None,
        };
        let locality = Locality { endpoints: upstreams.iter().map(endpoint).collect(), ..Locality::default() };
        let assignment = Assignment { localities: vec![locality], overprovisioning: 140 };
        Self {
            hcm: hcm(),
            forward: forward(),
            action: None,
            vhost: VirtualHost {
                name: "all".into(),
                domains: vec!["*".into()],
                routes: Vec::new(),
                headers: HeaderOps::default().into(),
                retry: None,
                hedge: false,
                timeout_retry_header: false,
                body_buffer: None,
                attempt_count_in_request: false,
                attempt_count_in_response: false,
                require_tls: false,
                overrides: None,
            },
            headers: HeaderOps::default(),
            overrides: None,
            unlogged: false,
            debug: None,
            cluster: Cluster {
                name: "up".into(),
                stat_name: "up".into(),
                discovery: Discovery::Static(Arc::new(assignment)),
                connect_timeout: Duration::from_secs(5),
                lb: LbPolicy::RoundRobin,
                lb_options: Arc::default(),
                panic_threshold: 50,
                http: UpstreamHttp::default().into(),
                tls: None,
                transport_matches: Vec::new(),
                breaker: BreakerThresholds::default(),
                breaker_high: BreakerThresholds::default(),
                bind: None,
                keepalive: None,
                buffer_limit: 1 << 20,
                drain_on_host_removal: false,
                health: None,
                metadata: None,
                locality_weighted: false,
            },
            others: Vec::new(),
        }
    }

    pub(super) fn upstream_http2(mut self) -> Self {
        Arc::make_mut(&mut self.cluster.http).protocol = UpstreamProtocol::Http2;
        self
    }

    /// Starts the proxy; it ends with the test's task set.
    pub(super) async fn start(self) -> Proxy {
        let Self { mut hcm, forward, action, mut vhost, headers, overrides, unlogged, debug, cluster, others } = self;
        let route = Route {
            name: "the-route".into(),
            matches: Arc::new(RouteMatch {
                path: PathMatch::Prefix("/".into()),
                case_sensitive: true,
                headers: Vec::new(),
                query: Vec::new(),
                grpc: false,
                fraction: None,
                further: None,
            }),
            action: action.unwrap_or_else(|| Action::Forward(Arc::new(forward.clone()))),
            headers: headers.into(),
            metadata: None,
            overrides,
            tracing: None,
        };
        let connect = Route {
            matches: Arc::new(RouteMatch { path: PathMatch::Connect, ..(*route.matches).clone() }),
            ..route.clone()
        };
        vhost.routes = vec![Arc::new(connect), Arc::new(route)];
        let config = RouteConfiguration { virtual_hosts: vec![Arc::new(vhost)], ..RouteConfiguration::default() };
        let table = Arc::new(RouteTable::new(Arc::new(config.clone())));
        hcm.routes = RouteSource::Inline(Arc::new(config));
        let sinks = Sinks::start().unwrap();
        let log = tempfile::NamedTempFile::new().unwrap();
        let path: Arc<str> = log.path().to_str().unwrap().into();
        let logger = Logger::new(&AccessLog { sink: Sink::File(path), format: log_format(), filter: None }, &sinks);
        let secrets = Arc::<Secrets>::default();
        let builder = Builder {
            secrets: secrets.clone(),
            registry: Arc::default(),
            sinks,
            tracers: Arc::default(),
            upstream: Deps { secrets, ..Deps::default() },
            debug: None,
        };
        let others = others.into_iter().map(|(name, address)| {
            let discovery = Self::new(&[address]).cluster.discovery;
            (name.into(), Arc::new(Cluster { name: name.into(), stat_name: name.into(), discovery, ..cluster.clone() }))
        });
        let others: Vec<_> = others.collect();
        let snapshot = Snapshot {
            version: 1,
            clusters: [("up".into(), Arc::new(cluster))].into_iter().chain(others).collect(),
            ..Snapshot::default()
        };
        let (live, problems) = builder.build(&Arc::new(snapshot), &Default::default(), &Live::default());
        assert_eq!(problems, []);
        let cluster = live.cluster("up").unwrap().clone();
        let cluster_stats = cluster.stats.clone();
        let publisher = Arc::new(Publisher::default());
        publisher.publish(Arc::new(live));
        let stats = Arc::<Sharded<HttpStats>>::default();
        let registry = Registry::default();
        let filter_stats = registry.filters(&hcm.stat_prefix);
        // The one prefix that tests give local limits.
        let limit_stats = registry.local_limits(&"p".into());
        let tracing = hcm.tracing.as_ref().and_then(|t| builder.tracers.tracing(t, Arc::default)).map(Arc::new);
        let hcm = Arc::new(hcm);
        let live_hcm = Arc::new(LiveHcm {
            filters: Arc::new(
                LiveFilters::new(&hcm, (&registry, &Arc::default()), None, Instant::now()).explained_to(debug),
            ),
            standing: Arc::default(),
            config: hcm,
            mesh: None,
            inline_routes: Some(table),
            stats: stats.clone(),
            tracing,
            logs: Arc::new(Loggers::new(if unlogged { Vec::new() } else { vec![logger] })),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (process, chain) = (Rc::new(drain::Source::default()), drain::Source::default());
        let engine = Rc::new(Engine::new(Reader::new(publisher)));
        let process_drain = process.clone();
        let (codecs, of_proxy) = (engine.held.clone(), engine.clone());
        tokio::task::spawn_local(async move {
            for id in 1.. {
                let (stream, remote) = listener.accept().await.unwrap();
                let info = Rc::new(conn_info(id, remote, address));
                let signal = drain::Signal::new(&process_drain, &chain);
                let serving = server::serve(stream.into(), info, live_hcm.clone(), engine.clone(), signal);
                tokio::task::spawn_local(serving);
            }
        });
        Proxy {
            address,
            stats,
            filter_stats,
            limit_stats,
            cluster,
            cluster_stats,
            drain: process,
            codecs,
            engine: of_proxy,
            log,
        }
    }
}

pub(crate) fn conn_info(id: u64, remote: SocketAddr, local: SocketAddr) -> ConnInfo {
    ConnInfo {
        id,
        remote,
        local,
        original_dst: None,
        direction: Direction::Outbound,
        listener: "listener".into(),
        chain: "chain".into(),
        server_name: None,
        tls: None,
        started: SystemTime::now(),
        started_at: Instant::now(),
        buffer_limit: 1 << 20,
        metadata: Default::default(),
    }
}

/// `CODE FLAGS DETAILS ATTEMPTS RECEIVED SENT ROUTE`.
fn log_format() -> LogFormat {
    let ops = [
        Operator::ResponseCode,
        Operator::ResponseFlags,
        Operator::ResponseCodeDetails,
        Operator::UpstreamRequestAttemptCount,
        Operator::BytesReceived,
        Operator::BytesSent,
        Operator::Req(":path".into(), None),
    ];
    let mut segments = Vec::new();
    for op in ops {
        segments.push(Segment::Op { op, max_len: None });
        segments.push(Segment::Text(" ".into()));
    }
    segments.push(Segment::Text("\n".into()));
    LogFormat::Text(Template { segments })
}

/// A running proxy.
pub(super) struct Proxy {
    pub address: SocketAddr,
    pub stats: Arc<Sharded<HttpStats>>,
    pub filter_stats: Arc<Sharded<FilterStats>>,
    /// Of all local rate limits.
    pub limit_stats: Arc<Sharded<LocalLimitStats>>,
    pub cluster: Arc<crate::upstream::Cluster>,
    pub cluster_stats: Arc<Sharded<ClusterStats>>,
    pub drain: Rc<drain::Source>,
    /// Codecs of HTTP/1 connections.
    pub codecs: Rc<Gauge>,
    pub engine: Rc<Engine>,
    log: tempfile::NamedTempFile,
}

impl Proxy {
    /// Another cluster than the one that requests go to.
    pub(super) fn other(&self, name: &str) -> Arc<crate::upstream::Cluster> {
        self.engine.live.get().cluster(name).unwrap().clone()
    }

    pub(super) async fn connect(&self) -> Peer {
        Peer::new(TcpStream::connect(self.address).await.unwrap())
    }

    /// Waits for `count` access log lines.
    pub(super) async fn log(&self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        until(|| {
            lines = std::fs::read_to_string(self.log.path()).unwrap().lines().map(|l| l.trim().to_owned()).collect();
            lines.len() >= count
        })
        .await;
        lines
    }
}

/// An upstream and a proxy in front of it.
pub(super) async fn pair(change: impl FnOnce(&mut Setup)) -> (Proxy, Upstream) {
    let (upstream, address) = Upstream::bind().await;
    let mut setup = Setup::new(&[address]);
    change(&mut setup);
    (setup.start().await, upstream)
}
