//! Messages between a process and its successor: a length, JSON, and sockets along with it.
//!
//! Bounded in size and in sockets; what is not understood ends the conversation.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{io::Interest, net::UnixStream};

use crate::{
    bootstrap::AdminAddress,
    net::socket::{self, ListenOptions, MOST_PASSED},
};

/// The longest message.
const LONGEST: usize = 64 << 10;

/// More would not be a time.
const LONGEST_DRAIN: Duration = Duration::from_secs(604_800);

/// Of the length before each message.
const PREFIX: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// The successor's first word.
    Hello { version: u64, program: String },
    /// No, and why.
    Refused(String),
    /// Yes: so many messages with sockets follow.
    Offer { version: u64, epoch: u64, parts: usize },
    /// Sockets of an address that listeners ask for: `bound` is where they really are.
    Listener { address: SocketAddr, bound: SocketAddr, options: ListenOptions, sockets: usize },
    /// The socket of the admin interface, or one of its kin.
    Server(AdminAddress),
    /// The successor serves; the predecessor has so long for its connections.
    TakeOver { drain: Duration },
    /// Nothing is accepted here any more.
    HandedOver,
    /// Connections that the predecessor still has.
    Draining { connections: u64 },
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

impl Message {
    fn encode(&self) -> io::Result<Vec<u8>> {
        let value = match self {
            Self::Hello { version, program } => json!({"hello": {"version": version, "program": program}}),
            Self::Refused(reason) => json!({"refused": {"reason": reason}}),
            Self::Offer { version, epoch, parts } => {
                json!({"offer": {"version": version, "epoch": epoch, "parts": parts}})
            }
            Self::Listener { address, bound, options, sockets } => json!({"listener": {
                "address": address.to_string(), "bound": bound.to_string(), "sockets": sockets,
                "reuse_port": options.reuse_port, "backlog": options.backlog, "transparent": options.transparent,
                "freebind": options.freebind, "v6only": options.v6only,
            }}),
            Self::Server(AdminAddress::Tcp(address)) => json!({"server": {"address": address.to_string()}}),
            Self::Server(AdminAddress::Pipe(path)) => {
                let path = path.to_str().ok_or_else(|| invalid("a path that is not UTF-8"))?;
                json!({"server": {"path": path}})
            }
            Self::TakeOver { drain } => json!({"take_over": {"drain_s": drain.as_secs()}}),
            Self::HandedOver => json!({"handed_over": {}}),
            Self::Draining { connections } => json!({"draining": {"connections": connections}}),
        };
        let text = value.to_string();
        let length = u32::try_from(text.len()).ok().filter(|_| text.len() <= LONGEST);
        let length = length.ok_or_else(|| invalid("a message too long to be sent"))?;
        Ok([&length.to_be_bytes()[..], text.as_bytes()].concat())
    }

    fn decode(text: &[u8]) -> io::Result<Self> {
        let value: Value = serde_json::from_slice(text).map_err(|e| invalid(format!("not a message: {e}")))?;
        let object = value.as_object().filter(|object| object.len() == 1);
        let (name, body) = object.and_then(|object| object.iter().next()).ok_or_else(|| invalid("not a message"))?;
        let missing = |field: &str| invalid(format!("{name} without {field}"));
        let number = |field: &str| body[field].as_u64().ok_or_else(|| missing(field));
        let text = |field: &str| body[field].as_str().ok_or_else(|| missing(field));
        let flag = |field: &str| body[field].as_bool().ok_or_else(|| missing(field));
        let address = |field: &str| text(field)?.parse::<SocketAddr>().map_err(|_| missing(field));
        let count = |field: &str| usize::try_from(number(field)?).map_err(|_| missing(field));
        Ok(match name.as_str() {
            "hello" => Self::Hello { version: number("version")?, program: text("program")?.to_owned() },
            "refused" => Self::Refused(text("reason")?.to_owned()),
            "offer" => Self::Offer { version: number("version")?, epoch: number("epoch")?, parts: count("parts")? },
            "listener" => Self::Listener {
                address: address("address")?,
                bound: address("bound")?,
                options: ListenOptions {
                    reuse_port: flag("reuse_port")?,
                    backlog: u32::try_from(number("backlog")?).map_err(|_| missing("backlog"))?,
                    transparent: flag("transparent")?,
                    freebind: flag("freebind")?,
                    v6only: flag("v6only")?,
                },
                sockets: count("sockets")?,
            },
            "server" => Self::Server(match body.get("path") {
                Some(_) => AdminAddress::Pipe(text("path")?.into()),
                None => AdminAddress::Tcp(address("address")?),
            }),
            "take_over" => Self::TakeOver { drain: Duration::from_secs(number("drain_s")?).min(LONGEST_DRAIN) },
            "handed_over" => Self::HandedOver,
            "draining" => Self::Draining { connections: number("connections")? },
            other => return Err(invalid(format!("an unknown message: {}", other.escape_debug()))),
        })
    }
}

/// A conversation.
pub(super) struct Channel {
    stream: UnixStream,
    read: Vec<u8>,
    sockets: VecDeque<OwnedFd>,
}

impl Channel {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, read: Vec::new(), sockets: VecDeque::new() }
    }

    /// Says something, along with sockets, [`MOST_PASSED`] at most.
    pub(super) async fn say(&self, message: &Message, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = message.encode()?;
        let (mut sent, mut sockets) = (0, sockets);
        while sent < bytes.len() {
            let rest = bytes.get(sent..).unwrap_or_default();
            let send = || socket::send_with(self.stream.as_fd(), rest, sockets);
            sent += self.stream.async_io(Interest::WRITABLE, send).await?;
            sockets = &[];
        }
        Ok(())
    }

    /// Says something if there is room for it at once.
    pub(super) fn try_say(&self, message: &Message) -> io::Result<()> {
        socket::send_with(self.stream.as_fd(), &message.encode()?, &[]).map(drop)
    }

    /// The next message; `None` at the end. Cancel safe.
    pub(super) async fn hear(&mut self) -> io::Result<Option<Message>> {
        loop {
            if let Some(message) = self.whole()? {
                return Ok(Some(message));
            }
            let mut bytes = [0; 4096];
            let receive = || socket::receive_with(self.stream.as_fd(), &mut bytes);
            let (count, sockets) = self.stream.async_io(Interest::READABLE, receive).await?;
            if count == 0 {
                return if self.read.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            self.read.extend(bytes.iter().take(count));
            self.sockets.extend(sockets);
            if self.sockets.len() > MOST_PASSED {
                return Err(invalid("more sockets than a message may have"));
            }
        }
    }

    fn whole(&mut self) -> io::Result<Option<Message>> {
        let Some(prefix) = self.read.first_chunk::<PREFIX>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if length > LONGEST {
            return Err(invalid("a message too long"));
        }
        let Some(text) = self.read.get(PREFIX..PREFIX + length) else { return Ok(None) };
        let message = Message::decode(text)?;
        self.read.drain(..PREFIX + length);
        Ok(Some(message))
    }

    /// The sockets that came with the message just heard.
    pub(super) fn take(&mut self, count: usize) -> io::Result<Vec<OwnedFd>> {
        if count > self.sockets.len() {
            return Err(invalid("fewer sockets than were told"));
        }
        Ok(self.sockets.drain(..count).collect())
    }
}

#[cfg(test)]
mod tests;
