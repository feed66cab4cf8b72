//! One resource type on one stream: what the client asked for, what it was sent, what it said to it.
//!
//! Pure state, no I/O. Invariant: `sent` is exactly what the client holds if it accepted everything, so a
//! difference to the world is exactly what must be pushed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use outrigger_wire::pb::google::protobuf::Any;

use super::source::{Set, Versioned, version_of_set};

/// Responses remembered until they are acknowledged; older ones count as lost.
const MAX_IN_FLIGHT: usize = 64;

/// What an entry takes beside its text.
const ENTRY: usize = 64;

/// A resource the client has. The body is unknown if the client brought it from an earlier stream.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub version: Arc<str>,
    pub body: Option<Arc<Any>>,
}

#[derive(Debug)]
struct InFlight {
    nonce: String,
    version: String,
    names: Vec<String>,
}

/// What a request's nonce said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Accepts the response with this version.
    Ack(String),
    /// Refuses it.
    Nack(String),
    /// Belongs to no response of ours that is still waiting.
    Stale,
    /// Carries no nonce.
    None,
}

/// Whether the client stands where it was last told to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Waiting,
    Accepted,
    Refused,
}

/// What must change on the client's side.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub changed: Vec<(String, Versioned)>,
    /// Held by the client, no longer in the world.
    pub gone: Vec<String>,
    /// Asked for by name, never existed, and the client does not know yet.
    pub absent: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Subscription {
    pub wildcard: bool,
    pub names: BTreeSet<String>,
    /// The client has named resources at least once: from then on an empty SotW list means nothing, not everything.
    pub named_once: bool,
    pub sent: BTreeMap<String, Held>,
    /// Send again even though the client holds this version.
    pub resend: BTreeSet<String>,
    /// Names the client knows not to exist (delta).
    pub known_absent: BTreeSet<String>,
    /// A response is owed even if it is empty.
    pub owed: bool,
    /// The world or the subscription changed since the last look.
    pub dirty: bool,
    /// Nonce of the latest response; empty before the first.
    pub nonce: String,
    in_flight: VecDeque<InFlight>,
    refused: BTreeSet<String>,
}

impl Subscription {
    pub(super) fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// About what is remembered of what the client says: names and versions that need not be of this world.
    pub(super) fn claimed_bytes(&self) -> usize {
        let names = self.names.iter().chain(&self.resend).chain(&self.known_absent).chain(&self.refused);
        let brought = self.sent.iter().filter(|(_, held)| held.body.is_none());
        names.map(|name| name.len() + ENTRY).sum::<usize>()
            + brought.map(|(name, held)| name.len() + held.version.len() + 2 * ENTRY).sum::<usize>()
    }

    /// Forgets everything about `name` that the client no longer holds.
    pub(super) fn forget(&mut self, name: &str) {
        self.sent.remove(name);
        self.resend.remove(name);
        self.known_absent.remove(name);
        self.refused.remove(name);
    }

    /// Drops what is held but no longer asked for.
    pub(super) fn retain_wanted(&mut self) {
        let (wildcard, names) = (self.wildcard, &self.names);
        let wanted = |name: &String| wildcard || names.contains(name);
        self.sent.retain(|name, _| wanted(name));
        self.resend.retain(&wanted);
        self.known_absent.retain(|name| names.contains(name));
        self.refused.retain(&wanted);
    }

    pub(super) fn difference(&self, set: &Set) -> Difference {
        let mut difference = Difference::default();
        let mut look = |name: &String, versioned: &Versioned| {
            let same = self.sent.get(name).is_some_and(|held| held.version == versioned.version);
            if !same || self.resend.contains(name) {
                difference.changed.push((name.clone(), versioned.clone()));
            }
        };
        if self.wildcard {
            set.iter().for_each(|(name, versioned)| look(name, versioned));
        } else {
            for name in &self.names {
                if let Some(versioned) = set.get(name) {
                    look(name, versioned);
                }
            }
        }
        difference.gone = self.sent.keys().filter(|name| !set.contains_key(*name)).cloned().collect();
        difference.absent = self
            .names
            .iter()
            .filter(|n| !set.contains_key(*n) && !self.sent.contains_key(*n) && !self.known_absent.contains(*n))
            .cloned()
            .collect();
        difference
    }

    /// Everything asked for that exists.
    pub(super) fn wanted(&self, set: &Set) -> Vec<(String, Versioned)> {
        let take = |(name, versioned): (&String, &Versioned)| (name.clone(), versioned.clone());
        if self.wildcard {
            set.iter().map(take).collect()
        } else {
            self.names.iter().filter_map(|name| set.get_key_value(name)).map(take).collect()
        }
    }

    /// Version of all the client holds.
    pub(super) fn version(&self) -> String {
        version_of_set(self.sent.iter().map(|(name, held)| (name.as_str(), &*held.version)))
    }

    /// Notes that a response left.
    pub(super) fn responded(&mut self, nonce: String, version: String, names: Vec<String>) {
        if self.in_flight.len() == MAX_IN_FLIGHT {
            self.in_flight.pop_front();
        }
        self.nonce.clone_from(&nonce);
        self.in_flight.push_back(InFlight { nonce, version, names });
        self.owed = false;
    }

    /// Reads the acknowledgement in a request. One of a later response covers the earlier ones only if `cumulative`.
    pub(super) fn reply(&mut self, nonce: &str, error: bool, cumulative: bool) -> Reply {
        if nonce.is_empty() {
            return Reply::None;
        }
        let Some(index) = self.in_flight.iter().position(|r| r.nonce == nonce) else { return Reply::Stale };
        if cumulative {
            self.in_flight.drain(..index);
        }
        let index = if cumulative { 0 } else { index };
        let Some(response) = self.in_flight.remove(index) else { return Reply::Stale };
        if error {
            self.refused.extend(response.names);
            // An error about a response that named nothing is still a refusal.
            if self.refused.is_empty() {
                self.refused.insert(String::new());
            }
            return Reply::Nack(response.version);
        }
        if cumulative {
            self.refused.clear();
        } else {
            self.refused.remove("");
            for name in &response.names {
                self.refused.remove(name);
            }
        }
        Reply::Ack(response.version)
    }

    /// The names of refused responses that no accepted one held since.
    pub(super) fn refused(&self) -> impl Iterator<Item = &String> {
        self.refused.iter()
    }

    pub(super) fn is_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    pub(super) fn standing(&self) -> Standing {
        if !self.in_flight.is_empty() {
            Standing::Waiting
        } else if self.refused.is_empty() {
            Standing::Accepted
        } else {
            Standing::Refused
        }
    }
}
