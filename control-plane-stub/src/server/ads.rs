//! `AggregatedDiscoveryService`: admits a stream (authentication, node, limits) and hands it to [`Stream`].

use std::{sync::Arc, time::SystemTime};

use outrigger_wire::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    aggregated_discovery_service_server::AggregatedDiscoveryService,
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Duration, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Shared, node,
    shares::Share,
    stream::{Delta, Dialect, Sotw, Stream},
};
use crate::auth::{Caller, Identity, caller::Connection};

/// A client that opens a stream must say who it is soon.
const FIRST_REQUEST: Duration = Duration::from_secs(30);

/// What a stream takes from others while it lives.
struct Place {
    _permit: OwnedSemaphorePermit,
    _share: Option<Share<Identity>>,
}

/// The tonic face of the server.
pub(super) struct Ads(pub Arc<Shared>);

type Responses<T> = ReceiverStream<Result<T, Status>>;

impl Ads {
    /// Checks that need no message: credentials and the number of streams.
    fn admit<T>(&self, request: &Request<T>) -> Result<(Connection, Option<Caller>, Place), Status> {
        let connection = request
            .extensions()
            .get::<Connection>()
            .cloned()
            .ok_or_else(|| Status::internal("the listener left no connection information"))?;
        let caller = self.0.authenticator.authenticate(&connection, request.metadata(), SystemTime::now())?;
        let permit = Arc::clone(&self.0.streams)
            .try_acquire_owned()
            .map_err(|_| Status::resource_exhausted("too many streams; try again later"))?;
        let share = caller.as_ref().map(|caller| {
            let share = self.0.identities.take(caller.identity.clone());
            share.ok_or_else(|| Status::resource_exhausted("too many streams of this identity; try again later"))
        });
        Ok((connection, caller, Place { _permit: permit, _share: share.transpose()? }))
    }

    fn open<D: Dialect>(
        &self,
        request: Request<Streaming<D::Request>>,
    ) -> Result<Response<Responses<D::Response>>, Status> {
        let (connection, caller, place) = self.admit(&request).inspect_err(|status| {
            self.0.metrics.stream_refused();
            tracing::warn!(code = ?status.code(), reason = ?status.message(), "stream refused");
        })?;
        let inbound = request.into_inner();
        let (outbound, responses) = mpsc::channel(1);
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move {
            let _place = place;
            if let Err(status) = begin::<D>(&shared, connection, caller, inbound, outbound.clone()).await {
                shared.metrics.stream_refused();
                tracing::warn!(code = ?status.code(), reason = ?status.message(), "stream refused");
                let _ = timeout(FIRST_REQUEST, outbound.send(Err(status))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

/// Reads the first request, learns the node, runs the stream.
async fn begin<D: Dialect>(
    shared: &Arc<Shared>,
    connection: Connection,
    caller: Option<Caller>,
    mut inbound: Streaming<D::Request>,
    outbound: mpsc::Sender<Result<D::Response, Status>>,
) -> Result<(), Status> {
    let first = tokio::select! {
        first = timeout(FIRST_REQUEST, inbound.message()) => first,
        () = shared.shutdown.cancelled() => return Err(Status::unavailable("the control plane is shutting down")),
    };
    let first = match first {
        Err(_) => return Err(Status::deadline_exceeded("no request came")),
        Ok(Ok(None) | Err(_)) => return Ok(()),
        Ok(Ok(Some(first))) => first,
    };
    let wire = D::node(&first).ok_or_else(|| Status::invalid_argument("the first request must carry a node"))?;
    let caller = match caller {
        None if shared.plaintext_identity => Some(node::claimed(wire, &shared.trust_domain)?),
        caller => caller,
    };
    let node = node::read(wire, caller.as_ref())?;
    let connected = shared.status.connect(node.clone(), connection.peer, caller.clone(), D::NAME);
    let stream = Stream::<D> { shared: Arc::clone(shared), node, caller, connected, inbound, outbound };
    stream.run(first).await;
    Ok(())
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.open::<Sotw>(request)
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.open::<Delta>(request)
    }
}
