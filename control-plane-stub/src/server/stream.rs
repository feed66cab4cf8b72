//! One ADS stream: feeds a [`Session`] with requests, worlds and secrets, and writes its pushes.
//!
//! Owns time and I/O of the stream. Invariant: at most one response waits in the channel; while the client does not
//! read, newer worlds replace older ones and nothing grows.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use outrigger_wire::pb::envoy::{
    config::core::v3::{ControlPlane, Node as WireNode},
    service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
    },
};
use tokio::{sync::mpsc, time::Instant as TokioInstant};
use tonic::{Status, Streaming};

use super::{
    Shared,
    requests::Told,
    secrets::{DEFAULT, Secrets},
    session::{Push, Session, Variant},
    source::Worlds,
};
use crate::{auth::Caller, resources::Node, status::Connected};

/// What differs between SotW and delta on the wire.
pub(super) trait Dialect: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;
    const VARIANT: Variant;
    const NAME: &'static str;
    fn node(request: &Self::Request) -> Option<&WireNode>;
    fn accept(session: &mut Session, request: &Self::Request) -> Result<Told, Status>;
    fn response(push: Push, server: &str) -> Self::Response;
}

pub(super) struct Sotw;
pub(super) struct Delta;

impl Dialect for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;
    const VARIANT: Variant = Variant::Sotw;
    const NAME: &'static str = "sotw";

    fn node(request: &DiscoveryRequest) -> Option<&WireNode> {
        request.node.as_ref()
    }

    fn accept(session: &mut Session, request: &DiscoveryRequest) -> Result<Told, Status> {
        session.accept_sotw(request)
    }

    fn response(push: Push, server: &str) -> DiscoveryResponse {
        DiscoveryResponse {
            version_info: push.version,
            resources: push.resources.into_iter().map(|(_, versioned)| (*versioned.body).clone()).collect(),
            type_url: push.kind.as_str().to_owned(),
            nonce: push.nonce,
            control_plane: control_plane(server),
            ..DiscoveryResponse::default()
        }
    }
}

impl Dialect for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;
    const VARIANT: Variant = Variant::Delta;
    const NAME: &'static str = "delta";

    fn node(request: &DeltaDiscoveryRequest) -> Option<&WireNode> {
        request.node.as_ref()
    }

    fn accept(session: &mut Session, request: &DeltaDiscoveryRequest) -> Result<Told, Status> {
        session.accept_delta(request)
    }

    fn response(push: Push, server: &str) -> DeltaDiscoveryResponse {
        let resource = |(name, versioned): (String, super::source::Versioned)| Resource {
            name,
            version: versioned.version.to_string(),
            resource: Some((*versioned.body).clone()),
            ..Resource::default()
        };
        DeltaDiscoveryResponse {
            system_version_info: push.version,
            resources: push.resources.into_iter().map(resource).collect(),
            type_url: push.kind.as_str().to_owned(),
            removed_resources: push.removed,
            nonce: push.nonce,
            control_plane: control_plane(server),
            ..DeltaDiscoveryResponse::default()
        }
    }
}

fn control_plane(server: &str) -> Option<ControlPlane> {
    Some(ControlPlane { identifier: server.to_owned() })
}

/// A stream that has been admitted.
pub(super) struct Stream<D: Dialect> {
    pub shared: Arc<Shared>,
    pub node: Node,
    pub caller: Option<Caller>,
    pub connected: Connected,
    pub inbound: Streaming<D::Request>,
    pub outbound: mpsc::Sender<Result<D::Response, Status>>,
}

impl<D: Dialect> Stream<D> {
    /// Runs the stream to its end and tells the client why it ended, if there is something to tell.
    pub(super) async fn run(mut self, first: D::Request) {
        tracing::info!(node = ?self.node.id, variant = D::NAME, peer = %self.connected.proxy.peer, "client connected");
        let end = self.serve(first).await;
        match end {
            Ok(()) => tracing::info!(node = ?self.node.id, "client disconnected"),
            Err(status) => {
                tracing::info!(node = ?self.node.id, code = ?status.code(), reason = ?status.message(), "stream ended");
                // The client may not be reading; it must not keep the stream's memory for that.
                let _ = tokio::time::timeout(Duration::from_secs(1), self.outbound.send(Err(status))).await;
            }
        }
    }

    async fn serve(&mut self, first: D::Request) -> Result<(), Status> {
        let mut session = Session::new(D::VARIANT);
        let identity = self.caller.as_ref().map(|c| c.identity.clone());
        let mut secrets = Secrets::new(Arc::clone(&self.shared.authority), Arc::clone(&self.shared.brake), identity);
        let mut worlds = self.shared.worlds.clone();
        let expires = self.caller.as_ref().and_then(|c| c.expires).map(deadline);
        worlds.mark_changed();
        self.accept(&mut session, &mut secrets, &first)?;
        drop(first);
        // Set once the session has nothing to send; any event may change that.
        let mut idle = false;
        loop {
            let wake = [session.wake_at(Instant::now()).map(TokioInstant::from_std), expires];
            let renew = secrets.renew_at().map(deadline);
            let wake = wake.into_iter().chain([renew]).flatten().min();
            tokio::select! {
                () = self.shared.shutdown.cancelled() => {
                    return Err(Status::unavailable("the control plane is shutting down"));
                }
                request = self.inbound.message() => match request {
                    Ok(Some(request)) => {
                        self.accept(&mut session, &mut secrets, &request)?;
                        idle = false;
                    }
                    // How a client leaves is not our error.
                    Ok(None) | Err(_) => return Ok(()),
                },
                changed = worlds.changed() => {
                    changed.map_err(|_| Status::unavailable("the control plane is shutting down"))?;
                    self.refresh(&mut session, &mut worlds).await?;
                    idle = false;
                }
                permit = self.outbound.reserve(), if !idle => {
                    let Ok(permit) = permit else { return Ok(()) };
                    match session.next(Instant::now()) {
                        Some(push) => {
                            self.note(&push, &session);
                            permit.send(Ok(D::response(push, &self.shared.name)));
                        }
                        None => {
                            idle = true;
                            if session.is_settled() {
                                self.connected.proxy.reached(session.generation());
                            }
                        }
                    }
                }
                () = self.outbound.closed() => return Ok(()),
                () = sleep_until(wake) => {
                    if expires.is_some_and(|at| at <= TokioInstant::now()) {
                        return Err(Status::unauthenticated("the stream's credentials have expired; connect anew"));
                    }
                    self.renew(&mut session, &mut secrets)?;
                    idle = false;
                }
            }
        }
    }

    fn accept(&self, session: &mut Session, secrets: &mut Secrets, request: &D::Request) -> Result<(), Status> {
        let told = D::accept(session, request)?;
        let proxy = &self.connected.proxy;
        proxy.subscribed(&told.kind);
        if told.stale {
            self.shared.metrics.stale_nonce(&told.kind);
        }
        if let Some(version) = &told.acked {
            proxy.acked(&told.kind, version);
        }
        if let Some((version, text)) = &told.nacked {
            self.shared.metrics.nacked(&told.kind);
            proxy.nacked(&told.kind, version, text);
            tracing::warn!(node = ?self.node.id, kind = told.kind.short(), %version, error = ?text, "client refused");
        }
        let (waiting, refused) = session.standing(&told.kind);
        proxy.standing(&told.kind, waiting, refused);
        if told.kind == super::types::TypeUrl::Secret {
            self.renew(session, secrets)?;
        }
        Ok(())
    }

    fn renew(&self, session: &mut Session, secrets: &mut Secrets) -> Result<(), Status> {
        let wants = session.wants_secret(DEFAULT);
        session.set_secrets(secrets.set(wants, SystemTime::now())?);
        Ok(())
    }

    /// Translates the latest world for this client. Whoever waits its turn gets what is latest when the turn comes.
    async fn refresh(&self, session: &mut Session, worlds: &mut Worlds) -> Result<(), Status> {
        let gone = |_| Status::internal("translation was interrupted");
        let turn = Arc::clone(&self.shared.translators).acquire_owned().await.map_err(|_| gone(()))?;
        let Some(generation) = worlds.borrow_and_update().clone() else { return Ok(()) };
        let (node, metrics) = (self.node.clone(), Arc::clone(&self.shared.metrics));
        let snapshot = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            generation.snapshot(&node, &metrics)
        });
        session.set_world(snapshot.await.map_err(|_| gone(()))?);
        Ok(())
    }

    fn note(&self, push: &Push, session: &Session) {
        self.shared.metrics.pushed(&push.kind);
        let proxy = &self.connected.proxy;
        proxy.pushed(&push.kind, &push.version, push.held);
        let (waiting, refused) = session.standing(&push.kind);
        proxy.standing(&push.kind, waiting, refused);
        tracing::debug!(
            node = ?self.node.id, kind = push.kind.short(), version = %push.version, generation = session.generation(),
            resources = push.resources.len(), removed = push.removed.len(), "pushed"
        );
    }
}

fn deadline(at: SystemTime) -> TokioInstant {
    TokioInstant::now() + at.duration_since(SystemTime::now()).unwrap_or_default()
}

async fn sleep_until(at: Option<TokioInstant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
