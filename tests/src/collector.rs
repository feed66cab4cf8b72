//! A receiver of OpenTelemetry traces, over gRPC and over HTTP.

use std::{
    convert::Infallible,
    net::TcpListener,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_wire::otlp::{ExportTraceServiceRequest, Span, attribute};
use prost::Message;

/// A span and the service that sent it.
#[derive(Clone, Debug)]
pub struct Received {
    pub service: String,
    pub span: Span,
}

type Spans = Arc<Mutex<Vec<Received>>>;

/// See the module's head. Gone, connections included, when it is dropped.
pub struct Collector {
    spans: Spans,
    _runtime: tokio::runtime::Runtime,
}

impl Collector {
    pub fn start(listener: TcpListener) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let spans = Spans::default();
        listener.set_nonblocking(true).expect("a TCP socket");
        let (theirs, entered) = (spans.clone(), runtime.enter());
        let listener = tokio::net::TcpListener::from_std(listener).expect("a TCP socket");
        drop(entered);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let spans = theirs.clone();
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(|request| take(request, spans.clone()));
                    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { spans, _runtime: runtime }
    }

    /// Everything that came so far.
    pub fn spans(&self) -> Vec<Received> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn take(
    request: Request<hyper::body::Incoming>,
    spans: Spans,
) -> Result<Response<http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let grpc = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/grpc");
    let path = request.uri().path().to_owned();
    let expected = if grpc { "/opentelemetry.proto.collector.trace.v1.TraceService/Export" } else { "/v1/traces" };
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let message = if grpc { body.get(5..).unwrap_or_default() } else { &body };
    let (mut response, status) = match ExportTraceServiceRequest::decode(message) {
        Ok(export) if path == expected => {
            let mut spans = spans.lock().unwrap_or_else(PoisonError::into_inner);
            for of in export.resource_spans {
                let resource = of.resource.unwrap_or_default();
                let service = attribute(&resource.attributes, "service.name").unwrap_or_default();
                let all = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
                spans.extend(all.map(|span| Received { service: service.clone(), span }));
            }
            (Response::new(()), "0")
        }
        _ => {
            let mut refused = Response::new(());
            *refused.status_mut() = if grpc { http::StatusCode::OK } else { http::StatusCode::BAD_REQUEST };
            (refused, "3")
        }
    };
    if !grpc {
        return Ok(response.map(|()| Full::new(Bytes::new()).boxed_unsync()));
    }
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    let empty = Full::new(Bytes::from_static(&[0; 5]));
    Ok(response.map(|()| empty.with_trailers(async { Some(Ok(trailers)) }).boxed_unsync()))
}
