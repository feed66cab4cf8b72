//! The last good configuration on disk, for a start while the control plane is away.
//!
//! [`format`] says what a file looks like, [`disk`] reads and replaces it, [`owner`] says for whom it is, [`awaited`] what
//! control planes said, [`keeper`] decides when. What is read goes through the same decoding and warming as what a control
//! plane sends. The invariants: no key and no secret is ever written, a file is used as a whole or not at all, and what
//! came from disk never replaces what a control plane said.

mod awaited;
mod disk;
mod format;
mod keeper;
#[cfg(test)]
mod keeper_tests;
mod owner;
mod secrecy;
#[cfg(test)]
mod secrecy_tests;
#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

pub(super) use self::{
    disk::load,
    keeper::{Change, Keeper},
    owner::Owner,
};
use super::{kind::Kind, store::Kept};

/// Where the last good configuration is kept, and under which conditions it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedConfig {
    pub dir: PathBuf,
    /// An older file is not used.
    pub max_age: Duration,
    /// How long the control plane has to deliver before the file is used; less if its stream fails again and again.
    pub patience: Duration,
}

/// What `/ready`, `/server_info` and the statistics say of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SavedStatus {
    /// When a control plane last confirmed what is in force; `None` unless it came from disk.
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

/// What a file holds, checked.
#[derive(Debug)]
pub(super) struct Restorable {
    pub(super) last_word: SystemTime,
    /// By type, in the order of [`KINDS`].
    pub(super) kept: [Vec<Kept>; KINDS.len()],
}

/// What others depend on comes first, which is the order of use. Secrets are not kept.
pub(super) const KINDS: [Kind; 4] = [Kind::Cluster, Kind::Endpoints, Kind::Listener, Kind::Routes];

/// How many resources a kept file holds for a node (its id and cluster, and nothing else known of it), or why it must not
/// be used at `now`.
pub fn read(file: &[u8], node: (&str, &str), max_age: Duration, now: SystemTime) -> Result<usize, String> {
    let owner = Owner { id: node.0.to_owned(), cluster: node.1.to_owned(), digest: Vec::new() };
    let restorable = format::read(file, &owner, max_age, now, super::decode::resource)?;
    Ok(restorable.kept.iter().map(Vec::len).sum())
}
