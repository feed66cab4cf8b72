//! A connection manager's tracing, and requests through it, for the tests of this room.

use std::{rc::Rc, time::SystemTime};

use http::{Method, Version};
use outrigger_wire::otlp::{ExportTraceServiceRequest, Span};
use prost::Message as _;

use super::*;
use crate::{
    ir::{
        Fraction,
        listener::Direction,
        service::GrpcService,
        tracing::{Collector, RequestId, Sampler, Shares},
    },
    telemetry::{
        exchange::{HttpScope, RequestRecord},
        outbox::Counts,
        record::ConnInfo,
    },
};

pub(super) fn provider(sampler: Option<Sampler>) -> OpenTelemetry {
    let service =
        GrpcService { cluster: "otel".into(), authority: None, timeout: None, metadata: Vec::new(), max_message: None };
    OpenTelemetry {
        collector: Some(Collector::Grpc(service)),
        resource: vec![("service.name".into(), "shop".into())],
        detects_environment: false,
        scope: true,
        sampler,
        capacity: None,
    }
}

pub(super) fn config(random: u32) -> Config {
    let share = |numerator| Fraction { numerator, denominator: 100 };
    Config {
        shares: Shares { client: share(100), random: share(random), overall: share(100) },
        custom_tags: Vec::new(),
        verbose: false,
        max_path: 256,
        spawn_upstream_span: false,
        operation: None,
        upstream_operation: None,
        no_context_propagation: false,
        request_id: RequestId::default(),
        provider: Some(Arc::new(provider(None))),
    }
}

/// A connection manager's tracing and one request through it.
pub(super) struct Rig {
    pub(super) tracers: Tracers,
    pub(super) tracing: Arc<Tracing>,
    pub(super) headers: HeaderMap,
    pub(super) route: Option<Arc<RouteTracing>>,
    pub(super) egress: bool,
}

impl Rig {
    pub(super) fn new(config: Config) -> Self {
        let tracers = Tracers::new(None, Arc::<Counts>::default());
        let tracing = tracers.tracing(&Arc::new(config), Arc::default).unwrap();
        let rig = Self { tracing: Arc::new(tracing), tracers, headers: HeaderMap::new(), route: None, egress: false };
        rig.header("host", "shop.example:8080").header("x-request-id", "00000010-1111-4222-8333-444444444444")
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    pub(super) fn open(&mut self) -> Option<Box<RequestSpan>> {
        self.open_for("/cart?item=1")
    }

    pub(super) fn open_for(&mut self, path: &str) -> Option<Box<RequestSpan>> {
        let has = |name: &str, headers: &HeaderMap| headers.keys().any(|known| known.as_str().starts_with(name));
        let request = Request {
            has_context: ["traceparent", "b3", "x-b3-"].iter().any(|name| has(name, &self.headers)),
            has_client_id: has("x-client-trace-id", &self.headers),
            has_envoy: has("x-envoy-", &self.headers),
            headers: &mut self.headers,
            egress: self.egress,
            route: self.route.as_ref(),
            started: Instant::now(),
        };
        let head = |headers: &HeaderMap| Head::new((&Method::GET, path, "http"), headers, false);
        self.tracing.open(request, head)
    }

    pub(super) fn sent(&self, name: &str) -> Option<String> {
        self.headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    /// Runs an exchange with this span to its end.
    pub(super) fn finish(&self, span: Box<RequestSpan>, exchange: impl FnOnce(&RequestRecord)) -> Vec<Span> {
        let remote = "10.0.0.9:4444".parse().unwrap();
        let conn = ConnInfo {
            id: 1,
            remote,
            local: remote,
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
        };
        let scope = Rc::new(HttpScope { conn: Rc::new(conn), stats: Arc::default(), logs: Arc::default(), mesh: None });
        let record = RequestRecord::open(scope, Version::HTTP_2);
        record.trace(span, remote);
        exchange(&record);
        drop(record);
        self.spans()
    }

    pub(super) fn spans(&self) -> Vec<Span> {
        let outbox = self.tracers.outboxes.all().pop().unwrap();
        let records = outbox.take();
        let request = outbox.destination.signal.request(records.iter().map(Vec::as_slice));
        let request = ExportTraceServiceRequest::decode(&*request).unwrap();
        let [of_service] = &request.resource_spans[..] else { panic!("{request:?}") };
        let resource = &of_service.resource.as_ref().unwrap().attributes;
        assert_eq!(outrigger_wire::otlp::attribute(resource, "service.name").as_deref(), Some("shop"));
        of_service.scope_spans[0].spans.clone()
    }
}
