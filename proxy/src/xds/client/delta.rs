//! The incremental protocol: only differences travel, each response is answered by its nonce.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use outrigger_wire::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
};

use super::{super::store::ttl, Interest, Interests, Item, Kind, Protocol, Settled, Update, detail};
use crate::ir::Name;

/// The state of one stream and of what survives it.
#[derive(Debug)]
pub struct Delta {
    node: Node,
    first: bool,
    types: BTreeMap<Kind, State>,
}

#[derive(Debug, Default)]
struct State {
    interest: Option<Interest>,
    /// Sent on this stream.
    sent: Option<Interest>,
    /// What we hold, for the first request of a stream.
    held: BTreeMap<String, String>,
    /// Nonce and, for a refusal, the text.
    replies: VecDeque<(String, Option<String>)>,
}

impl Delta {
    pub fn new(node: Node) -> Self {
        Self { node, first: true, types: BTreeMap::new() }
    }
}

impl State {
    /// A subscription change not yet sent: names to add, names to drop.
    fn change(&self) -> Option<(Vec<String>, Vec<String>)> {
        let names = |interest: &Option<Interest>| match interest {
            Some(Interest::Names(names)) => Arc::clone(names),
            _ => Arc::default(),
        };
        let list = |names: Vec<&Name>| names.into_iter().map(|n| n.to_string()).collect();
        match (&self.sent, &self.interest) {
            (None, Some(interest)) => (!interest.is_empty()).then(|| (interest.names(), Vec::new())),
            (sent, interest) if sent == interest => None,
            (sent, interest) => {
                let (old, new) = (names(sent), names(interest));
                Some((list(new.difference(&old).collect()), list(old.difference(&new).collect())))
            }
        }
    }
}

impl Protocol for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn path(kind: Option<Kind>) -> &'static str {
        match kind {
            None => "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
            Some(Kind::Cluster) => "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters",
            Some(Kind::Endpoints) => "/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints",
            Some(Kind::Listener) => "/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners",
            Some(Kind::Routes) => "/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes",
            Some(Kind::Secret) => "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets",
        }
    }

    fn connected(&mut self, mut held: BTreeMap<Kind, BTreeMap<String, String>>) {
        self.first = true;
        for (kind, state) in &mut self.types {
            state.sent = None;
            state.replies.clear();
            state.held = held.remove(kind).unwrap_or_default();
        }
        for (kind, held) in held {
            self.types.entry(kind).or_default().held = held;
        }
    }

    fn want(&mut self, interests: &Interests) {
        for (kind, interest) in interests {
            self.types.entry(*kind).or_default().interest = Some(interest.clone());
        }
        for (kind, state) in &mut self.types {
            if !interests.contains_key(kind) && state.interest.is_some() {
                state.interest = Some(Interest::Names(Arc::default()));
            }
        }
    }

    fn received(&mut self, response: DeltaDiscoveryResponse) -> Result<Update, String> {
        let kind = Kind::from_type_url(&response.type_url)
            .ok_or_else(|| format!("response of type `{}`, which was not asked for", response.type_url))?;
        if self.types.get(&kind).is_none_or(|state| state.sent.is_none()) {
            return Err(format!("unsolicited {kind} response"));
        }
        let item = |r: outrigger_wire::pb::envoy::service::discovery::v3::Resource| Item {
            name: r.name,
            version: r.version,
            body: r.resource,
            ttl: r.ttl.as_ref().and_then(ttl),
            error: None,
        };
        let items = response.resources.into_iter().map(item).collect();
        let removed = response.removed_resources;
        let (version, nonce) = (response.system_version_info, response.nonce);
        Ok(Update { kind, full: false, version, nonce, items, removed })
    }

    fn settled(&mut self, update: &Settled, error: Option<String>) {
        self.types.entry(update.kind).or_default().replies.push_back((update.nonce.clone(), error));
    }

    fn next(&mut self) -> Option<DeltaDiscoveryRequest> {
        let (kind, state) = self.types.iter_mut().find(|(_, s)| !s.replies.is_empty() || s.change().is_some())?;
        let mut request = DeltaDiscoveryRequest {
            node: std::mem::take(&mut self.first).then(|| self.node.clone()),
            type_url: kind.type_url().to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        // Apart from subscription changes: a server drops a reply whose nonce has become stale, with all it carries.
        if let Some((nonce, error)) = state.replies.pop_front() {
            request.response_nonce = nonce;
            request.error_detail = error.map(detail);
            return Some(request);
        }
        let (subscribe, unsubscribe) = state.change()?;
        if state.sent.is_none() {
            let wanted = |name: &str| match &state.interest {
                Some(Interest::Names(names)) => names.contains(name),
                _ => true,
            };
            let held = std::mem::take(&mut state.held);
            request.initial_resource_versions = held.into_iter().filter(|(name, _)| wanted(name)).collect();
        }
        request.resource_names_subscribe = subscribe;
        request.resource_names_unsubscribe = unsubscribe;
        state.sent.clone_from(&state.interest);
        Some(request)
    }
}
