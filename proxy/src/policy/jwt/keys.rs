//! Key sets (RFC 7517) and the check of a signature with one of them.

use aws_lc_rs::{
    hmac,
    signature::{
        self, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, RsaParameters,
        RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
    },
};
use base64::Engine;
use serde_json::{Map, Value};

use super::{Failure, Token, token::URL_SAFE};

/// Keys looked at of one set.
const MAX_KEYS: usize = 256;

/// The keys of an issuer; never empty.
#[derive(Debug)]
pub struct Jwks(Vec<Jwk>);

#[derive(Debug)]
struct Jwk {
    kid: String,
    /// Empty: any that fits the key.
    algorithm: String,
    material: Material,
}

enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// With the algorithm of its curve; the point is not compressed.
    Ec(&'static str, Vec<u8>),
    Ed25519(Vec<u8>),
    Secret(Vec<u8>),
}

/// Says what kind of key it is and keeps it to itself.
impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rsa { .. } => "RSA",
            Self::Ec(algorithm, _) => algorithm,
            Self::Ed25519(_) => "Ed25519",
            Self::Secret(_) => "secret",
        })
    }
}

impl Jwks {
    /// Reads a key set. Keys that cannot be used are left out, as RFC 7517 wants it.
    pub fn parse(source: &[u8]) -> Result<Self, Failure> {
        let set: Value = serde_json::from_slice(source).map_err(|_| Failure::NoKeys)?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or(Failure::NoKeys)?;
        let keys: Vec<Jwk> = keys.iter().take(MAX_KEYS).filter_map(|key| jwk(key.as_object()?)).collect();
        if keys.is_empty() { Err(Failure::NoKeys) } else { Ok(Self(keys)) }
    }

    /// Checks the token's signature with the keys that fit it.
    pub fn verify(&self, token: &Token<'_>) -> Result<(), Failure> {
        let mut failure = Failure::KidAlgMismatch;
        for key in &self.0 {
            let other_kid = !token.kid.is_empty() && !key.kid.is_empty() && key.kid != token.kid;
            let other_algorithm = !key.algorithm.is_empty() && key.algorithm != token.algorithm;
            if other_kid || other_algorithm {
                continue;
            }
            if key.material.confirms(token) {
                return Ok(());
            }
            // As in Envoy this says more than that no key fits.
            if matches!(key.material, Material::Ed25519(_)) && token.signature.len() != 64 {
                failure = Failure::Ed25519Length;
            } else if failure == Failure::KidAlgMismatch {
                failure = Failure::VerificationFail;
            }
        }
        Err(failure)
    }
}

fn jwk(fields: &Map<String, Value>) -> Option<Jwk> {
    let text = |key: &str| match fields.get(key) {
        None => Some(""),
        Some(value) => value.as_str(),
    };
    let bytes = |key: &str| URL_SAFE.decode(fields.get(key)?.as_str()?).ok().filter(|b| !b.is_empty());
    let algorithm = text("alg")?;
    let material = match text("kty")? {
        "RSA" if algorithm.is_empty() || algorithm.starts_with("RS") || algorithm.starts_with("PS") => {
            // Leading zeros are not part of the numbers.
            let number = |key| bytes(key).map(|b| b.iter().copied().skip_while(|b| *b == 0).collect::<Vec<_>>());
            Material::Rsa { n: number("n")?, e: number("e")? }
        }
        "EC" => {
            let (of_curve, length) = match (text("crv")?, algorithm) {
                ("P-256", _) | ("", "ES256") => ("ES256", 32_usize),
                ("P-384", _) | ("", "ES384") => ("ES384", 48),
                ("P-521", _) | ("", "ES512") => ("ES512", 66),
                _ => return None,
            };
            if !algorithm.is_empty() && algorithm != of_curve {
                return None;
            }
            let mut point = vec![4];
            for key in ["x", "y"] {
                let number = bytes(key)?;
                let missing = length.checked_sub(number.len()).filter(|missing| *missing < length)?;
                point.resize(point.len() + missing, 0);
                point.extend(number);
            }
            Material::Ec(of_curve, point)
        }
        "OKP" if text("crv")? == "Ed25519" && matches!(algorithm, "" | "EdDSA") => {
            Material::Ed25519(bytes("x").filter(|x| x.len() == 32)?)
        }
        "oct" if algorithm.is_empty() || algorithm.starts_with("HS") => Material::Secret(bytes("k")?),
        _ => return None,
    };
    Some(Jwk { kid: text("kid")?.to_owned(), algorithm: algorithm.to_owned(), material })
}

impl Material {
    fn confirms(&self, token: &Token<'_>) -> bool {
        let (message, signature) = (token.signed.as_bytes(), &token.signature[..]);
        let public = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
        };
        match (self, &*token.algorithm) {
            (Self::Rsa { n, e }, algorithm) => rsa(algorithm).is_some_and(|parameters| {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }),
            (Self::Ec("ES256", point), "ES256") => public(&ECDSA_P256_SHA256_FIXED, point),
            (Self::Ec("ES384", point), "ES384") => public(&ECDSA_P384_SHA384_FIXED, point),
            (Self::Ec("ES512", point), "ES512") => public(&ECDSA_P521_SHA512_FIXED, point),
            (Self::Ed25519(key), "EdDSA") => public(&ED25519, key),
            (Self::Secret(secret), algorithm) => {
                let hash = match algorithm {
                    "HS256" => hmac::HMAC_SHA256,
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => return false,
                };
                hmac::verify(&hmac::Key::new(hash, secret), message, signature).is_ok()
            }
            _ => false,
        }
    }
}

fn rsa(algorithm: &str) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
        "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
        "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}
