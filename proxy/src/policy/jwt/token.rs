//! A token read, not yet believed.

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::{Map, Value};

use super::Failure;

/// With or without padding, as tokens come.
pub(super) const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

const ALGORITHMS: &[&str] = &[
    "ES256", "ES384", "ES512", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA",
];

/// A token in its parts. Times are 0 where the token names none.
#[derive(Clone, Debug)]
pub struct Token<'a> {
    /// Header and payload as they were signed.
    pub signed: &'a str,
    /// The payload as it was written.
    pub payload_text: &'a str,
    pub header: Map<String, Value>,
    pub payload: Map<String, Value>,
    pub algorithm: String,
    pub kid: String,
    pub signature: Vec<u8>,
    pub issuer: String,
    pub subject: String,
    pub audiences: Vec<String>,
    pub issued_at: u64,
    pub not_before: u64,
    pub expires: u64,
}

fn object(text: &str, base64: Failure, json: Failure) -> Result<Map<String, Value>, Failure> {
    let bytes = URL_SAFE.decode(text).map_err(|_| base64)?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        _ => Err(json),
    }
}

fn text(fields: &Map<String, Value>, key: &str, failure: Failure) -> Result<String, Failure> {
    match fields.get(key) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(failure),
    }
}

fn time(fields: &Map<String, Value>, key: &str, kind: Failure, range: Failure) -> Result<u64, Failure> {
    match fields.get(key) {
        None => Ok(0),
        Some(Value::Number(n)) => match n.as_u64() {
            Some(n) => Ok(n),
            // The comparison also refuses what is no number at all.
            None => n.as_f64().filter(|f| *f >= 0.0 && *f < u64::MAX as f64).map(|f| f as u64).ok_or(range),
        },
        Some(_) => Err(kind),
    }
}

impl<'a> Token<'a> {
    /// Reads a token.
    pub fn parse(source: &'a str) -> Result<Self, Failure> {
        let (signed, signature) = source.rsplit_once('.').ok_or(Failure::BadFormat)?;
        let (head, payload_text) = signed.split_once('.').ok_or(Failure::BadFormat)?;
        if payload_text.contains('.') || [head, payload_text, signature].contains(&"") {
            return Err(Failure::BadFormat);
        }
        let header = object(head, Failure::HeaderBase64, Failure::HeaderJson)?;
        let Some(Value::String(algorithm)) = header.get("alg") else { return Err(Failure::HeaderAlg) };
        let algorithm = algorithm.clone();
        if !ALGORITHMS.contains(&&*algorithm) {
            return Err(Failure::AlgNotImplemented);
        }
        let kid = text(&header, "kid", Failure::HeaderKid)?;
        let payload = object(payload_text, Failure::PayloadBase64, Failure::PayloadJson)?;
        let issuer = text(&payload, "iss", Failure::Iss)?;
        let subject = text(&payload, "sub", Failure::Sub)?;
        let issued_at = time(&payload, "iat", Failure::IatType, Failure::IatRange)?;
        let not_before = time(&payload, "nbf", Failure::NbfType, Failure::NbfRange)?;
        let expires = time(&payload, "exp", Failure::ExpType, Failure::ExpRange)?;
        text(&payload, "jti", Failure::Jti)?;
        let audiences = match payload.get("aud") {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(list)) => {
                let all = list.iter().map(|v| v.as_str().map(str::to_owned)).collect::<Option<_>>();
                all.ok_or(Failure::Aud)?
            }
            Some(_) => return Err(Failure::Aud),
        };
        let signature = URL_SAFE.decode(signature).map_err(|_| Failure::SignatureBase64)?;
        Ok(Self {
            signed,
            payload_text,
            header,
            payload,
            algorithm,
            kid,
            signature,
            issuer,
            subject,
            audiences,
            issued_at,
            not_before,
            expires,
        })
    }

    /// Checks the times at `now`, seconds since the epoch.
    pub fn check_times(&self, now: u64, skew: u64) -> Result<(), Failure> {
        if now.saturating_add(skew) < self.not_before {
            return Err(Failure::NotYetValid);
        }
        if self.expires != 0 && now > self.expires.saturating_add(skew) {
            return Err(Failure::Expired);
        }
        Ok(())
    }

    /// Whether the token is meant for one of these; all are where none is named.
    pub fn is_for(&self, audiences: &[Box<str>]) -> bool {
        audiences.is_empty() || self.audiences.iter().any(|a| audiences.iter().any(|wanted| plain(wanted) == plain(a)))
    }

    /// The value of a claim in the payload.
    pub fn claim(&self, path: &[Box<str>]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.payload.get(&**first)?, |value, key| value.as_object()?.get(&**key))
    }
}

/// An audience without scheme and without a slash at its end, as Envoy compares them.
fn plain(audience: &str) -> &str {
    let rest = audience.strip_prefix("http://").or_else(|| audience.strip_prefix("https://")).unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}
