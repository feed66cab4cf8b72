//! Bearer tokens bound to one identity: a JWT (HS256) signed with a key kept in the state directory.
//!
//! Owns minting and verification. The algorithm is fixed, never read from the token; the signature is compared in
//! constant time before a single claim is looked at. The claims follow Kubernetes' projected tokens
//! (`sub: system:serviceaccount:<ns>:<sa>`, audience `istio-ca`), so a TokenReview can stand in later.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{hmac, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use serde::{Deserialize, Serialize};

use super::{Caller, Identity, Proof};
use crate::state::{Error as StateError, StateDir};

/// The audience every token names.
pub const AUDIENCE: &str = "istio-ca";
/// Issuer written into and required of every token.
const ISSUER: &str = "outrigger-control";
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
const KEY_FILE: &str = "token.key";
const KEY_BYTES: usize = 32;
/// Longest token looked at.
const MAX_TOKEN: usize = 8 << 10;
/// Tolerated difference between the clocks of minter and verifier.
const SKEW: Duration = Duration::from_secs(60);
/// Longest life a token may be given.
pub const MAX_TTL: Duration = Duration::from_secs(366 * 24 * 3600);

/// Why a token was refused. Never tells an attacker more than the class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("token is malformed")]
    Malformed,
    #[error("token signature does not verify")]
    Signature,
    #[error("token has expired")]
    Expired,
    #[error("token is not valid yet; the clocks of issuer and control plane differ")]
    NotYet,
    #[error("token is for another audience or issuer")]
    Audience,
    #[error("token names no service account")]
    Subject,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: Vec<String>,
    sub: String,
    iat: u64,
    exp: u64,
    jti: String,
}

/// Mints and verifies tokens of one trust domain.
pub struct Tokens {
    key: hmac::Key,
    trust_domain: String,
}

impl Tokens {
    /// Reads the key from `state`, making it on first use.
    pub fn open(state: &StateDir, trust_domain: &str) -> Result<Self, StateError> {
        let text = match state.read_secret(KEY_FILE)? {
            Some(text) => text,
            None => {
                let mut key = [0u8; KEY_BYTES];
                rand::fill(&mut key).map_err(|_| StateError::Corrupt {
                    path: state.file(KEY_FILE),
                    reason: "the system's random number generator failed".into(),
                })?;
                state.create_once(KEY_FILE, &B64.encode(key), 0o600)?
            }
        };
        let key =
            B64.decode(text.trim()).ok().filter(|key| key.len() == KEY_BYTES).ok_or_else(|| StateError::Corrupt {
                path: state.file(KEY_FILE),
                reason: "not a token key; delete it to make a new one (every token minted so far becomes invalid)"
                    .into(),
            })?;
        Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key), trust_domain: trust_domain.to_owned() })
    }

    /// Mints a token for `identity`, valid from `now` for `ttl` (at most [`MAX_TTL`]).
    pub fn mint(&self, identity: &Identity, ttl: Duration, now: SystemTime) -> String {
        let iat = seconds(now);
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: vec![AUDIENCE.to_owned()],
            sub: format!("system:serviceaccount:{}:{}", identity.namespace(), identity.service_account()),
            iat,
            exp: iat + ttl.min(MAX_TTL).as_secs(),
            jti: format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)),
        };
        let payload = serde_json::to_vec(&claims).expect("claims are plain strings and numbers");
        let signed = format!("{}.{}", B64.encode(HEADER), B64.encode(payload));
        let tag = hmac::sign(&self.key, signed.as_bytes());
        format!("{signed}.{}", B64.encode(tag))
    }

    /// Verifies signature, times, audience and subject, in that order.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Caller, Refused> {
        if token.len() > MAX_TOKEN {
            return Err(Refused::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Refused::Malformed)?;
        let signature = B64.decode(signature).map_err(|_| Refused::Malformed)?;
        hmac::verify(&self.key, signed.as_bytes(), &signature).map_err(|_| Refused::Signature)?;

        let (header, payload) = signed.split_once('.').ok_or(Refused::Malformed)?;
        if B64.decode(header).ok().as_deref() != Some(HEADER.as_bytes()) {
            return Err(Refused::Malformed);
        }
        let payload = B64.decode(payload).map_err(|_| Refused::Malformed)?;
        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| Refused::Malformed)?;
        let now = seconds(now);
        if claims.exp <= now {
            return Err(Refused::Expired);
        }
        if claims.iat > now + SKEW.as_secs() {
            return Err(Refused::NotYet);
        }
        if claims.iss != ISSUER || !claims.aud.iter().any(|aud| aud == AUDIENCE) {
            return Err(Refused::Audience);
        }
        let subject = claims.sub.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
        let (namespace, account) = subject.ok_or(Refused::Subject)?;
        let identity = Identity::new(&self.trust_domain, namespace, account).map_err(|_| Refused::Subject)?;
        let expires = UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp)).ok_or(Refused::Malformed)?;
        Ok(Caller { identity, proof: Proof::Token, expires: Some(expires) })
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(dir: &std::path::Path) -> Tokens {
        Tokens::open(&StateDir::open(dir).unwrap(), "cluster.local").unwrap()
    }

    fn identity() -> Identity {
        Identity::new("cluster.local", "shop", "reviews").unwrap()
    }

    const HOUR: Duration = Duration::from_secs(3600);

    fn setup() -> (tempfile::TempDir, Tokens, SystemTime) {
        let dir = tempfile::tempdir().unwrap();
        let tokens = tokens(&dir.path().join("s"));
        (dir, tokens, UNIX_EPOCH + Duration::from_secs(1_800_000_000))
    }

    #[test]
    fn round_trip_through_the_key_on_disk() {
        let (dir, minter, now) = setup();
        let token = minter.mint(&identity(), HOUR, now);
        let caller = tokens(&dir.path().join("s")).verify(&token, now).unwrap();
        assert_eq!(caller.identity, identity());
        assert_eq!(caller.proof, Proof::Token);
        assert_eq!(caller.expires, Some(now + HOUR));
    }

    #[test]
    fn expiry_and_future_tokens() {
        let (_dir, tokens, now) = setup();
        let token = tokens.mint(&identity(), HOUR, now);
        assert!(tokens.verify(&token, now + HOUR - Duration::from_secs(1)).is_ok());
        assert_eq!(tokens.verify(&token, now + HOUR), Err(Refused::Expired));
        assert!(tokens.verify(&token, now - SKEW).is_ok());
        assert_eq!(tokens.verify(&token, now - SKEW - Duration::from_secs(1)), Err(Refused::NotYet));
    }

    #[test]
    fn every_forgery_is_refused() {
        let (_dir, tokens, now) = setup();
        let (_other_dir, other, _) = setup();
        let token = tokens.mint(&identity(), HOUR, now);
        assert_eq!(other.verify(&token, now), Err(Refused::Signature));
        let parts: Vec<&str> = token.split('.').collect();
        let none = B64.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let body = String::from_utf8(B64.decode(parts[1]).unwrap()).unwrap();
        let forged = B64.encode(body.replace("reviews", "admin"));
        for bad in [
            format!("{none}.{}.", parts[1]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{}.{forged}.{}", parts[0], parts[2]),
            format!("{}.{}.{}", parts[0], parts[1], B64.encode([0u8; 32])),
            format!("{}.{}.{}", parts[0], parts[1], &parts[2][..20]),
        ] {
            assert_eq!(tokens.verify(&bad, now), Err(Refused::Signature), "{bad}");
        }
        for bad in ["", ".", "..", "a.b.%%%", &"x".repeat(MAX_TOKEN + 1)] {
            assert!(tokens.verify(bad, now).is_err(), "{bad}");
        }
    }

    /// A correctly signed token whose claims are not ours: another audience, another subject.
    #[test]
    fn claims_are_checked_after_the_signature() {
        let (_dir, tokens, now) = setup();
        let sign = |body: String| {
            let signed = format!("{}.{}", B64.encode(HEADER), B64.encode(body));
            format!("{signed}.{}", B64.encode(hmac::sign(&tokens.key, signed.as_bytes())))
        };
        let claims = |aud: &str, sub: &str| {
            sign(format!(
                r#"{{"iss":"{ISSUER}","aud":["{aud}"],"sub":"{sub}","iat":1800000000,"exp":1800003600,"jti":"x"}}"#
            ))
        };
        assert!(tokens.verify(&claims(AUDIENCE, "system:serviceaccount:a:b"), now).is_ok());
        assert_eq!(tokens.verify(&claims("vault", "system:serviceaccount:a:b"), now), Err(Refused::Audience));
        assert_eq!(tokens.verify(&claims(AUDIENCE, "system:node:a"), now), Err(Refused::Subject));
        assert_eq!(tokens.verify(&claims(AUDIENCE, "system:serviceaccount:a/b:c"), now), Err(Refused::Subject));
        assert_eq!(tokens.verify(&sign("{}".into()), now), Err(Refused::Malformed));
    }

    #[test]
    fn a_corrupt_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("s")).unwrap();
        state.create_once(KEY_FILE, "zzz", 0o600).unwrap();
        let error = Tokens::open(&state, "cluster.local").err().unwrap();
        assert!(error.to_string().contains("token.key"), "{error}");
    }
}
