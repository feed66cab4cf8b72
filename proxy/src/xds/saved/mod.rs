//! The last good configuration on disk, for a start while the control plane is away.
//!
//! [`format`] says what a file looks like, [`disk`] reads and replaces it, [`keeper`] decides when. What is read goes
//! through the same decoding and warming as what a control plane sends. The invariants: no key and no secret is ever
//! written, a file is used as a whole or not at all, and what came from disk never replaces what a control plane said.

mod disk;
mod format;
mod keeper;
mod secrecy;
#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

pub(super) use self::{disk::load, keeper::Keeper};
use super::{client::Update, kind::Kind};
use crate::ir::ConfigSource;

/// Where the last good configuration is kept, and under which conditions it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedConfig {
    pub dir: PathBuf,
    /// An older file is not used.
    pub max_age: Duration,
    /// How long the control plane has to deliver before the file is used; less if its stream fails.
    pub patience: Duration,
}

/// What `/ready`, `/server_info` and the statistics say of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SavedStatus {
    /// When what is in force was written; `None` unless it came from disk.
    pub in_force: Option<SystemTime>,
    /// Why the file there was at the start is not used.
    pub refused: Option<String>,
    /// When this process wrote last.
    pub written: Option<SystemTime>,
    /// Something changed that is not written yet.
    pub pending: bool,
    pub writes: u64,
    pub write_failures: u64,
    /// Why the last attempt to write failed, or why nothing may be written.
    pub last_error: Option<String>,
}

/// What a file holds, checked, in the order in which it is to be applied.
#[derive(Debug)]
pub(super) struct Restorable {
    pub(super) written: SystemTime,
    pub(super) updates: Vec<(ConfigSource, Update)>,
}

/// What restored resources have for a version: no control plane has it, so each is sent again and compared.
pub(super) const VERSION: &str = "last-good";

/// What others depend on comes first. Secrets are not kept.
const KINDS: [Kind; 4] = [Kind::Cluster, Kind::Endpoints, Kind::Listener, Kind::Routes];

/// How many resources a kept file holds for a node (its id and cluster), or why it must not be used at `now`.
pub fn read(file: &[u8], node: (&str, &str), max_age: Duration, now: SystemTime) -> Result<usize, String> {
    let owner = format::Owner { id: node.0.to_owned(), cluster: node.1.to_owned() };
    let restorable = format::decode(file, &owner, max_age, now, super::decode::resource)?;
    Ok(restorable.updates.iter().map(|(_, update)| update.items.len()).sum())
}
