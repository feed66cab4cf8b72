//! A control plane as small as one can be: delta ADS for endpoints only, for whatever was put into it.

use std::{
    collections::HashMap,
    net::TcpListener,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::{Stream, StreamExt};
use outrigger_wire::{
    pack_any,
    pb::envoy::{
        config::endpoint::v3::ClusterLoadAssignment,
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
            aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
        },
    },
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};

const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// The control plane; ended by drop.
pub(crate) struct Ads {
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    resources: Mutex<HashMap<String, Resource>>,
    streams: Mutex<Vec<mpsc::UnboundedSender<Resource>>>,
    version: AtomicU64,
    acknowledged: AtomicU64,
    refused: Mutex<Option<String>>,
}

impl Ads {
    pub(crate) fn start(listener: TcpListener) -> anyhow::Result<Self> {
        listener.set_nonblocking(true)?;
        let state = Arc::new(State::default());
        let (stop, stopped) = oneshot::channel();
        let service = AggregatedDiscoveryServiceServer::new(Discovery(state.clone()));
        let runtime = super::runtime()?;
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                let server = tonic::transport::Server::builder().tcp_nodelay(true).add_service(service);
                tokio::select! {
                    _ = server.serve_with_incoming(TcpListenerStream::new(listener)) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { state, stop: Some(stop), thread: Some(thread) })
    }

    /// Sets the endpoints of a cluster and tells everyone who is connected.
    pub(crate) fn put(&self, assignment: &ClusterLoadAssignment) {
        let version = self.state.version.fetch_add(1, Ordering::Relaxed);
        let resource = Resource {
            name: assignment.cluster_name.clone(),
            version: version.to_string(),
            resource: Some(pack_any(assignment.clone())),
            ..Default::default()
        };
        lock(&self.state.resources).insert(resource.name.clone(), resource.clone());
        lock(&self.state.streams).retain(|stream| stream.send(resource.clone()).is_ok());
    }

    /// Responses that were acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.state.acknowledged.load(Ordering::Relaxed)
    }

    /// The reason of the first refusal, if there was one.
    pub(crate) fn refused(&self) -> Option<String> {
        lock(&self.state.refused).clone()
    }
}

impl Drop for Ads {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Discovery(Arc<State>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("the bench's control plane speaks delta"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (answers, out) = mpsc::channel(64);
        tokio::spawn(converse(self.0.clone(), request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(out))))
    }
}

async fn converse(
    state: Arc<State>,
    mut requests: Streaming<DeltaDiscoveryRequest>,
    answers: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
) {
    let (updates, news) = mpsc::unbounded_channel();
    lock(&state.streams).push(updates);
    let mut news = UnboundedReceiverStream::new(news);
    let mut nonce = 0u64;
    loop {
        let resources = tokio::select! {
            request = requests.next() => {
                let Some(Ok(request)) = request else { return };
                match request.error_detail {
                    Some(error) => drop(lock(&state.refused).get_or_insert(error.message)),
                    None if !request.response_nonce.is_empty() => drop(state.acknowledged.fetch_add(1, Ordering::Relaxed)),
                    None => {}
                }
                if request.type_url != ENDPOINTS {
                    continue;
                }
                let known = lock(&state.resources);
                request.resource_names_subscribe.iter().filter_map(|name| known.get(name).cloned()).collect()
            }
            resource = news.next() => resource.into_iter().collect::<Vec<_>>(),
        };
        if resources.is_empty() {
            continue;
        }
        nonce += 1;
        let response = DeltaDiscoveryResponse {
            type_url: ENDPOINTS.to_owned(),
            resources,
            nonce: nonce.to_string(),
            system_version_info: nonce.to_string(),
            ..Default::default()
        };
        if answers.send(Ok(response)).await.is_err() {
            return;
        }
    }
}
