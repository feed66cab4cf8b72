//! Moving bytes between TCP sockets inside the kernel, through pipes pooled per worker.
//!
//! Owns the pipes and the meaning of `splice`'s errors. Needs no `unsafe`: the calls are nix's. Invariant: a pipe in
//! the pool is empty, so no byte of one connection can surface in another.
//!
//! A pipe begins at the system's default size and grows once it was half full (its slots may run out before its bytes):
//! each call costs a trip through the TCP stack, so bulk wants few and large ones. Pipe memory is accounted per user, for all proxies of a node
//! together, so few pipes of one process may be large.

use std::{
    cell::RefCell,
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice},
    unistd::{pipe2, read},
};
use tokio::{io::Interest, net::TcpStream};

/// What an unprivileged process may ask for, unless the system says otherwise.
const LARGE: usize = 1024 * 1024;
/// Most large pipes of this process: a quarter of what the kernel gives all processes of a user.
const MOST_LARGE: usize = 16;
/// A user who used up the pipe memory gets pipes below this: copying is cheaper.
const LEAST: usize = 32 * 1024;
const POOLED: usize = 16;

static LARGE_PIPES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static POOL: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A pipe and the number of bytes in it.
#[derive(Debug)]
pub(super) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    size: usize,
    held: usize,
    growth: Growth,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Growth {
    /// Was never half full.
    Unneeded,
    /// Was half full: larger next time.
    Wanted,
    /// One of [`LARGE_PIPES`].
    Done,
    Refused,
}

/// What a `splice` call did.
#[derive(Debug)]
pub(super) enum Spliced {
    Moved(usize),
    WouldBlock,
    /// This pair of descriptors cannot be spliced; copying works.
    Unsupported,
    Failed(io::Error),
}

impl Pipe {
    /// An empty pipe, `None` when there is none to be had (out of descriptors, or of the user's pipe memory): then bytes
    /// are copied.
    pub(super) fn take() -> Option<Self> {
        if let Some(pipe) = POOL.with_borrow_mut(Vec::pop) {
            return Some(pipe);
        }
        let (reader, writer) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).ok()?;
        let size = fcntl(&writer, FcntlArg::F_GETPIPE_SZ).ok().and_then(|n| usize::try_from(n).ok())?;
        (size >= LEAST).then_some(Self { reader, writer, size, held: 0, growth: Growth::Unneeded })
    }

    fn grow(&mut self) {
        self.growth = Growth::Refused;
        if LARGE_PIPES.fetch_add(1, Relaxed) < MOST_LARGE
            && let Ok(size) = fcntl(&self.writer, FcntlArg::F_SETPIPE_SZ(LARGE as i32))
        {
            self.size = usize::try_from(size).unwrap_or(self.size);
            self.growth = Growth::Done;
        } else {
            LARGE_PIPES.fetch_sub(1, Relaxed);
        }
    }

    /// Returns an empty pipe to the pool; one with bytes in it is closed.
    pub(super) fn give_back(self) {
        if self.held > 0 {
            return;
        }
        POOL.with_borrow_mut(|pool| {
            if pool.len() < POOLED {
                pool.push(self);
            }
        });
    }

    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Moves at most `limit` bytes from the socket into the (empty) pipe. `Moved(0)` is the end of the stream.
    pub(super) fn fill(&mut self, source: &TcpStream, limit: usize) -> Spliced {
        debug_assert_eq!(self.held, 0, "with bytes in the pipe EAGAIN would not say which end blocks");
        if self.growth == Growth::Wanted {
            self.grow();
        }
        let len = limit.min(self.size);
        let result = source.try_io(Interest::READABLE, || Ok(splice(source, None, &self.writer, None, len, flags())?));
        let outcome = classify(result);
        if let Spliced::Moved(n) = outcome {
            self.held = n;
            if n >= self.size / 2 && self.growth == Growth::Unneeded {
                self.growth = Growth::Wanted;
            }
        }
        outcome
    }

    /// Moves bytes from the pipe into the socket.
    pub(super) fn drain(&mut self, target: &TcpStream) -> Spliced {
        let result =
            target.try_io(Interest::WRITABLE, || Ok(splice(&self.reader, None, target, None, self.held, flags())?));
        let outcome = classify(result);
        if let Spliced::Moved(n) = outcome {
            self.held = self.held.saturating_sub(n);
        }
        outcome
    }

    /// Reads bytes of the pipe back into memory, when the target turned out not to take them.
    pub(super) fn recover(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = read(&self.reader, buffer)?;
        self.held = self.held.saturating_sub(n);
        Ok(n)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if self.growth == Growth::Done {
            LARGE_PIPES.fetch_sub(1, Relaxed);
        }
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}

fn classify(result: io::Result<usize>) -> Spliced {
    match result {
        Ok(n) => Spliced::Moved(n),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Spliced::WouldBlock,
        Err(e) => match e.raw_os_error().map(Errno::from_raw) {
            // EPERM: a seccomp profile without splice.
            Some(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EPERM) => Spliced::Unsupported,
            _ => Spliced::Failed(e),
        },
    }
}

#[cfg(test)]
mod tests;
