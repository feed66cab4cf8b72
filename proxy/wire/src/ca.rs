//! `istio.v1.auth.IstioCertificateService`: the one call by which a workload turns its CSR into an SVID.
//!
//! Istio publishes the service as `security/proto/istio_ca.proto`; Envoy's packages lack it, so messages, client and
//! server are written out here in the shape `tonic-build` would give them. Field numbers are Istio's (2 is unused).

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{Body as HttpBody, Bytes, Service, StdError, http},
};

use crate::pb::google::protobuf::Struct;

/// Full name of the service.
pub const SERVICE_NAME: &str = "istio.v1.auth.IstioCertificateService";
/// HTTP/2 path of its only method.
pub const CREATE_CERTIFICATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// A PKCS#10 request in PEM. The server decides the identity; SANs in the CSR carry no authority.
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct IstioCertificateRequest {
    #[prost(string, tag = "1")]
    pub csr: String,
    /// Wanted validity in seconds; 0 or less leaves it to the server.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

/// PEM certificates: leaf, intermediates, root.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct IstioCertificateResponse {
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

/// Client of the certificate service over any gRPC transport.
#[derive(Clone, Debug)]
pub struct IstioCertificateServiceClient<T> {
    inner: tonic::client::Grpc<T>,
}

impl<T> IstioCertificateServiceClient<T>
where
    T: tonic::client::GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    pub fn new(inner: T) -> Self {
        Self { inner: tonic::client::Grpc::new(inner) }
    }

    /// As [`Self::new`], with the scheme and authority every request shall carry.
    pub fn with_origin(inner: T, origin: http::Uri) -> Self {
        Self { inner: tonic::client::Grpc::with_origin(inner, origin) }
    }

    /// Asks for a certificate. Authentication is the caller's business (`authorization` metadata or mutual TLS).
    pub async fn create_certificate(
        &mut self,
        request: impl tonic::IntoRequest<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.inner
            .ready()
            .await
            .map_err(|e| Status::unavailable(format!("certificate service not ready: {}", e.into())))?;
        let path = http::uri::PathAndQuery::from_static(CREATE_CERTIFICATE);
        self.inner.unary(request.into_request(), path, tonic_prost::ProstCodec::default()).await
    }
}

/// What a certificate authority implements.
#[tonic::async_trait]
pub trait IstioCertificateService: Send + Sync + 'static {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status>;
}

/// Serves an [`IstioCertificateService`] in a tonic router.
#[derive(Debug)]
pub struct IstioCertificateServiceServer<T> {
    inner: Arc<T>,
    max_decoding_message_size: Option<usize>,
}

impl<T> IstioCertificateServiceServer<T> {
    pub fn new(inner: T) -> Self {
        Self::from_arc(Arc::new(inner))
    }

    pub fn from_arc(inner: Arc<T>) -> Self {
        Self { inner, max_decoding_message_size: None }
    }

    /// Largest request accepted, in bytes; tonic's 4 MiB if not set.
    #[must_use]
    pub fn max_decoding_message_size(mut self, limit: usize) -> Self {
        self.max_decoding_message_size = Some(limit);
        self
    }
}

impl<T> Clone for IstioCertificateServiceServer<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), max_decoding_message_size: self.max_decoding_message_size }
    }
}

impl<T> tonic::server::NamedService for IstioCertificateServiceServer<T> {
    const NAME: &'static str = SERVICE_NAME;
}

/// The unary method as tonic's generic server wants it.
struct CreateCertificate<T>(Arc<T>);

type Boxed<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl<T: IstioCertificateService> tonic::server::UnaryService<IstioCertificateRequest> for CreateCertificate<T> {
    type Response = IstioCertificateResponse;
    type Future = Boxed<Response<IstioCertificateResponse>, Status>;

    fn call(&mut self, request: Request<IstioCertificateRequest>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.create_certificate(request).await })
    }
}

impl<T, B> Service<http::Request<B>> for IstioCertificateServiceServer<T>
where
    T: IstioCertificateService,
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
        if request.uri().path() != CREATE_CERTIFICATE {
            return Box::pin(async { Ok(Status::unimplemented("no such method").into_http()) });
        }
        let (inner, limit) = (Arc::clone(&self.inner), self.max_decoding_message_size);
        Box::pin(async move {
            let mut grpc =
                tonic::server::Grpc::new(tonic_prost::ProstCodec::default()).apply_max_message_size_config(limit, None);
            Ok(grpc.unary(CreateCertificate(inner), request).await)
        })
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn field_numbers_are_istios() {
        let request =
            IstioCertificateRequest { csr: "x".into(), validity_duration: 5, metadata: Some(Struct::default()) };
        // 1: length-delimited "x"; 3: varint 5; 4: length-delimited, empty.
        assert_eq!(request.encode_to_vec(), [0x0a, 1, b'x', 0x18, 5, 0x22, 0]);
        let response = IstioCertificateResponse { cert_chain: vec!["a".into(), "b".into()] };
        assert_eq!(response.encode_to_vec(), [0x0a, 1, b'a', 0x0a, 1, b'b']);
    }

    struct Echo;

    #[tonic::async_trait]
    impl IstioCertificateService for Echo {
        async fn create_certificate(
            &self,
            request: Request<IstioCertificateRequest>,
        ) -> Result<Response<IstioCertificateResponse>, Status> {
            let csr = request.into_inner().csr;
            if csr.is_empty() {
                return Err(Status::invalid_argument("empty"));
            }
            Ok(Response::new(IstioCertificateResponse { cert_chain: vec![csr] }))
        }
    }

    #[tokio::test]
    async fn client_and_server_agree() {
        let mut client = IstioCertificateServiceClient::new(IstioCertificateServiceServer::new(Echo));
        let request = IstioCertificateRequest { csr: "pem".into(), ..Default::default() };
        assert_eq!(client.create_certificate(request).await.unwrap().into_inner().cert_chain, ["pem"]);
        let refused = client.create_certificate(IstioCertificateRequest::default()).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (tonic::Code::InvalidArgument, "empty"));
    }

    #[tokio::test]
    async fn another_path_is_unimplemented() {
        let mut server = IstioCertificateServiceServer::new(Echo);
        let request =
            http::Request::post("/istio.v1.auth.IstioCertificateService/Other").body(Body::default()).unwrap();
        let response = server.call(request).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "12");
    }
}
