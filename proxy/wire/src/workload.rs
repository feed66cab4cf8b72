//! The SPIFFE Workload API, as far as X.509 identities need it: the stream by which an agent hands a workload its SVIDs.
//!
//! Published by the SPIFFE project as `workload.proto`, without a package. Written out here as `tonic-build` would do
//! it; field numbers are SPIFFE's. The server is for tests and for agents made of this.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{Body as HttpBody, Bytes, Service, StdError, http, tokio_stream::Stream},
};

/// Full name of the service.
pub const SERVICE_NAME: &str = "SpiffeWorkloadAPI";
/// HTTP/2 path of the stream of X.509-SVIDs.
pub const FETCH_X509_SVID: &str = "/SpiffeWorkloadAPI/FetchX509SVID";
/// Metadata that every request must carry, with the value `true`: no page of a browser can send it.
pub const SECURITY_HEADER: &str = "workload.spiffe.io";

/// Asks for nothing in particular: the agent knows who calls.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct X509SvidRequest {}

/// All identities of the workload, complete each time.
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct X509SvidResponse {
    /// The first one is the default.
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<X509Svid>,
    /// Revocation lists, DER.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub crl: Vec<Vec<u8>>,
    /// Trust bundles of other trust domains by their SPIFFE id, DER certificates in a row.
    #[prost(map = "string, bytes", tag = "3")]
    pub federated_bundles: HashMap<String, Vec<u8>>,
}

/// One identity.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct X509Svid {
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    /// DER certificates in a row, leaf first.
    #[prost(bytes = "vec", tag = "2")]
    pub x509_svid: Vec<u8>,
    /// PKCS#8, DER.
    #[prost(bytes = "vec", tag = "3")]
    pub x509_svid_key: Vec<u8>,
    /// The trust bundle of its trust domain, DER certificates in a row.
    #[prost(bytes = "vec", tag = "4")]
    pub bundle: Vec<u8>,
    #[prost(string, tag = "5")]
    pub hint: String,
}

/// Client of the Workload API over any gRPC transport.
#[derive(Clone, Debug)]
pub struct SpiffeWorkloadApiClient<T> {
    inner: tonic::client::Grpc<T>,
}

impl<T> SpiffeWorkloadApiClient<T>
where
    T: tonic::client::GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    pub fn new(inner: T) -> Self {
        Self { inner: tonic::client::Grpc::new(inner) }
    }

    /// Opens the stream: an answer at once, and another one whenever something changes.
    pub async fn fetch_x509_svid(&mut self) -> Result<Response<Streaming<X509SvidResponse>>, Status> {
        self.inner.ready().await.map_err(|e| Status::unavailable(format!("Workload API not ready: {}", e.into())))?;
        let mut request = Request::new(X509SvidRequest {});
        request.metadata_mut().insert(SECURITY_HEADER, tonic::metadata::MetadataValue::from_static("true"));
        let path = http::uri::PathAndQuery::from_static(FETCH_X509_SVID);
        self.inner.server_streaming(request, path, tonic_prost::ProstCodec::default()).await
    }
}

/// The answers of one stream.
pub type Answers = Pin<Box<dyn Stream<Item = Result<X509SvidResponse, Status>> + Send>>;

/// What an agent implements.
#[tonic::async_trait]
pub trait SpiffeWorkloadApi: Send + Sync + 'static {
    async fn fetch_x509_svid(&self, request: Request<X509SvidRequest>) -> Result<Response<Answers>, Status>;
}

/// Serves a [`SpiffeWorkloadApi`] in a tonic router.
#[derive(Debug)]
pub struct SpiffeWorkloadApiServer<T>(Arc<T>);

impl<T> SpiffeWorkloadApiServer<T> {
    pub fn new(inner: T) -> Self {
        Self(Arc::new(inner))
    }
}

impl<T> Clone for SpiffeWorkloadApiServer<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> tonic::server::NamedService for SpiffeWorkloadApiServer<T> {
    const NAME: &'static str = SERVICE_NAME;
}

/// The method as tonic's generic server wants it.
struct FetchX509Svid<T>(Arc<T>);

type Boxed<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl<T: SpiffeWorkloadApi> tonic::server::ServerStreamingService<X509SvidRequest> for FetchX509Svid<T> {
    type Response = X509SvidResponse;
    type ResponseStream = Answers;
    type Future = Boxed<Response<Answers>, Status>;

    fn call(&mut self, request: Request<X509SvidRequest>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            // The specification's guard against requests that something else was tricked into making.
            match request.metadata().get(SECURITY_HEADER).map(|value| value.as_bytes()) {
                Some(b"true") => inner.fetch_x509_svid(request).await,
                _ => Err(Status::invalid_argument("security header missing from request")),
            }
        })
    }
}

impl<T, B> Service<http::Request<B>> for SpiffeWorkloadApiServer<T>
where
    T: SpiffeWorkloadApi,
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Boxed<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != FETCH_X509_SVID {
            return Box::pin(async { Ok(Status::unimplemented("no such method").into_http()) });
        }
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(tonic_prost::ProstCodec::default());
            Ok(grpc.server_streaming(FetchX509Svid(inner), request).await)
        })
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn field_numbers_are_spiffes() {
        let svid = X509Svid {
            spiffe_id: "a".into(),
            x509_svid: vec![1],
            x509_svid_key: vec![2],
            bundle: vec![3],
            hint: "h".into(),
        };
        let bytes = [0x0a, 1, b'a', 0x12, 1, 1, 0x1a, 1, 2, 0x22, 1, 3, 0x2a, 1, b'h'];
        assert_eq!(svid.encode_to_vec(), bytes);
        let federated_bundles = HashMap::from([("b".to_owned(), vec![4])]);
        let response = X509SvidResponse { svids: Vec::new(), crl: vec![vec![5]], federated_bundles };
        assert_eq!(response.encode_to_vec(), [0x12, 1, 5, 0x1a, 6, 0x0a, 1, b'b', 0x12, 1, 4]);
    }
}
