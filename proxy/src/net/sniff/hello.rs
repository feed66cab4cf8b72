//! The TLS ClientHello: the server name and the protocols it offers.
//!
//! Reads only what routing needs, from one record or many. Refuses nothing that a TLS stack might still accept except
//! what cannot be framed; the handshake itself judges the rest.

use super::{MAX_BYTES, Verdict};

pub(super) const HANDSHAKE_RECORD: u8 = 0x16;
const CLIENT_HELLO: u8 = 1;
const MAX_RECORD: usize = 1 << 14;
const MAX_PROTOCOLS: usize = 64;

/// What a ClientHello asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Lower case.
    pub sni: Option<Box<str>>,
    /// Offered protocols in the client's order; those that are not text (GREASE may be any bytes) are left out.
    pub alpn: Vec<Box<str>>,
}

/// Decides on bytes that begin with a handshake record.
pub(super) fn parse(bytes: &[u8]) -> Verdict {
    let mut joined: Vec<u8> = Vec::new();
    let mut rest = bytes;
    loop {
        let record = match first_record(rest) {
            Framed::Whole(record, after) => {
                rest = after;
                record
            }
            // Judged early: a first message that is no ClientHello, or an absurd length, need not be awaited.
            Framed::Partial(part) => {
                let head: Vec<u8> = joined.iter().chain(part).take(4).copied().collect();
                return if plausible(&head) { Verdict::NeedMore } else { Verdict::Other };
            }
            Framed::Not => return Verdict::Other,
        };
        if joined.is_empty() {
            match message(record) {
                Message::Whole(body) => return hello(body),
                Message::Partial => {}
                Message::Not => return Verdict::Other,
            }
        }
        joined.extend_from_slice(record);
        match message(&joined) {
            Message::Whole(body) => return hello(body),
            Message::Partial => {}
            Message::Not => return Verdict::Other,
        }
    }
}

enum Framed<'a> {
    Whole(&'a [u8], &'a [u8]),
    Partial(&'a [u8]),
    Not,
}

fn first_record(bytes: &[u8]) -> Framed<'_> {
    let header = &bytes[..bytes.len().min(5)];
    if header.first().is_some_and(|b| *b != HANDSHAKE_RECORD) || header.get(1).is_some_and(|b| *b != 3) {
        return Framed::Not;
    }
    let &[_, _, minor, high, low] = header else { return Framed::Partial(&[]) };
    let len = usize::from(u16::from_be_bytes([high, low]));
    if minor > 4 || len == 0 || len > MAX_RECORD {
        return Framed::Not;
    }
    match bytes[5..].split_at_checked(len) {
        Some((record, after)) => Framed::Whole(record, after),
        None => Framed::Partial(&bytes[5..]),
    }
}

enum Message<'a> {
    Whole(&'a [u8]),
    Partial,
    Not,
}

fn message(bytes: &[u8]) -> Message<'_> {
    if !plausible(bytes) {
        return Message::Not;
    }
    let &[_, a, b, c, ref body @ ..] = bytes else { return Message::Partial };
    let len = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
    body.get(..len).map_or(Message::Partial, Message::Whole)
}

/// Whether a message beginning with `head` can be a ClientHello of acceptable size.
fn plausible(head: &[u8]) -> bool {
    if head.first().is_some_and(|b| *b != CLIENT_HELLO) {
        return false;
    }
    match head {
        // Version, random and the four length fields make 39 bytes at least.
        &[_, a, b, c, ..] => (39..MAX_BYTES).contains(&(u32::from_be_bytes([0, a, b, c]) as usize)),
        _ => true,
    }
}

fn hello(body: &[u8]) -> Verdict {
    read_hello(&mut Reader(body)).map_or(Verdict::Other, Verdict::Tls)
}

fn read_hello(r: &mut Reader<'_>) -> Option<ClientHello> {
    let version = r.take(2)?;
    if version[0] != 3 {
        return None;
    }
    r.take(32)?;
    r.vec8()?;
    r.vec16()?;
    r.vec8()?;
    let mut found = ClientHello::default();
    if r.0.is_empty() {
        // A hello without extensions is legal under TLS 1.2.
        return Some(found);
    }
    let mut extensions = Reader(r.vec16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.vec16()?;
        match kind {
            0 => found.sni = server_name(data)?,
            16 => found.alpn = protocols(data)?,
            _ => {}
        }
    }
    Some(found)
}

/// The host name; `Some(None)` when there is none that could name a host.
fn server_name(data: &[u8]) -> Option<Option<Box<str>>> {
    let mut names = Reader(Reader(data).vec16()?);
    while !names.0.is_empty() {
        let kind = names.take(1)?[0];
        let name = names.vec16()?;
        if kind == 0 {
            let usable = !name.is_empty() && name.len() <= 255 && name.iter().all(u8::is_ascii_graphic);
            return Some(usable.then(|| lower(name)));
        }
    }
    Some(None)
}

fn lower(name: &[u8]) -> Box<str> {
    name.iter().map(|b| char::from(b.to_ascii_lowercase())).collect()
}

fn protocols(data: &[u8]) -> Option<Vec<Box<str>>> {
    let mut list = Reader(Reader(data).vec16()?);
    let mut found = Vec::new();
    while !list.0.is_empty() {
        let name = list.vec8()?;
        if let Ok(name) = std::str::from_utf8(name)
            && !name.is_empty()
            && found.len() < MAX_PROTOCOLS
        {
            found.push(name.into());
        }
    }
    Some(found)
}

/// Length-prefixed fields from the front of a slice.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    fn vec8(&mut self) -> Option<&'a [u8]> {
        let len = self.take(1)?[0];
        self.take(len.into())
    }

    fn vec16(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(len.into())
    }
}
