//! Who is calling: SPIFFE identities, bearer tokens, client certificates.
//!
//! Owns the decision "this caller is that identity until then"; knows nothing of what an identity may have.
//! Invariant: an [`Identity`] inside a [`Caller`] was proven by a signature made with our own keys.

pub mod caller;
pub mod token;

use std::{fmt, time::SystemTime};

/// Longest namespace, service account or trust domain accepted (a DNS name's limit).
const MAX_PART: usize = 253;

/// A workload's name: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    trust_domain: String,
    namespace: String,
    service_account: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a valid {1}")]
pub struct InvalidIdentity(String, &'static str);

impl Identity {
    /// Builds an identity, refusing parts that could change the URI's meaning.
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, InvalidIdentity> {
        for (part, what) in
            [(trust_domain, "trust domain"), (namespace, "namespace"), (service_account, "service account")]
        {
            if !is_part(part) {
                return Err(InvalidIdentity(part.chars().take(MAX_PART).collect(), what));
            }
        }
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        })
    }

    /// Reads a SPIFFE URI of exactly Istio's form.
    pub fn from_uri(uri: &str) -> Result<Self, InvalidIdentity> {
        let invalid = || InvalidIdentity(uri.chars().take(MAX_PART).collect(), "spiffe://<td>/ns/<ns>/sa/<sa> URI");
        let rest = uri.strip_prefix("spiffe://").ok_or_else(invalid)?;
        let parts: Vec<&str> = rest.split('/').collect();
        match parts.as_slice() {
            [trust_domain, "ns", namespace, "sa", service_account] => {
                Self::new(trust_domain, namespace, service_account)
            }
            _ => Err(invalid()),
        }
    }

    pub fn uri(&self) -> String {
        format!("spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }

    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn service_account(&self) -> &str {
        &self.service_account
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri())
    }
}

/// Letters, digits, `-`, `.`, `_`, not empty, and no path step (`.`, `..`).
fn is_part(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= MAX_PART
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        && part.bytes().any(|b| b != b'.')
}

/// How a caller proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    Certificate,
    Token,
    /// Nothing was proven: the node's own word, accepted only by `--insecure-plaintext-identity`.
    Claimed,
}

impl Proof {
    pub fn as_str(self) -> &'static str {
        match self {
            Proof::Certificate => "certificate",
            Proof::Token => "token",
            Proof::Claimed => "claimed",
        }
    }
}

/// An identity, how it was proven, and when the proof lapses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub identity: Identity,
    pub proof: Proof,
    pub expires: Option<SystemTime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uri_round_trip() {
        let identity = Identity::new("cluster.local", "shop", "reviews").unwrap();
        assert_eq!(identity.uri(), "spiffe://cluster.local/ns/shop/sa/reviews");
        assert_eq!(Identity::from_uri(&identity.uri()).unwrap(), identity);
    }

    #[test]
    fn hostile_parts_are_refused() {
        for bad in ["", "..", ".", "a/b", "a b", "a\0", "ns%2f", "ä", &"x".repeat(300)] {
            assert!(Identity::new("cluster.local", bad, "sa").is_err(), "{bad:?}");
            assert!(Identity::new("cluster.local", "ns", bad).is_err(), "{bad:?}");
            assert!(Identity::new(bad, "ns", "sa").is_err(), "{bad:?}");
        }
        for bad in [
            "https://cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/a/sa/b/c",
            "spiffe://cluster.local/ns/a",
            "spiffe://cluster.local/sa/a/ns/b",
            "spiffe://cluster.local/ns//sa/b",
        ] {
            assert!(Identity::from_uri(bad).is_err(), "{bad}");
        }
    }
}
