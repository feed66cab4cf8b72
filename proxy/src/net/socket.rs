//! Socket calls: binding, connecting, the original destination, options and limits.
//!
//! Owns every raw socket option of the data path. Knows nothing of configuration beyond plain values. Invariant: an
//! address that leaves this file is canonical, a v4 peer of a dual-stack socket is a v4 address.
#![allow(unsafe_code, reason = "one ioctl, two socket options and received descriptors have no safe wrapper")]

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream};

use crate::ir::listener::Keepalive;

/// The address with a v4-mapped v6 address turned into the v4 one.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// How to bind a listening socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenOptions {
    pub reuse_port: bool,
    /// 0 takes the kernel's maximum.
    pub backlog: u32,
    pub transparent: bool,
    pub freebind: bool,
    pub v6only: bool,
}

/// How to open an outgoing connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectSocketOptions {
    /// Source address; port 0 lets the kernel choose one at connect time.
    pub bind: Option<SocketAddr>,
    pub freebind: bool,
    pub transparent: bool,
    pub keepalive: Option<Keepalive>,
}

/// Where the peer wanted to go before the kernel redirected it; `local`, the socket's (canonical) address, when nothing
/// was redirected.
pub fn original_dst(stream: &TcpStream, local: SocketAddr) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    // A v4 connection on a dual-stack socket has its record under the v4 option.
    let asked = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    match asked {
        Ok(address) => match address.as_socket() {
            Some(address) => Ok(canonical(address)),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "the original destination is not an IP address")),
        },
        // No connection tracking entry, or no connection tracking in this kernel or sandbox: nothing was redirected.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOPROTOOPT | libc::EOPNOTSUPP)) => Ok(local),
        Err(e) => Err(e),
    }
}

/// Binds and listens; the socket is non-blocking. Accepted ones have TCP_NODELAY set, which they inherit.
pub fn bind_listener(addr: SocketAddr, options: &ListenOptions) -> io::Result<std::net::TcpListener> {
    let socket = new_socket(addr)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(options.v6only)?;
    }
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    set_foreign(&socket, addr, options.freebind, options.transparent)?;
    socket.bind(&addr.into())?;
    socket.listen(backlog(options))?;
    Ok(socket.into())
}

/// As `listen` takes it.
fn backlog(options: &ListenOptions) -> i32 {
    match options.backlog {
        0 => i32::MAX,
        n => i32::try_from(n).unwrap_or(i32::MAX),
    }
}

/// An unconnected, possibly bound socket for a connection to `peer`, with TCP_NODELAY set.
pub fn connect_socket(peer: SocketAddr, options: &ConnectSocketOptions) -> io::Result<TcpSocket> {
    let socket = new_socket(peer)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(keepalive) = &options.keepalive {
        socket.set_tcp_keepalive(&keepalive_params(keepalive))?;
    }
    if let Some(source) = options.bind {
        if source.is_ipv4() != peer.is_ipv4() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("source address {source} and peer {peer} are of different families"),
            ));
        }
        set_foreign(&socket, source, options.freebind, options.transparent)?;
        if source.port() == 0 {
            // Defers the choice of the port to connect, so one port serves many destinations. An optimisation only.
            let _ = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true);
        }
        socket.bind(&source.into())?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}

fn new_socket(addr: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))
}

fn set_foreign(socket: &Socket, addr: SocketAddr, freebind: bool, transparent: bool) -> io::Result<()> {
    if freebind {
        if addr.is_ipv4() { socket.set_freebind_v4(true)? } else { socket.set_freebind_v6(true)? }
    }
    if transparent {
        if addr.is_ipv4() { socket.set_ip_transparent_v4(true)? } else { socket.set_ip_transparent_v6(true)? }
    }
    Ok(())
}

fn keepalive_params(keepalive: &Keepalive) -> TcpKeepalive {
    let mut params = TcpKeepalive::new();
    if let Some(time) = keepalive.time {
        params = params.with_time(time);
    }
    if let Some(interval) = keepalive.interval {
        params = params.with_interval(interval);
    }
    if let Some(probes) = keepalive.probes {
        params = params.with_retries(probes);
    }
    params
}

/// Sets TCP_NODELAY.
pub fn set_nodelay(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)
}

/// Switches TCP keepalive on, with the kernel's defaults where the configuration says nothing.
pub fn set_keepalive(stream: &TcpStream, keepalive: &Keepalive) -> io::Result<()> {
    SockRef::from(stream).set_tcp_keepalive(&keepalive_params(keepalive))
}

/// Bytes written to the socket that the peer has not acknowledged yet.
pub fn unacknowledged(stream: &TcpStream) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for the length of the borrow, and TIOCOUTQ (SIOCOUTQ) writes one `int` through
    // the pointer, which points at a live, aligned `c_int`.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Bounds the memory for what the peer of a socket, or of each connection that a listening socket accepts, sends before
/// somebody reads it. The kernel has a least value of its own.
pub fn bound_received(socket: &impl AsFd, bytes: usize) -> io::Result<()> {
    // The kernel doubles what it is told.
    SockRef::from(socket).set_recv_buffer_size(bytes / 2)
}

/// Takes the bound back: from now on the buffer, of `bytes` at first, grows as the kernel sees fit. Linux 5.14.
pub fn unbound_received(socket: &impl AsFd, bytes: usize) -> io::Result<()> {
    /// Which sizes the kernel leaves alone: none.
    const SO_BUF_LOCK: libc::c_int = 72;
    let none: libc::c_int = 0;
    bound_received(socket, bytes)?;
    // SAFETY: the descriptor is open for the length of the borrow, and the kernel reads one live, aligned `c_int` of
    // the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_BUF_LOCK,
            (&raw const none).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How many connections of a listening socket wait to be accepted.
pub fn waiting(listener: &std::net::TcpListener) -> io::Result<u32> {
    /// Of `tcpi_unacked`, which is the length of the queue here, in units of four bytes.
    const UNACKED: usize = 6;
    let mut info = [0u32; 26];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the descriptor is open for the length of the borrow, and the kernel writes at most `length` bytes into
    // the live, aligned array of that size; any bytes make valid integers.
    let result = unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(info[UNACKED]) }
}

/// Descriptors that one message carries at most.
pub const MOST_PASSED: usize = 128;

/// Sends bytes through a Unix socket and with the first of them descriptors, [`MOST_PASSED`] at most. How many bytes
/// were taken.
pub fn send_with(socket: BorrowedFd<'_>, bytes: &[u8], passed: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let passed: Vec<RawFd> = passed.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&passed)];
    let rights = if passed.is_empty() { &[] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    Ok(sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], rights, flags, None)?)
}

/// Receives bytes, and the descriptors that came with them, which no other program inherits.
pub fn receive_with(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    /// The kernel's own bound: none is ever lost for want of room, and left open.
    const SCM_MAX_FD: usize = 253;
    let mut room = nix::cmsg_space!([RawFd; SCM_MAX_FD]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let mut parts = [IoSliceMut::new(bytes)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut room), flags)?;
    let mut passed = Vec::new();
    for rights in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = rights {
            // SAFETY: the kernel made these descriptors for this process in this very call, so nobody else owns them.
            passed.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok((message.bytes, passed))
}

/// Gives a bound socket what of a listener's options may change while it listens.
pub fn reconfigure(listener: &std::net::TcpListener, options: &ListenOptions) -> io::Result<()> {
    let socket = SockRef::from(listener);
    set_foreign(&socket, listener.local_addr()?, options.freebind, options.transparent)?;
    socket.listen(backlog(options))
}

/// Whether the socket listens at this address.
pub fn listens_at(listener: &std::net::TcpListener, address: SocketAddr) -> bool {
    let is_listener = SockRef::from(listener).is_listener().unwrap_or(false);
    is_listener && listener.local_addr().is_ok_and(|bound| bound == address)
}

/// Raises the soft limit of open files to the hard one; returns the limit that now holds.
pub fn raise_fd_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard.max(soft))
}

#[cfg(test)]
mod tests;
