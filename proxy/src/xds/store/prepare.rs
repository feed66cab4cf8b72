//! First half of an update: naming, comparing and decoding each resource, without changing anything.
//!
//! Apart from `apply` because decoding thousands of resources takes long enough that its caller wants to yield between.

use std::{sync::Arc, time::Duration};

use outrigger_wire::pb::google::protobuf::Any;
use prost::Message;

use super::{
    super::{
        client::Item,
        decode::{Notes, Resource, envelope},
        kind::Kind,
    },
    Origin, Store,
};
use crate::ir::ConfigSource;

/// One resource of an update, judged.
#[derive(Debug)]
pub struct Prepared {
    /// Empty when it could not be read.
    pub name: String,
    pub version: String,
    pub ttl: Option<Duration>,
    pub outcome: Outcome,
}

/// What a delivered resource turned out to be.
#[derive(Debug)]
pub enum Outcome {
    New {
        resource: Resource,
        raw: Arc<[u8]>,
        notes: Notes,
    },
    /// Byte for byte what is held.
    Unchanged,
    /// No content, only a fresh time to live.
    Heartbeat,
    /// Nobody asked for it.
    Unwanted,
    Rejected {
        reason: String,
        raw: Arc<[u8]>,
    },
}

/// Field 1 of every top-level resource is its name; reading only that skips the rest without allocation.
#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

/// Judges one resource that `source` delivered as one of type `kind`.
pub fn prepare(store: &Store, source: &ConfigSource, kind: Kind, item: Item) -> Prepared {
    let Item { mut name, mut version, mut ttl, body, error } = item;
    if let Some(reason) = error {
        return Prepared { name, version, ttl, outcome: Outcome::Rejected { reason, raw: Arc::from([]) } };
    }
    let Some(mut body) = body else {
        return Prepared { name, version, ttl, outcome: Outcome::Heartbeat };
    };
    match envelope(&body) {
        // Only the wrapper message yields an owned resource; a bare one is borrowed and stays where it is.
        Ok(envelope) => {
            if name.is_empty() {
                name = envelope.name;
            }
            if version.is_empty() {
                version = envelope.version;
            }
            ttl = ttl.or(envelope.ttl);
            match envelope.resource {
                None => return Prepared { name, version, ttl, outcome: Outcome::Heartbeat },
                Some(std::borrow::Cow::Owned(inner)) => body = inner,
                Some(std::borrow::Cow::Borrowed(_)) => {}
            }
        }
        Err(reject) => {
            let outcome = Outcome::Rejected { reason: reject.to_string(), raw: body.value.into() };
            return Prepared { name, version, ttl, outcome };
        }
    }
    let outcome = judge(store, source, kind, &mut name, body);
    Prepared { name, version, ttl, outcome }
}

fn judge(store: &Store, source: &ConfigSource, kind: Kind, name: &mut String, body: Any) -> Outcome {
    let rejected = |reason: String, raw: Vec<u8>| Outcome::Rejected { reason, raw: raw.into() };
    if body.type_url != kind.type_url() {
        return rejected(format!("type `{}` in a response of {}", body.type_url, kind.type_url()), body.value);
    }
    match Named::decode(body.value.as_slice()) {
        Ok(named) if name.is_empty() => *name = named.name,
        Ok(named) if named.name != *name => {
            return rejected(format!("delivered as `{name}`, but named `{}`", named.name), body.value);
        }
        Ok(_) => {}
        Err(e) => return rejected(format!("not a valid message: {e}"), body.value),
    }
    if name.is_empty() {
        return rejected("no name".into(), body.value);
    }
    let slot = store.table(kind).get(name.as_str());
    let lingers = slot.is_some_and(|s| s.unwanted.is_some());
    if !kind.is_wildcard() && !lingers && !store.is_wanted(source, kind, name) {
        return Outcome::Unwanted;
    }
    let held = slot.and_then(|s| s.latest.as_ref());
    if held.is_some_and(|v| {
        v.raw.as_deref() == Some(body.value.as_slice()) && matches!(&v.origin, Origin::Source(s) if s == source)
    }) {
        return Outcome::Unchanged;
    }
    if let Some(failure) = slot.and_then(|s| s.failure.as_ref())
        && *failure.raw == *body.value
    {
        return Outcome::Rejected { reason: failure.reason.to_string(), raw: Arc::clone(&failure.raw) };
    }
    let mut notes = Notes::default();
    match (store.decode)(&body, &mut notes) {
        Err(reject) => rejected(reject.to_string(), body.value),
        Ok(resource) if super::kind_of(&resource) != kind || **resource.name() != **name => {
            rejected("decoded to another resource".into(), body.value)
        }
        Ok(resource) => Outcome::New { resource, raw: body.value.into(), notes },
    }
}
