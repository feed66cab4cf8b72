//! What protocol the first bytes of a connection are: a pure function of the bytes so far.
//!
//! Knows nothing of sockets or time. Invariants: never panics; the answer for a prefix is `NeedMore` or the answer for
//! every continuation; anything that cannot become TLS or HTTP is `Other` at the first byte that proves it.

mod hello;

pub use hello::ClientHello;

/// No message that has to be seen whole may be larger.
pub const MAX_BYTES: usize = 64 * 1024;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const MAX_METHOD: usize = 32;

/// What the bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    NeedMore,
    Tls(ClientHello),
    Http1 { http10: bool },
    Http2,
    Other,
}

/// Which protocols are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    pub tls: bool,
    pub http: bool,
}

/// Decides among TLS, HTTP and anything else.
pub fn classify(bytes: &[u8]) -> Verdict {
    classify_for(bytes, Interest { tls: true, http: true })
}

/// Decides with only some protocols of interest: what is not looked for is `Other`.
pub fn classify_for(bytes: &[u8], interest: Interest) -> Verdict {
    let verdict = match bytes.first() {
        None if interest.tls || interest.http => return Verdict::NeedMore,
        None => return Verdict::Other,
        Some(&hello::HANDSHAKE_RECORD) if interest.tls => hello::parse(bytes),
        Some(_) if interest.http => http(bytes),
        Some(_) => return Verdict::Other,
    };
    match verdict {
        Verdict::NeedMore if bytes.len() >= MAX_BYTES => Verdict::Other,
        verdict => verdict,
    }
}

fn http(bytes: &[u8]) -> Verdict {
    let known = bytes.len().min(PREFACE.len());
    if bytes[..known] == PREFACE[..known] {
        return if known == PREFACE.len() { Verdict::Http2 } else { Verdict::NeedMore };
    }
    match request_line(bytes) {
        Some(Some(http10)) => Verdict::Http1 { http10 },
        Some(None) => Verdict::NeedMore,
        None => Verdict::Other,
    }
}

/// `None`: not a request line; `Some(None)`: still possible; `Some(Some(_))`: one, and whether it says HTTP/1.0.
fn request_line(bytes: &[u8]) -> Option<Option<bool>> {
    let method = bytes.iter().take_while(|b| is_token(**b)).count();
    if method > MAX_METHOD {
        return None;
    }
    let Some(after) = bytes.get(method) else { return Some(None) };
    if method == 0 || *after != b' ' {
        return None;
    }
    let rest = &bytes[method + 1..];
    let target = rest.iter().take_while(|b| **b > b' ' && **b != 0x7f).count();
    let Some(after) = rest.get(target) else { return Some(None) };
    if target == 0 || *after != b' ' {
        return None;
    }
    let version = &rest[target + 1..];
    let known = version.len().min(7);
    if version[..known] != b"HTTP/1."[..known] {
        return None;
    }
    let http10 = match version.get(7) {
        None => return Some(None),
        Some(b'0') => true,
        Some(b'1') => false,
        Some(_) => return None,
    };
    match version.get(8) {
        None => Some(None),
        Some(b'\r' | b'\n') => Some(Some(http10)),
        Some(_) => None,
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
