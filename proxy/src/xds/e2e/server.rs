//! A control plane that does what the test says: each stream becomes a [`Call`] in the test's hands.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use futures_util::{StreamExt, future::BoxFuture};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_wire::pb::{
    envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
    },
    google::protobuf::Any,
};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming, body::Body, metadata::MetadataMap, server::StreamingService};

use crate::xds::{Connection, Kind, Transport};

/// The network between proxy and control plane.
#[derive(Debug)]
pub(super) struct Net {
    refusal: Mutex<Option<String>>,
    calls: mpsc::Sender<Call>,
    incoming: tokio::sync::Mutex<mpsc::Receiver<Call>>,
}

impl Net {
    pub(super) fn new() -> Arc<Self> {
        let (calls, incoming) = mpsc::channel(16);
        Arc::new(Self { refusal: Mutex::new(None), calls, incoming: tokio::sync::Mutex::new(incoming) })
    }

    /// The next stream.
    pub(super) async fn call(&self) -> Call {
        let mut incoming = self.incoming.lock().await;
        tokio::time::timeout(super::LONG, incoming.recv()).await.expect("a call in time").unwrap()
    }

    /// From now on connections fail for this reason.
    pub(super) fn refuse(&self, reason: Option<&str>) {
        *self.refusal.lock().unwrap() = reason.map(str::to_owned);
    }
}

impl Transport for Net {
    fn connect(self: Arc<Self>, _cluster: &str) -> BoxFuture<'static, Result<Box<dyn Connection>, String>> {
        Box::pin(async move {
            if let Some(reason) = self.refusal.lock().unwrap().clone() {
                return Err(reason);
            }
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            let service = Service { calls: self.calls.clone() };
            tokio::spawn(async move {
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let service = hyper_util::service::TowerToHyperService::new(service);
                // Ends when the client hangs up, with whatever error that is.
                let _ = builder.serve_connection(TokioIo::new(theirs), service).await;
            });
            Ok(Box::new(ours) as Box<dyn Connection>)
        })
    }
}

/// A request in one form for both protocols.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    pub(super) kind: Option<Kind>,
    pub(super) version: String,
    pub(super) nonce: String,
    pub(super) names: Vec<String>,
    pub(super) unsubscribe: Vec<String>,
    pub(super) initial: Vec<(String, String)>,
    pub(super) node: bool,
    error: Option<String>,
}

impl Request {
    /// Nonce and error.
    pub(super) fn ack(&self) -> (&str, Option<&str>) {
        (&self.nonce, self.error.as_deref())
    }
}

impl From<DiscoveryRequest> for Request {
    fn from(r: DiscoveryRequest) -> Self {
        Self {
            kind: Kind::from_type_url(&r.type_url),
            version: r.version_info,
            nonce: r.response_nonce,
            names: r.resource_names,
            node: r.node.is_some(),
            error: r.error_detail.map(|e| e.message),
            ..Self::default()
        }
    }
}

impl From<DeltaDiscoveryRequest> for Request {
    fn from(r: DeltaDiscoveryRequest) -> Self {
        Self {
            kind: Kind::from_type_url(&r.type_url),
            version: String::new(),
            nonce: r.response_nonce,
            names: r.resource_names_subscribe,
            unsubscribe: r.resource_names_unsubscribe,
            initial: r.initial_resource_versions.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect(),
            node: r.node.is_some(),
            error: r.error_detail.map(|e| e.message),
        }
    }
}

/// A response as encoded bytes, so that one codec serves both protocols.
type Raw = Result<Vec<u8>, Status>;

/// One stream, driven by the test.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) path: String,
    pub(super) metadata: MetadataMap,
    delta: bool,
    requests: mpsc::Receiver<Request>,
    responses: mpsc::Sender<Raw>,
}

impl Call {
    async fn next(&mut self) -> Option<Request> {
        tokio::time::timeout(super::LONG, self.requests.recv()).await.expect("a request in time")
    }

    /// The next request, which must be of this type.
    pub(super) async fn expect(&mut self, kind: Kind) -> Request {
        let request = self.next().await.expect("the stream is open");
        assert_eq!(request.kind, Some(kind), "{request:?}");
        request
    }

    /// Waits for the client to hang up.
    pub(super) async fn closed(&mut self) {
        while self.next().await.is_some() {}
    }

    pub(super) async fn send(&self, kind: Kind, version: &str, nonce: &str, resources: Vec<Any>) {
        self.send_type(kind.type_url(), version, nonce, resources).await;
    }

    pub(super) async fn send_type(&self, type_url: &str, version: &str, nonce: &str, resources: Vec<Any>) {
        let bytes = if self.delta {
            let resource = |any: Any| Resource { version: version.into(), resource: Some(any), ..Default::default() };
            DeltaDiscoveryResponse {
                system_version_info: version.into(),
                type_url: type_url.into(),
                nonce: nonce.into(),
                resources: resources.into_iter().map(resource).collect(),
                ..Default::default()
            }
            .encode_to_vec()
        } else {
            DiscoveryResponse {
                version_info: version.into(),
                type_url: type_url.into(),
                nonce: nonce.into(),
                resources,
                ..Default::default()
            }
            .encode_to_vec()
        };
        self.responses.send(Ok(bytes)).await.expect("the stream is open");
    }

    pub(super) async fn remove(&self, kind: Kind, nonce: &str, names: &[&str]) {
        let response = DeltaDiscoveryResponse {
            type_url: kind.type_url().into(),
            nonce: nonce.into(),
            removed_resources: names.iter().map(|n| (*n).to_owned()).collect(),
            ..Default::default()
        };
        self.responses.send(Ok(response.encode_to_vec())).await.expect("the stream is open");
    }

    pub(super) async fn fail(self, status: Status) {
        self.responses.send(Err(status)).await.expect("the stream is open");
    }
}

#[derive(Clone)]
struct Service {
    calls: mpsc::Sender<Call>,
}

impl tower::Service<http::Request<hyper::body::Incoming>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<hyper::body::Incoming>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let delta = path.contains("/Delta");
        let handler = Handler { calls: self.calls.clone(), path, delta };
        Box::pin(async move { Ok(tonic::server::Grpc::new(Bytes).streaming(handler, request).await) })
    }
}

struct Handler {
    calls: mpsc::Sender<Call>,
    path: String,
    delta: bool,
}

impl StreamingService<Vec<u8>> for Handler {
    type Response = Vec<u8>;
    type ResponseStream = ReceiverStream<Raw>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Vec<u8>>>) -> Self::Future {
        let (calls, path, delta) = (self.calls.clone(), self.path.clone(), self.delta);
        Box::pin(async move {
            let metadata = request.metadata().clone();
            let mut inbound = request.into_inner();
            let (requests, out) = mpsc::channel(64);
            tokio::spawn(async move {
                while let Some(Ok(bytes)) = inbound.next().await {
                    let request = if delta {
                        DeltaDiscoveryRequest::decode(bytes.as_slice()).unwrap().into()
                    } else {
                        DiscoveryRequest::decode(bytes.as_slice()).unwrap().into()
                    };
                    if requests.send(request).await.is_err() {
                        return;
                    }
                }
            });
            let (responses, stream) = mpsc::channel(16);
            let call = Call { path, metadata, delta, requests: out, responses };
            calls.send(call).await.map_err(|_| Status::unavailable("the test is over"))?;
            Ok(Response::new(ReceiverStream::new(stream)))
        })
    }
}

/// A codec of plain bytes.
#[derive(Clone, Copy, Debug)]
struct Bytes;

impl tonic::codec::Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(out, &item);
        Ok(())
    }
}

impl tonic::codec::Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; bytes::Buf::remaining(from)];
        bytes::Buf::copy_to_slice(from, &mut item);
        Ok(Some(item))
    }
}
