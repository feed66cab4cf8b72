//! Keys made for this run, and tokens signed with them.

use std::{
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512,
        RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
    },
};

const SECRET: &[u8] = b"a secret of thirty-two bytes, at least";

struct Keys {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| Keys {
        rsa: RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"),
        ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"),
        ed: Ed25519KeyPair::generate().expect("a key"),
    })
}

/// Base64 for URLs, without padding.
pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.as_ref().chunks(3) {
        let bits = chunk.iter().fold(0_u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text
}

/// The public keys as a set, and the secret.
pub(crate) fn jwks() -> String {
    let Keys { rsa, ec, ed } = keys();
    // `SEQUENCE { INTEGER n, INTEGER e }`: of 2048 bits the modulus is always at the same place.
    let (n, e) = (encode(&rsa.public_key().as_ref()[9..265]), encode([1, 0, 1]));
    let point = ec.public_key().as_ref();
    let (x, y) = (encode(&point[1..33]), encode(&point[33..65]));
    let (okp, oct) = (encode(ed.public_key()), encode(SECRET));
    format!(
        r#"{{"keys":[{{"kty":"RSA","kid":"rsa","n":"{n}","e":"{e}"}},{{"kty":"EC","kid":"ec","crv":"P-256","alg":"ES256","x":"{x}","y":"{y}"}},{{"kty":"OKP","kid":"ed","crv":"Ed25519","x":"{okp}"}},{{"kty":"oct","kid":"hs","alg":"HS256","k":"{oct}"}}]}}"#
    )
}

/// Signs a header and a payload as they are.
pub(crate) fn signed(algorithm: &str, header: &str, payload: &str) -> String {
    let message = format!("{}.{}", encode(header), encode(payload));
    let (keys, random) = (keys(), SystemRandom::new());
    let rsa = |encoding: &'static dyn RsaEncoding| {
        let mut signature = vec![0; keys.rsa.public_modulus_len()];
        keys.rsa.sign(encoding, &random, message.as_bytes(), &mut signature).expect("it signs");
        signature
    };
    let signature = match algorithm {
        "RS256" => rsa(&RSA_PKCS1_SHA256),
        "RS512" => rsa(&RSA_PKCS1_SHA512),
        "PS256" => rsa(&RSA_PSS_SHA256),
        "ES256" => keys.ec.sign(&random, message.as_bytes()).expect("it signs").as_ref().to_vec(),
        "EdDSA" => keys.ed.sign(message.as_bytes()).as_ref().to_vec(),
        _ => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes()).as_ref().to_vec(),
    };
    format!("{message}.{}", encode(signature))
}

/// A token with this payload.
pub(crate) fn token(algorithm: &str, kid: &str, payload: &str) -> String {
    signed(algorithm, &format!(r#"{{"alg":"{algorithm}","kid":"{kid}"}}"#), payload)
}

/// So many seconds from now.
pub(crate) fn within(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    i64::try_from(now).unwrap_or_default() + seconds
}
