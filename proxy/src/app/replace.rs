//! One process takes over from another in the same place: listening sockets change hands, no connection is lost.
//!
//! Whoever serves listens on a Unix socket (mode 0600). A successor connects to it, both look who the other one is,
//! and listening sockets come along with messages. The successor configures itself and, once it is ready, tells the
//! predecessor to stop accepting and to drain. Sockets are the same ones in both processes, so their queues stay: what
//! connects in between is served by one of them. A successor that ends before it is ready has changed nothing.

mod peer;
mod predecessor;
mod successor;
mod wire;

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{net::UnixListener, sync::oneshot};

pub(super) use self::{
    peer::Peers,
    predecessor::Predecessor,
    successor::{Inheritance, Successor},
};
use super::sockets::Offered;
use crate::bootstrap::AdminAddress;

/// Of the messages. Another one is refused.
const VERSION: u64 = 1;

/// Sockets that change hands at most.
const MOST_SOCKETS: usize = 16_384;

/// How long the other side may take for one step that needs no thinking.
const STEP: Duration = Duration::from_secs(20);

/// Sockets of the admin interface and its kin.
pub(super) type Servers = Vec<(AdminAddress, OwnedFd)>;

/// All that changes hands.
pub(super) struct Estate {
    /// How many processes there were before the one that hands over.
    pub(super) epoch: u64,
    pub(super) listeners: Vec<Offered>,
    pub(super) servers: Servers,
}

impl Estate {
    /// The sockets, to be used.
    pub(super) fn take(&mut self) -> (Vec<Offered>, Servers) {
        (std::mem::take(&mut self.listeners), std::mem::take(&mut self.servers))
    }
}

/// What a successor wants of the control loop.
pub(super) enum Ask {
    /// The sockets, or why there are none.
    Offer(oneshot::Sender<Result<Estate, String>>),
    /// It is gone without having taken over.
    Withdrawn,
    /// It serves: stop accepting, drain for so long at most. Answered when nothing is accepted any more.
    TakeOver { drain: Duration, done: oneshot::Sender<()> },
}

/// Listens at `path` in place of whoever did. Another file than a socket is not ours to replace.
fn listen(path: &Path) -> io::Result<(UnixListener, u64)> {
    if fs::symlink_metadata(path).is_ok_and(|file| !file.file_type().is_socket()) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something else than a socket"));
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let _ = fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside)?;
    // Under its own name only once nobody else may use it, and without a moment in which there is none.
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
    let inode = fs::symlink_metadata(&beside)?.ino();
    fs::rename(&beside, path)?;
    Ok((listener, inode))
}

#[cfg(test)]
mod tests;
