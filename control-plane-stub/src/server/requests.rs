//! Requests of both variants: what they change in a [`Session`]'s subscriptions, and what they say about responses.
//!
//! Pure. Invariant: whatever a peer sends, the state it can make us keep is bounded; a request beyond the bounds ends
//! the stream.

use outrigger_wire::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use tonic::Status;

use super::{
    session::Session,
    subscription::{Held, Reply, Subscription},
    types::TypeUrl,
};

/// Resource types one stream may ask for.
pub(super) const MAX_TYPES: usize = 32;
/// Names one subscription may hold.
pub(super) const MAX_NAMES: usize = 100_000;
/// Longest resource name.
const MAX_NAME: usize = 2048;
/// What all that a client makes one stream remember may take.
pub(super) const MAX_BYTES: usize = 64 << 20;

/// What a request told us besides its subscription.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub kind: TypeUrl,
    pub acked: Option<String>,
    pub nacked: Option<(String, String)>,
    pub stale: bool,
}

impl Session {
    /// Takes in a SotW request.
    pub(super) fn accept_sotw(&mut self, request: &DiscoveryRequest) -> Result<Told, Status> {
        let names = request.resource_names.iter().map(String::as_str);
        let (kind, first, subscription) = self.subscription(&request.type_url, names.clone())?;
        let reply = if first {
            Reply::None
        } else {
            subscription.reply(&request.response_nonce, request.error_detail.is_some(), true)
        };
        let error = request.error_detail.as_ref().map(|e| e.message.as_str());
        // A request that answers an outdated response is outdated itself; the client repeats its names with the
        // answer to the newest. The newest nonce once more, though, is a plain change of subscription.
        if !first && !request.response_nonce.is_empty() && request.response_nonce != subscription.nonce {
            return Ok(told(kind, reply, error));
        }
        let star = request.resource_names.iter().any(|n| n == "*");
        let before = (subscription.wildcard, std::mem::take(&mut subscription.names));
        subscription.names = request.resource_names.iter().filter(|n| *n != "*").cloned().collect();
        subscription.named_once |= !request.resource_names.is_empty();
        subscription.wildcard = star || (kind.is_full_state() && !subscription.named_once);
        let grew = (subscription.wildcard && !before.0) || !subscription.names.is_subset(&before.1);
        subscription.retain_wanted();
        if first || grew || reply == Reply::None {
            subscription.owed = true;
            subscription.dirty = true;
        }
        let reply = if reply == Reply::Stale { Reply::None } else { reply };
        if grew || first {
            self.bounded()?;
        }
        Ok(told(kind, reply, error))
    }

    /// Takes in a delta request.
    pub(super) fn accept_delta(&mut self, request: &DeltaDiscoveryRequest) -> Result<Told, Status> {
        let names = request
            .resource_names_subscribe
            .iter()
            .chain(&request.resource_names_unsubscribe)
            .chain(request.initial_resource_versions.keys());
        let (kind, first, subscription) = self.subscription(&request.type_url, names.map(String::as_str))?;
        let reply = subscription.reply(&request.response_nonce, request.error_detail.is_some(), false);
        if first {
            let versions = &request.initial_resource_versions;
            subscription
                .sent
                .extend(versions.iter().map(|(n, v)| (n.clone(), Held { version: v.as_str().into(), body: None })));
            subscription.wildcard = request.resource_names_subscribe.is_empty() && kind.is_full_state();
            subscription.owed = true;
        }
        for name in &request.resource_names_subscribe {
            if name == "*" {
                subscription.owed |= !subscription.wildcard;
                subscription.wildcard = true;
                continue;
            }
            subscription.names.insert(name.clone());
            subscription.known_absent.remove(name);
            // Asking again for what one has means: send it again. Not so the names a new stream begins with.
            if !first && subscription.sent.contains_key(name) {
                subscription.resend.insert(name.clone());
            }
        }
        for name in &request.resource_names_unsubscribe {
            if name == "*" {
                subscription.wildcard = false;
                continue;
            }
            let held = subscription.sent.contains_key(name);
            if subscription.names.remove(name) || !subscription.wildcard {
                subscription.forget(name);
            }
            // Still covered by the wildcard: the client has dropped it and must hear of it again. Names it never had
            // are not worth remembering.
            if subscription.wildcard && held {
                subscription.sent.insert(name.clone(), Held { version: "".into(), body: None });
            }
        }
        if subscription.names.len() > MAX_NAMES {
            return Err(too_many());
        }
        subscription.retain_wanted();
        let changed =
            !request.resource_names_subscribe.is_empty() || !request.resource_names_unsubscribe.is_empty() || first;
        subscription.dirty |= changed;
        if changed {
            self.bounded()?;
        }
        if first && kind == TypeUrl::Endpoints {
            let warm: Vec<String> = self.warming.iter().cloned().collect();
            if let Some(subscription) = self.subscriptions.get_mut(&kind) {
                subscription.resend.extend(warm.into_iter().filter(|name| subscription.names.contains(name)));
            }
        }
        Ok(told(kind, reply, request.error_detail.as_ref().map(|e| e.message.as_str())))
    }

    /// Refuses more than one stream may make us remember, over all its types.
    fn bounded(&self) -> Result<(), Status> {
        let bytes: usize = self.subscriptions.values().map(Subscription::claimed_bytes).sum();
        if bytes > MAX_BYTES {
            return Err(Status::resource_exhausted(format!(
                "the names on one stream take more than {MAX_BYTES} bytes"
            )));
        }
        Ok(())
    }

    /// Finds or makes the subscription and checks the request's size.
    fn subscription<'a>(
        &mut self,
        url: &str,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<(TypeUrl, bool, &mut Subscription), Status> {
        let kind = TypeUrl::parse(url).ok_or_else(|| Status::invalid_argument("type_url is missing or too long"))?;
        let mut count = 0;
        for name in names {
            count += 1;
            if name.is_empty() || name.len() > MAX_NAME {
                return Err(Status::invalid_argument(format!("a resource name must have 1 to {MAX_NAME} bytes")));
            }
        }
        if count > MAX_NAMES {
            return Err(too_many());
        }
        let first = !self.subscriptions.contains_key(&kind);
        if first && self.subscriptions.len() >= MAX_TYPES {
            return Err(Status::resource_exhausted("too many resource types on one stream"));
        }
        let subscription = self.subscriptions.entry(kind.clone()).or_default();
        Ok((kind, first, subscription))
    }
}

fn told(kind: TypeUrl, reply: Reply, error: Option<&str>) -> Told {
    let mut told = Told { kind, acked: None, nacked: None, stale: false };
    match reply {
        Reply::Ack(version) => told.acked = Some(version),
        Reply::Nack(version) => told.nacked = Some((version, error.unwrap_or_default().to_owned())),
        Reply::Stale => told.stale = true,
        Reply::None => {}
    }
    told
}

fn too_many() -> Status {
    Status::resource_exhausted(format!("more than {MAX_NAMES} resource names in one subscription"))
}
