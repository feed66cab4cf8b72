//! The two xDS protocols as state machines ([`sotw`], [`delta`]) and the thin shell that runs one on a gRPC stream.
//!
//! The machines know messages and nonces, not sockets, clocks or what a resource means. The invariant: one request in
//! flight per type and cause, complete name lists, an ACK only after the verdict of the store.

pub mod backoff;
pub mod delta;
pub mod grpc;
pub mod sotw;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod transport;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use outrigger_wire::pb::google::{protobuf::Any, rpc};

use super::kind::Kind;
use crate::ir::Name;

/// What a stream shall be subscribed to, per type.
pub type Interests = BTreeMap<Kind, Interest>;

/// What is asked for of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interest {
    Wildcard,
    /// Shared, and the same set as long as nothing changes: comparing it costs nothing then.
    Names(Arc<BTreeSet<Name>>),
}

impl Interest {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Names(names) if names.is_empty())
    }

    fn names(&self) -> Vec<String> {
        match self {
            Self::Wildcard => Vec::new(),
            Self::Names(names) => names.iter().map(|n| n.to_string()).collect(),
        }
    }
}

/// What a response says, in one form for both protocols and for files.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    pub kind: Kind,
    /// State of the world: what a wildcard response leaves out is removed.
    pub full: bool,
    pub version: String,
    pub nonce: String,
    pub items: Vec<Item>,
    pub removed: Vec<String>,
}

/// One delivered resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Empty when only the content names it.
    pub name: String,
    pub version: String,
    /// Missing in a heartbeat.
    pub body: Option<Any>,
    pub ttl: Option<Duration>,
    /// It could not even be read; the reason.
    pub error: Option<String>,
}

impl Item {
    /// A resource as SotW responses and files carry it.
    pub fn bare(body: Any) -> Self {
        Self { name: String::new(), version: String::new(), body: Some(body), ttl: None, error: None }
    }
}

/// A protocol state machine.
pub trait Protocol: Send + 'static {
    type Request: prost::Message + Default + Send + Sync + 'static;
    type Response: prost::Message + Default + Send + Sync + 'static;

    /// The gRPC path of the aggregated method (`None`) or of a type's own service.
    fn path(kind: Option<Kind>) -> &'static str;

    /// A new stream; `held` are the resource versions we have. Whatever was said on the old stream is void.
    fn connected(&mut self, held: BTreeMap<Kind, BTreeMap<String, String>>);

    /// From now on subscribe to exactly this.
    fn want(&mut self, interests: &Interests);

    /// A response arrived. `Err` says why it is ignored.
    fn received(&mut self, response: Self::Response) -> Result<Update, String>;

    /// The store has judged an update: acknowledge, or refuse with this text.
    fn settled(&mut self, update: &Settled, error: Option<String>);

    /// The next message to send, if any.
    fn next(&mut self) -> Option<Self::Request>;
}

/// The identity of a judged update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    pub kind: Kind,
    pub version: String,
    pub nonce: String,
}

/// Longest error text sent in a NACK; servers bound header and message sizes.
const MAX_DETAIL: usize = 16 << 10;

fn detail(mut error: String) -> rpc::Status {
    if error.len() > MAX_DETAIL {
        let end = (0..=MAX_DETAIL).rev().find(|i| error.is_char_boundary(*i)).unwrap_or(0);
        error.truncate(end);
        error.push_str(" ...");
    }
    // INVALID_ARGUMENT, as Envoy answers.
    rpc::Status { code: 3, message: error, details: Vec::new() }
}
