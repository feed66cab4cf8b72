//! The whole server in process, over loopback, driven by real tonic clients.

mod access;
mod flows;
mod limits;

use std::{future::Future, time::Duration};

use hyper_util::rt::TokioIo;
use outrigger_wire::pb::{
    envoy::{
        config::core::v3::Node as WireNode,
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
            aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
        },
    },
    google::{
        protobuf::{Any, Struct, Value, value::Kind},
        rpc::Status as RpcStatus,
    },
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Streaming,
    transport::{Channel, Endpoint, Uri},
};

use super::{
    source::{Generation, Publisher},
    types::TypeUrl,
    *,
};
use crate::{
    auth::Identity,
    ratelimit::{memory::Memory, service::Store},
    resources::Resources,
    state::StateDir,
};

const DEADLINE: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("in time")
}

struct Bench {
    addresses: Addresses,
    publisher: Publisher,
    status: Arc<Status>,
    authority: Arc<Authority>,
    tokens: Arc<Tokens>,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<anyhow::Result<()>>,
    _rescans: mpsc::Receiver<oneshot::Sender<()>>,
    _state: tempfile::TempDir,
}

impl Bench {
    async fn start() -> Self {
        Self::start_with(false, HOUR).await
    }

    async fn start_with(plaintext_identity: bool, cert_ttl: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::open(&directory.path().join("state")).unwrap();
        let authority = Arc::new(Authority::open(&state, "cluster.local", cert_ttl).unwrap());
        let tokens = Arc::new(Tokens::open(&state, "cluster.local").unwrap());
        let any_port: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let options = Options {
            xds: any_port,
            xds_tls: any_port,
            status: any_port,
            trust_domain: "cluster.local".into(),
            tls_sans: vec!["control.example".into()],
            plaintext_identity,
            max_connections: 64,
            max_connections_per_address: 64,
            max_streams: 8,
            max_streams_per_identity: 6,
            rate_limits: Arc::new(RateLimits::new(Store::Memory(Memory::new(1000)), Default::default())),
        };
        let (publisher, worlds) = watch::channel(None);
        let (rescan, rescans) = mpsc::channel(1);
        let status = Arc::new(Status::default());
        let trust = Trust { authority: Arc::clone(&authority), tokens: Arc::clone(&tokens) };
        let server = Server::bind(options, trust, worlds, Arc::clone(&status), rescan).await.unwrap();
        let addresses = server.addresses().unwrap();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(server.run(shutdown.clone()));
        Self { addresses, publisher, status, authority, tokens, shutdown, served, _rescans: rescans, _state: directory }
    }

    /// Publishes a world of clusters and routes given as `name=value` words (`c/a=1 r/x=2`).
    fn publish(&self, version: u64, words: &str) {
        let mut resources = Resources::default();
        for word in words.split_whitespace() {
            let (name, value) = word.split_once('=').unwrap();
            let (kind, name) = name.split_once('/').unwrap();
            let any = Any { type_url: "t/t".into(), value: value.as_bytes().to_vec() };
            match kind {
                "c" => resources.clusters.insert(name.to_owned(), any),
                "e" => resources.endpoints.insert(name.to_owned(), any),
                "l" => resources.listeners.insert(name.to_owned(), any),
                _ => resources.routes.insert(name.to_owned(), any),
            };
        }
        self.publisher.send_replace(Some(Generation::new(version, "c".into(), move |_| resources.clone())));
    }

    async fn plain(&self) -> Channel {
        let uri = format!("http://{}", self.addresses.xds);
        soon(Endpoint::from_shared(uri).unwrap().connect()).await.unwrap()
    }

    /// A TLS channel trusting our root, with an optional client certificate (chain PEM, key DER).
    async fn secure(
        &self,
        name: &'static str,
        client: Option<(String, Vec<u8>)>,
    ) -> Result<Channel, tonic::transport::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.authority.roots()[0].der.clone())).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match client {
            Some((pem, key)) => {
                let chain = vec![CertificateDer::from(crate::ca::pem_to_der(&pem).unwrap())];
                builder.with_client_auth_cert(chain, PrivateKeyDer::Pkcs8(key.into())).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let (connector, address) = (TlsConnector::from(Arc::new(config)), self.addresses.xds_tls);
        let connect = tower::service_fn(move |_: Uri| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                connector.connect(ServerName::try_from(name).unwrap(), stream).await.map(TokioIo::new)
            }
        });
        // `http`: tonic itself is not to wrap TLS around what the connector returns.
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        soon(endpoint.connect_with_connector(connect)).await
    }

    fn token(&self, namespace: &str, account: &str) -> String {
        self.token_for(namespace, account, HOUR)
    }

    fn token_for(&self, namespace: &str, account: &str, ttl: Duration) -> String {
        let identity = Identity::new("cluster.local", namespace, account).unwrap();
        format!("Bearer {}", self.tokens.mint(&identity, ttl, std::time::SystemTime::now()))
    }

    async fn until(&self, what: &str, check: impl Fn(&Status) -> bool) {
        soon(async {
            while !check(&self.status) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        assert!(check(&self.status), "{what}");
    }
}

fn node(namespace: &str, account: &str) -> Option<WireNode> {
    let text = |value: &str| Value { kind: Some(Kind::StringValue(value.into())) };
    let fields = [("NAMESPACE".to_owned(), text(namespace)), ("SERVICE_ACCOUNT".to_owned(), text(account))];
    Some(WireNode {
        id: format!("sidecar~10.0.0.1~pod.{namespace}~{namespace}.svc.cluster.local"),
        user_agent_name: "envoy".into(),
        metadata: Some(Struct { fields: fields.into_iter().collect() }),
        ..WireNode::default()
    })
}

fn error(text: &str) -> Option<RpcStatus> {
    Some(RpcStatus { message: text.into(), ..RpcStatus::default() })
}

fn with_token<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", token.parse().unwrap());
    }
    request
}

/// One delta stream.
struct DeltaClient {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl DeltaClient {
    async fn open(channel: Channel, token: Option<&str>, first: DeltaDiscoveryRequest) -> Result<Self, tonic::Status> {
        let (requests, stream) = mpsc::channel(16);
        requests.send(first).await.unwrap();
        let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(16 << 20);
        let request = with_token(ReceiverStream::new(stream), token);
        let responses = soon(client.delta_aggregated_resources(request)).await?.into_inner();
        Ok(Self { requests, responses })
    }

    async fn send(&self, request: DeltaDiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }

    async fn next(&mut self) -> Result<DeltaDiscoveryResponse, tonic::Status> {
        soon(self.responses.message()).await.map(|response| response.expect("the stream is open"))
    }

    /// The next response, acknowledged; as names sent and names removed.
    async fn names(&mut self) -> (Vec<String>, Vec<String>) {
        let response = self.next().await.unwrap();
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        })
        .await;
        (response.resources.into_iter().map(|r| r.name).collect(), response.removed_resources)
    }
}

/// One SotW stream.
struct SotwClient {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl SotwClient {
    async fn open(channel: Channel, token: Option<&str>, first: DiscoveryRequest) -> Result<Self, tonic::Status> {
        let (requests, stream) = mpsc::channel(16);
        requests.send(first).await.unwrap();
        let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(16 << 20);
        let request = with_token(ReceiverStream::new(stream), token);
        let responses = soon(client.stream_aggregated_resources(request)).await?.into_inner();
        Ok(Self { requests, responses })
    }

    async fn next(&mut self) -> Result<DiscoveryResponse, tonic::Status> {
        soon(self.responses.message()).await.map(|response| response.expect("the stream is open"))
    }

    async fn values(&mut self, ack: bool) -> Vec<String> {
        let response = self.next().await.unwrap();
        if ack {
            let request = DiscoveryRequest {
                type_url: response.type_url.clone(),
                version_info: response.version_info.clone(),
                response_nonce: response.nonce.clone(),
                ..DiscoveryRequest::default()
            };
            self.requests.send(request).await.unwrap();
        }
        response.resources.into_iter().map(|any| String::from_utf8(any.value).unwrap()).collect()
    }
}

fn delta(kind: &TypeUrl, subscribe: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: node("shop", "reviews"),
        type_url: kind.as_str().into(),
        resource_names_subscribe: subscribe.iter().map(|s| (*s).into()).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn sotw(kind: &TypeUrl, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        node: node("shop", "reviews"),
        type_url: kind.as_str().into(),
        resource_names: names.iter().map(|s| (*s).into()).collect(),
        ..DiscoveryRequest::default()
    }
}

/// The states of `kind` over all connected clients.
fn types(status: &Status, kind: &TypeUrl) -> Vec<crate::status::report::TypeReport> {
    status.proxies().iter().filter_map(|p| p.state().types.get(kind).cloned()).collect()
}
