//! Who may ask for the decisions on a request: the signed header that says so.
//!
//! `v2;EXPIRES;SIGNATURE`: seconds since the epoch, and the HMAC-SHA256 in hexadecimal of version, time, method, host
//! without its port, and path without its query. Pure: the time is an argument. Invariant: what is not signed with one of
//! the keys, for this very request and for now, is nothing.

use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;

use super::router::strip_port;

/// No signature is good for longer, in seconds.
pub const LONGEST: u64 = 600;

/// What the clocks of two machines may differ by, in seconds.
const SKEW: u64 = 60;

/// A shorter key is no secret.
const SHORTEST_KEY: usize = 16;

/// One in use and those before and after it.
const MOST_KEYS: usize = 16;

const VERSION: &str = "v2";

/// What a signature is for.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    pub method: &'a str,
    pub host: &'a str,
    /// The query does not count.
    pub path: &'a str,
}

impl Signed<'_> {
    fn text(&self, expires: u64) -> String {
        let host = strip_port(self.host).to_ascii_lowercase();
        let path = self.path.split(['?', '#']).next().unwrap_or_default();
        // None of them can hold the end of a line.
        format!("{VERSION}\n{expires}\n{}\n{host}\n{path}", self.method)
    }
}

/// What requests are signed with; all of them may be replaced while they are in use.
pub struct DebugKeys(ArcSwap<Vec<hmac::Key>>);

impl DebugKeys {
    /// The keys as the file has them, one per line, blanks around them left out.
    pub fn new(text: &[u8]) -> Result<Self, String> {
        Ok(Self(ArcSwap::from_pointee(parse(text)?)))
    }

    /// Takes the keys of a text instead, or keeps what it has.
    pub fn replace(&self, text: &[u8]) -> Result<usize, String> {
        let keys = parse(text)?;
        let count = keys.len();
        self.0.store(Arc::new(keys));
        Ok(count)
    }

    /// A header that is good until `expires`, by the first key.
    pub fn sign(&self, expires: u64, request: &Signed<'_>) -> String {
        let keys = self.0.load();
        let hex = keys.first().map(|key| {
            let tag = hmac::sign(key, request.text(expires).as_bytes());
            tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        });
        format!("{VERSION};{expires};{}", hex.unwrap_or_default())
    }

    /// Until when a header is good that is signed for this request with one of the keys, and good at `now`.
    pub fn accepts(&self, header: &[u8], request: &Signed<'_>, now: u64) -> Option<u64> {
        let text = std::str::from_utf8(header).ok()?;
        let (expires, signature) = text.trim().strip_prefix(VERSION)?.strip_prefix(';')?.split_once(';')?;
        let expires = Some(expires).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?.parse::<u64>().ok()?;
        let tag = unhex(signature)?;
        let text = request.text(expires);
        // The signature first: how long the answer takes says nothing of the key.
        let signed = self.0.load().iter().any(|key| hmac::verify(key, text.as_bytes(), &tag).is_ok());
        let fresh = expires.saturating_add(SKEW) > now && expires <= now.saturating_add(LONGEST + SKEW);
        (signed && fresh).then_some(expires)
    }
}

impl std::fmt::Debug for DebugKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DebugKeys")
    }
}

fn parse(text: &[u8]) -> Result<Vec<hmac::Key>, String> {
    let lines = text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let keys = lines.map(|key| match key.len() {
        short if short < SHORTEST_KEY => Err(format!("a key has {short} bytes, fewer than {SHORTEST_KEY}")),
        _ => Ok(hmac::Key::new(hmac::HMAC_SHA256, key)),
    });
    let keys: Vec<_> = keys.collect::<Result<_, _>>()?;
    match keys.len() {
        0 => Err("there is no key".to_owned()),
        many if many > MOST_KEYS => Err(format!("{many} keys, more than {MOST_KEYS}")),
        _ => Ok(keys),
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Signed<'_> = Signed { method: "GET", host: "Shop:8080", path: "/a?b=c" };

    #[test]
    fn only_what_is_signed_and_fresh_counts() {
        let keys = DebugKeys::new(b" 0123456789abcdef\n").unwrap();
        let good = keys.sign(1000, &REQUEST);
        let accepted = |header: &str, now| keys.accepts(header.as_bytes(), &REQUEST, now);
        assert_eq!(accepted(&good, 999), Some(1000));
        assert_eq!(accepted(&good, 1059), Some(1000), "clocks differ");
        assert_eq!(accepted(&good, 1060), None, "it is over");
        assert_eq!(accepted(&keys.sign(1660, &REQUEST), 1000), Some(1660));
        assert_eq!(accepted(&keys.sign(1661, &REQUEST), 1000), None, "for longer than anybody may");
        let other = DebugKeys::new(b"0123456789abcdeg").unwrap();
        assert_eq!(other.accepts(good.as_bytes(), &REQUEST, 999), None);
        let later = good.replace("v2;1000;", "v2;1001;");
        let (lead, tag) = good.rsplit_once(';').unwrap();
        let plus = format!("{lead};+{}", &tag[1..]);
        for wrong in [
            "",
            ";;",
            "v2;1000;",
            "v2;1000",
            &later,
            &plus,
            &good[..good.len() - 1],
            &format!("{good}0"),
            "v2;1000;\u{e9}",
            &good.replace("v2;1000", "v2;+1000"),
            &good.replace("v2", "v1"),
        ] {
            assert_eq!(accepted(wrong, 999), None, "{wrong}");
        }
        assert_eq!(keys.accepts(&[0xff; 80], &REQUEST, 999), None);
    }

    #[test]
    fn a_signature_is_for_one_request() {
        let keys = DebugKeys::new(b"0123456789abcdef").unwrap();
        let good = keys.sign(1000, &REQUEST);
        let accepted = |request: Signed<'_>| keys.accepts(good.as_bytes(), &request, 999).is_some();
        assert!(accepted(Signed { host: "shop", path: "/a?other", ..REQUEST }));
        assert!(!accepted(Signed { host: "shop2", ..REQUEST }));
        assert!(!accepted(Signed { path: "/a/b", ..REQUEST }));
        assert!(!accepted(Signed { method: "POST", ..REQUEST }));
    }

    #[test]
    fn keys_are_changed_without_a_gap() {
        let keys = DebugKeys::new(b"the key of yesterday").unwrap();
        let old = keys.sign(1000, &REQUEST);
        assert_eq!(keys.replace(b"the key of today...\r\n\nthe key of yesterday\n"), Ok(2));
        let new = keys.sign(1000, &REQUEST);
        assert_ne!(new, old);
        for header in [&old, &new] {
            assert!(keys.accepts(header.as_bytes(), &REQUEST, 999).is_some());
        }
        assert!(keys.replace(b"short").is_err());
        assert!(keys.accepts(new.as_bytes(), &REQUEST, 999).is_some(), "what it has stays");
        for wrong in [&b""[..], b"\n\n", b"the key of today...\nshort"] {
            assert!(DebugKeys::new(wrong).is_err());
        }
    }
}
