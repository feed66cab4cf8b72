//! Who may ask for the decisions on a request: the signed header that says so.
//!
//! `v1;EXPIRES;SIGNATURE`: seconds since the epoch, and the HMAC-SHA256 in hexadecimal of what stands in front of the last
//! semicolon. Pure: the time is an argument. Invariant: what is not signed with the key, or not for now, is nothing.

use aws_lc_rs::hmac;

/// No signature is good for longer.
const LONGEST: u64 = 3600;

/// A shorter key is no secret.
const SHORTEST_KEY: usize = 16;

const VERSION: &str = "v1";

/// What requests are signed with.
#[derive(Clone)]
pub struct DebugKey(hmac::Key);

impl DebugKey {
    /// The key as the file has it, blanks around it left out.
    pub fn new(text: &[u8]) -> Result<Self, String> {
        let key = text.trim_ascii();
        if key.len() < SHORTEST_KEY {
            return Err(format!("the key has {} bytes, fewer than {SHORTEST_KEY}", key.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, key)))
    }

    /// A header that is good until `expires`.
    pub fn sign(&self, expires: u64) -> String {
        let signed = format!("{VERSION};{expires}");
        let tag = hmac::sign(&self.0, signed.as_bytes());
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{signed};{hex}")
    }

    /// Whether a header is signed with this key, and good at `now`.
    pub fn accepts(&self, header: &[u8], now: u64) -> bool {
        let Ok(text) = std::str::from_utf8(header) else { return false };
        let Some((signed, signature)) = text.trim().rsplit_once(';') else { return false };
        let Some(expires) = signed.strip_prefix(VERSION).and_then(|rest| rest.strip_prefix(';')) else { return false };
        let Ok(expires) = expires.parse::<u64>() else { return false };
        let Some(tag) = unhex(signature) else { return false };
        // The signature first: how long the answer takes says nothing of the key.
        hmac::verify(&self.0, signed.as_bytes(), &tag).is_ok() && expires > now && expires - now <= LONGEST
    }
}

impl std::fmt::Debug for DebugKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DebugKey")
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_signed_and_fresh_counts() {
        let key = DebugKey::new(b" 0123456789abcdef\n").unwrap();
        let good = key.sign(1000);
        assert!(key.accepts(good.as_bytes(), 999));
        assert!(!key.accepts(good.as_bytes(), 1000), "it is over");
        assert!(!key.accepts(key.sign(5000).as_bytes(), 1000), "for longer than anybody may");
        let other = DebugKey::new(b"0123456789abcdeg").unwrap();
        assert!(!other.accepts(good.as_bytes(), 999));
        let later = good.replace("v1;1000;", "v1;1001;");
        for wrong in
            ["", ";;", "v1;1000;", "v1;1000", &later, &good[..good.len() - 1], &format!("{good}0"), "v1;1000;\u{e9}"]
        {
            assert!(!key.accepts(wrong.as_bytes(), 999), "{wrong}");
        }
        assert!(!key.accepts(&[0xff; 80], 999));
        assert!(DebugKey::new(b"short").is_err());
    }
}
