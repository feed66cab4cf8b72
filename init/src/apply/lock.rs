//! One writer per network namespace.
//!
//! Owns the mutual exclusion between runs of outrigger-init. An abstract unix socket is the lock: its names belong to
//! the network namespace, exactly like the rules it guards, it needs no writable file system, and the kernel frees it
//! with the process.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crate::error::Error;

const NAME: &[u8] = b"outrigger-init/rules";
const PATIENCE: Duration = Duration::from_secs(30);

/// Held while rules are read and changed, and while a check has its temporary interface.
pub(crate) struct Lock {
    _socket: UnixDatagram,
}

impl Lock {
    /// Waits for a run in progress, within reason.
    pub(crate) fn take() -> Result<Self, Error> {
        let address = SocketAddr::from_abstract_name(NAME).map_err(Error::io("cannot name the lock"))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match UnixDatagram::bind_addr(&address) {
                Ok(socket) => return Ok(Self { _socket: socket }),
                Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(Error::Locked(PATIENCE.as_secs())),
                Err(error) => return Err(Error::io("cannot take the lock")(error)),
            }
        }
    }
}
