//! Listening sockets on which captured connections are expected.
//!
//! Owns the temporary listeners and the reading of SO_ORIGINAL_DST. Where the proxy listens already it steps back:
//! then only the acceptance of a connection can be seen. Invariant: what arrives is closed, nothing is ever answered.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::probe::Ended;
use super::report::Status;
use crate::error::Error;
use crate::plan::Family;

/// A port on which captured connections arrive.
pub(super) enum Trap {
    /// We listen ourselves.
    Ours { listener: TcpListener, family: Family },
    /// Somebody listens already, supposedly the proxy.
    Taken,
}

/// A captured connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Arrival {
    peer: SocketAddr,
    original: Option<SocketAddr>,
}

impl Trap {
    /// Listens on the port, on all addresses of the family, unless somebody does.
    pub(super) fn open(family: Family, port: u16) -> Result<Self, Error> {
        match listen(family, port) {
            Ok(listener) => Ok(Self::Ours { listener, family }),
            Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(Self::Taken),
            Err(error) => Err(Error::io(format!("cannot listen on port {port} for {}", family.as_str()))(error)),
        }
    }

    /// Judges an attempt that must have been captured.
    pub(super) fn must_have(&self, to: SocketAddr, ended: &Ended) -> (Status, String) {
        let arrivals = self.arrivals();
        match (self, ended) {
            (_, Ended::NotRun(why)) => (Status::Fail, why.clone()),
            (Self::Ours { .. }, Ended::Connected(from)) => {
                let arrival = arrivals.iter().find(|arrival| arrival.peer == *from);
                match arrival.map(|arrival| arrival.original) {
                    Some(Some(original)) if same(original, to) => {
                        (Status::Pass, format!("arrived at the capture port with original destination {to}"))
                    }
                    Some(Some(original)) => (
                        Status::Fail,
                        format!("arrived at the capture port, but with original destination {original} for {to}"),
                    ),
                    Some(None) => {
                        (Status::Fail, format!("arrived at the capture port, but the kernel lost the destination {to}"))
                    }
                    None => (Status::Fail, format!("{to} answered itself: the connection was not captured")),
                }
            }
            (Self::Taken, Ended::Connected(_)) => {
                (Status::Pass, format!("a proxy is listening; the connection to {to} was accepted"))
            }
            (_, ended) => (Status::Fail, format!("the connection to {to} was not captured: {}", ended.describe())),
        }
    }

    /// Judges an attempt that must not have been captured, to where nobody listens.
    pub(super) fn must_not_have(&self, to: SocketAddr, ended: &Ended) -> (Status, String) {
        let arrivals = self.arrivals();
        match (self, ended) {
            (_, Ended::NotRun(why)) => (Status::Fail, why.clone()),
            (Self::Ours { .. }, Ended::Connected(from)) if arrivals.iter().any(|arrival| arrival.peer == *from) => {
                (Status::Fail, format!("the connection to {to} was captured: the proxy would loop"))
            }
            (Self::Taken, Ended::Connected(_)) => (
                Status::Fail,
                format!("the connection to {to}, where nobody listens, was accepted: it was captured and would loop"),
            ),
            (_, ended) => (Status::Pass, format!("the connection to {to} was left alone ({})", ended.describe())),
        }
    }

    /// Judges an attempt that may be captured or refused, to where nobody answers.
    pub(super) fn must_not_pass(&self, to: SocketAddr, ended: &Ended) -> (Status, String) {
        self.arrivals();
        match ended {
            Ended::NotRun(why) => (Status::Fail, why.clone()),
            Ended::Refused => (Status::Pass, format!("the application's connection to {to} was refused")),
            Ended::Connected(_) => (Status::Pass, format!("the application's connection to {to} was captured")),
            // The port is in use after all: a defect that other proofs name.
            Ended::Failed(why) => (Status::Skip, format!("the application could not call {to}: {why}")),
            ended => {
                (Status::Fail, format!("the application's connection to {to} left uncaptured: {}", ended.describe()))
            }
        }
    }

    fn arrivals(&self) -> Vec<Arrival> {
        let Self::Ours { listener, family } = self else { return Vec::new() };
        // Handshakes are over when the attempt is: whatever was captured is in the queue now.
        let mut found = Vec::new();
        while let Ok((stream, peer)) = listener.accept() {
            found.push(Arrival { peer, original: original(&stream, *family) });
        }
        found
    }
}

/// A listener on an address, which must receive a connection itself, uncaptured.
pub(super) struct Target {
    listener: TcpListener,
    address: SocketAddr,
}

impl Target {
    /// Listens on a free port of the address.
    pub(super) fn open(ip: std::net::IpAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind((ip, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Judges an attempt to get here.
    pub(super) fn must_have(&self, ended: &Ended) -> (Status, String) {
        let mut peers = Vec::new();
        while let Ok((_, peer)) = self.listener.accept() {
            peers.push(peer);
        }
        let to = self.address;
        match ended {
            Ended::NotRun(why) => (Status::Fail, why.clone()),
            Ended::Connected(from) if peers.contains(from) => (Status::Pass, format!("{to} was reached directly")),
            Ended::Connected(_) => (Status::Fail, format!("the connection to {to} was captured, it must not be")),
            ended => (Status::Fail, format!("{to} was not reached: {}", ended.describe())),
        }
    }
}

fn listen(family: Family, port: u16) -> std::io::Result<TcpListener> {
    let (domain, address): (_, SocketAddr) = match family {
        Family::V4 => (Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into()),
        Family::V6 => (Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()),
    };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if family == Family::V6 {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(64)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn original(stream: &TcpStream, family: Family) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let address = match family {
        Family::V4 => socket.original_dst_v4(),
        Family::V6 => socket.original_dst_v6(),
    };
    address.ok()?.as_socket()
}

/// Scope and flow label aside.
fn same(one: SocketAddr, other: SocketAddr) -> bool {
    one.ip() == other.ip() && one.port() == other.port()
}
