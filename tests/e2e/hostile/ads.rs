//! A control plane that does exactly what the test says, well-behaved or not: each stream of the proxy becomes a
//! [`Call`] in the test's hands. It speaks both protocols and sends any bytes.

use std::{
    net::TcpListener,
    sync::{Arc, Mutex, mpsc},
};

use futures_util::{StreamExt, future::BoxFuture, stream::BoxStream};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_tests::wait::PATIENCE;
use outrigger_wire::{
    json,
    pb::{
        envoy::service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
        },
        google::protobuf::Any,
    },
};
use prost::Message;
use tonic::{Response, Status, Streaming, server::StreamingService};

pub(crate) const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
pub(crate) const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";

/// A resource from YAML.
pub(crate) fn resource(type_url: &str, yaml: &str) -> Any {
    let name = type_url.trim_start_matches("type.googleapis.com/");
    Any { type_url: type_url.to_owned(), value: json::read_bytes(name, yaml).unwrap() }
}

/// The server: lives as long as this value.
pub(crate) struct Ads {
    calls: mpsc::Receiver<Call>,
    _runtime: tokio::runtime::Runtime,
}

impl Ads {
    pub(crate) fn serve(listener: TcpListener) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sender, calls) = mpsc::channel();
        listener.set_nonblocking(true).unwrap();
        let sender = Arc::new(Mutex::new(sender));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let sender = sender.clone();
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let delta = request.uri().path().contains("/Delta");
                        let handler = Handler { calls: sender.clone(), delta };
                        async move {
                            let answer = tonic::server::Grpc::new(Bytes).streaming(handler, request).await;
                            Ok::<_, std::convert::Infallible>(answer)
                        }
                    });
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { calls, _runtime: runtime }
    }

    /// The next stream.
    pub(crate) fn call(&self) -> Call {
        self.calls.recv_timeout(PATIENCE).expect("the proxy should have opened a stream")
    }
}

/// What the proxy says, in one form for both protocols.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) type_url: String,
    pub(crate) nonce: String,
    pub(crate) error: Option<String>,
}

type Raw = Result<Vec<u8>, Status>;

/// One stream.
pub(crate) struct Call {
    pub(crate) delta: bool,
    requests: mpsc::Receiver<Request>,
    responses: tokio::sync::mpsc::UnboundedSender<Raw>,
}

impl Call {
    /// The answer to the response `nonce`: `None` for an ACK, the reason of a NACK otherwise.
    pub(crate) fn verdict(&self, nonce: &str) -> Option<String> {
        loop {
            let request = self.requests.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("no answer to {nonce}: {e}"));
            if request.nonce == nonce {
                return request.error;
            }
        }
    }

    /// Waits for a subscription to this type.
    pub(crate) fn subscribed(&self, type_url: &str) {
        loop {
            let request = self.requests.recv_timeout(PATIENCE).expect("a subscription");
            if request.type_url == type_url {
                return;
            }
        }
    }

    pub(crate) fn send(&self, type_url: &str, nonce: &str, resources: Vec<(&str, Any)>) {
        let bytes = if self.delta {
            let resource = |(name, any): (&str, Any)| Resource {
                name: name.to_owned(),
                version: nonce.to_owned(),
                resource: Some(any),
                ..Default::default()
            };
            DeltaDiscoveryResponse {
                type_url: type_url.to_owned(),
                nonce: nonce.to_owned(),
                resources: resources.into_iter().map(resource).collect(),
                ..Default::default()
            }
            .encode_to_vec()
        } else {
            DiscoveryResponse {
                version_info: nonce.to_owned(),
                type_url: type_url.to_owned(),
                nonce: nonce.to_owned(),
                resources: resources.into_iter().map(|(_, any)| any).collect(),
                ..Default::default()
            }
            .encode_to_vec()
        };
        self.send_bytes(bytes);
    }

    /// A gRPC message with anything in it.
    pub(crate) fn send_bytes(&self, bytes: Vec<u8>) {
        self.responses.send(Ok(bytes)).expect("the server runs");
    }

    pub(crate) fn fail(self, status: Status) {
        self.responses.send(Err(status)).expect("the server runs");
    }
}

struct Handler {
    calls: Arc<Mutex<mpsc::Sender<Call>>>,
    delta: bool,
}

impl StreamingService<Vec<u8>> for Handler {
    type Response = Vec<u8>;
    type ResponseStream = BoxStream<'static, Raw>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Vec<u8>>>) -> Self::Future {
        let (calls, delta) = (self.calls.clone(), self.delta);
        Box::pin(async move {
            let mut inbound = request.into_inner();
            let (heard, requests) = mpsc::channel();
            tokio::spawn(async move {
                while let Some(Ok(bytes)) = inbound.next().await {
                    let _ = heard.send(parse(delta, &bytes));
                }
            });
            let (responses, out) = tokio::sync::mpsc::unbounded_channel();
            let call = Call { delta, requests, responses };
            calls.lock().unwrap().send(call).map_err(|_| Status::unavailable("the test is over"))?;
            let stream = futures_util::stream::unfold(out, |mut out| async { out.recv().await.map(|raw| (raw, out)) });
            Ok(Response::new(stream.boxed()))
        })
    }
}

fn parse(delta: bool, bytes: &[u8]) -> Request {
    if delta {
        let r = DeltaDiscoveryRequest::decode(bytes).unwrap();
        Request { type_url: r.type_url, nonce: r.response_nonce, error: r.error_detail.map(|e| e.message) }
    } else {
        let r = DiscoveryRequest::decode(bytes).unwrap();
        Request { type_url: r.type_url, nonce: r.response_nonce, error: r.error_detail.map(|e| e.message) }
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
