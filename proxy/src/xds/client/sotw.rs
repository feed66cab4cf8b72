//! State of the world: every response and request carries the complete list.

use std::collections::BTreeMap;

use outrigger_wire::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DiscoveryRequest, DiscoveryResponse},
};

use super::{Interest, Interests, Item, Kind, Protocol, Settled, Update, detail};

/// The state of one stream and of what survives it.
#[derive(Debug)]
pub struct Sotw {
    node: Node,
    /// Only the first message of a stream carries the node.
    first: bool,
    types: BTreeMap<Kind, State>,
}

#[derive(Debug, Default)]
struct State {
    interest: Option<Interest>,
    /// Sent on this stream.
    sent: Option<Interest>,
    /// Last accepted version, and the interest it answered.
    version: String,
    covers: Option<Interest>,
    nonce: String,
    /// A verdict not yet sent: `Some(None)` is an ACK.
    reply: Option<Option<String>>,
}

impl Sotw {
    pub fn new(node: Node) -> Self {
        Self { node, first: true, types: BTreeMap::new() }
    }
}

impl Protocol for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn path(kind: Option<Kind>) -> &'static str {
        match kind {
            None => "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
            Some(Kind::Cluster) => "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters",
            Some(Kind::Endpoints) => "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints",
            Some(Kind::Listener) => "/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners",
            Some(Kind::Routes) => "/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes",
            Some(Kind::Secret) => "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
        }
    }

    fn connected(&mut self, _held: BTreeMap<Kind, BTreeMap<String, String>>) {
        self.first = true;
        for state in self.types.values_mut() {
            (state.sent, state.reply) = (None, None);
            state.nonce.clear();
            if state.covers != state.interest {
                // Claiming the version for names that it never answered would let the server keep silent about them.
                state.version.clear();
            }
        }
    }

    fn want(&mut self, interests: &Interests) {
        for (kind, interest) in interests {
            self.types.entry(*kind).or_default().interest = Some(interest.clone());
        }
        for (kind, state) in &mut self.types {
            if !interests.contains_key(kind) && state.interest.is_some() {
                state.interest = Some(Interest::Names(Default::default()));
            }
        }
    }

    fn received(&mut self, response: DiscoveryResponse) -> Result<Update, String> {
        let kind = Kind::from_type_url(&response.type_url)
            .ok_or_else(|| format!("response of type `{}`, which was not asked for", response.type_url))?;
        if self.types.get(&kind).is_none_or(|state| state.sent.is_none()) {
            return Err(format!("unsolicited {kind} response"));
        }
        let items = response.resources.into_iter().map(Item::bare).collect();
        let (version, nonce) = (response.version_info, response.nonce);
        Ok(Update { kind, full: true, version, nonce, items, removed: Vec::new() })
    }

    fn settled(&mut self, update: &Settled, error: Option<String>) {
        let state = self.types.entry(update.kind).or_default();
        state.nonce.clone_from(&update.nonce);
        if error.is_none() {
            state.version.clone_from(&update.version);
            state.covers.clone_from(&state.sent);
        }
        state.reply = Some(error);
    }

    fn next(&mut self) -> Option<DiscoveryRequest> {
        let (kind, state) = self.types.iter_mut().find(|(_, state)| {
            let changed = state.interest != state.sent
                // An empty list on a fresh stream would mean everything.
                && (state.sent.is_some() || state.interest.as_ref().is_some_and(|i| !i.is_empty()));
            state.reply.is_some() || changed
        })?;
        let error_detail = state.reply.take().flatten().map(detail);
        state.sent.clone_from(&state.interest);
        Some(DiscoveryRequest {
            version_info: state.version.clone(),
            node: std::mem::take(&mut self.first).then(|| self.node.clone()),
            resource_names: state.interest.as_ref().map(Interest::names).unwrap_or_default(),
            type_url: kind.type_url().to_owned(),
            response_nonce: state.nonce.clone(),
            error_detail,
            ..DiscoveryRequest::default()
        })
    }
}
