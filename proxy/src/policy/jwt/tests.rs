use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use base64::Engine;
use http::{HeaderMap, HeaderValue, header};

use super::{token::URL_SAFE, *};
use crate::ir::jwt_authn::{JwksSource, JwtProvider};

/// RFC 7515, appendix A.1.
const TOKEN: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const SET: &[u8] = br#"{"keys":[{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}]}"#;

fn parts(header: &str, payload: &str) -> String {
    format!("{}.{}", URL_SAFE.encode(header), URL_SAFE.encode(payload))
}

fn failure(header: &str, payload: &str) -> Option<Failure> {
    Token::parse(&format!("{}.c2ln", parts(header, payload))).err()
}

#[test]
fn the_example_of_the_standard_is_good_and_nothing_near_it() {
    let set = Jwks::parse(SET).unwrap();
    let token = Token::parse(TOKEN).unwrap();
    assert_eq!((&*token.issuer, token.expires), ("joe", 1_300_819_380));
    assert_eq!(set.verify(&token), Ok(()));
    for at in 0..TOKEN.len() {
        let mut changed = TOKEN.as_bytes().to_vec();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        // The last digit of a part holds bits that are not part of it.
        let same = Token::parse(&changed).is_ok_and(|t| t.signed == token.signed && t.signature == token.signature);
        assert!(
            same || Token::parse(&changed).is_err() || set.verify(&Token::parse(&changed).unwrap()).is_err(),
            "{at}"
        );
    }
}

#[test]
fn keys_confirm_only_what_their_kind_signed() {
    let random = SystemRandom::new();
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let ed = Ed25519KeyPair::generate().unwrap();
    let point = ec.public_key().as_ref();
    let (x, y) = (URL_SAFE.encode(&point[1..33]), URL_SAFE.encode(&point[33..]));
    let okp = URL_SAFE.encode(ed.public_key());
    // The coordinate as a secret too: a public value must never confirm a secret's signature.
    let set = format!(
        r#"{{"keys":[{{"kty":"EC","crv":"P-256","kid":"e","x":"{x}","y":"{y}"}},{{"kty":"OKP","crv":"Ed25519","kid":"d","x":"{okp}"}}]}}"#
    );
    let set = Jwks::parse(set.as_bytes()).unwrap();
    let judge = |header: &str, sign: &dyn Fn(&[u8]) -> Vec<u8>| {
        let message = parts(header, "{}");
        let text = format!("{message}.{}", URL_SAFE.encode(sign(message.as_bytes())));
        set.verify(&Token::parse(&text).unwrap())
    };
    let by_ec = |m: &[u8]| ec.sign(&random, m).unwrap().as_ref().to_vec();
    let by_ed = |m: &[u8]| ed.sign(m).as_ref().to_vec();
    let by_point = |m: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, point), m).as_ref().to_vec();
    assert_eq!(judge(r#"{"alg":"ES256","kid":"e"}"#, &by_ec), Ok(()));
    assert_eq!(judge(r#"{"alg":"ES256"}"#, &by_ec), Ok(()));
    assert_eq!(judge(r#"{"alg":"EdDSA","kid":"d"}"#, &by_ed), Ok(()));
    assert_eq!(judge(r#"{"alg":"HS256","kid":"e"}"#, &by_point), Err(Failure::VerificationFail));
    assert_eq!(judge(r#"{"alg":"RS256","kid":"e"}"#, &by_ec), Err(Failure::VerificationFail));
    assert_eq!(judge(r#"{"alg":"ES256","kid":"x"}"#, &by_ec), Err(Failure::KidAlgMismatch));
    assert_eq!(judge(r#"{"alg":"EdDSA","kid":"d"}"#, &|_| vec![0; 63]), Err(Failure::Ed25519Length));
}

#[test]
fn sets_without_a_usable_key_are_none() {
    for set in [
        "",
        "[]",
        "{}",
        r#"{"keys":{}}"#,
        r#"{"keys":[]}"#,
        r#"{"keys":[7,{"kty":"EC","crv":"P-256","x":"AA"},{"kty":"RSA","n":"AA","e":""},{"kty":"oct","k":""},{"kty":"?"}]}"#,
        r#"{"keys":[{"kty":"EC","crv":"P-256","alg":"ES384","x":"AA","y":"AA"},{"kty":"oct","alg":"RS256","k":"AA"}]}"#,
    ] {
        assert!(Jwks::parse(set.as_bytes()).is_err(), "{set}");
    }
}

#[test]
fn what_is_wrong_with_a_token_has_a_name() {
    const HEAD: &str = r#"{"alg":"RS256"}"#;
    for text in ["", ".", "..", "a.b", "a.b.", "a..c", ".b.c", "a.b.c.d"] {
        assert_eq!(Token::parse(text).err(), Some(Failure::BadFormat), "{text}");
    }
    assert_eq!(Token::parse("!.e30.e30").err(), Some(Failure::HeaderBase64));
    assert_eq!(Token::parse(&format!("{}.!.x", URL_SAFE.encode(HEAD))).err(), Some(Failure::PayloadBase64));
    assert_eq!(Token::parse(&format!("{}.!", parts(HEAD, "{}"))).err(), Some(Failure::SignatureBase64));
    for (header, payload, wanted) in [
        ("{", "{}", Failure::HeaderJson),
        ("{}", "{}", Failure::HeaderAlg),
        (r#"{"alg":"none"}"#, "{}", Failure::AlgNotImplemented),
        (r#"{"alg":"RS256","kid":1}"#, "{}", Failure::HeaderKid),
        (HEAD, "1", Failure::PayloadJson),
        (HEAD, r#"{"iss":1}"#, Failure::Iss),
        (HEAD, r#"{"sub":1}"#, Failure::Sub),
        (HEAD, r#"{"exp":"1"}"#, Failure::ExpType),
        (HEAD, r#"{"exp":-1}"#, Failure::ExpRange),
        (HEAD, r#"{"nbf":1e300}"#, Failure::NbfRange),
        (HEAD, r#"{"jti":1}"#, Failure::Jti),
        (HEAD, r#"{"aud":["a",1]}"#, Failure::Aud),
    ] {
        assert_eq!(failure(header, payload), Some(wanted), "{header} {payload}");
    }
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(failure(HEAD, &deep), Some(Failure::PayloadJson));
}

#[test]
fn times_count_with_their_skew() {
    let text = format!("{}.c2ln", parts(r#"{"alg":"RS256"}"#, r#"{"nbf":1000,"exp":2000}"#));
    let token = Token::parse(&text).unwrap();
    for (now, wanted) in [
        (939, Err(Failure::NotYetValid)),
        (940, Ok(())),
        (2060, Ok(())),
        (2061, Err(Failure::Expired)),
        (u64::MAX, Err(Failure::Expired)),
    ] {
        assert_eq!(token.check_times(now, 60), wanted, "{now}");
    }
}

fn provider(issuer: &str) -> JwtProvider {
    JwtProvider {
        name: "p".into(),
        issuer: issuer.into(),
        audiences: Vec::new(),
        subjects: None,
        require_expiration: false,
        max_lifetime: None,
        forward: false,
        headers: vec![(header::AUTHORIZATION, "Bearer ".into())],
        params: vec!["access_token".into()],
        cookies: vec!["jwt".into()],
        payload_header: None,
        pad_payload: false,
        payload_key: "".into(),
        header_key: "".into(),
        failed_key: "".into(),
        space_delimited: Vec::new(),
        clock_skew: 60,
        claims: Vec::new(),
        clear_route_cache: false,
        keys: JwksSource::Local(bytes::Bytes::new()),
    }
}

#[test]
fn tokens_are_found_in_all_places_with_the_issuers_of_each() {
    let (one, mut two) = (provider("one"), provider("two"));
    two.params.clear();
    two.cookies.clear();
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static("x Bearer  a.b.c "));
    headers.insert(header::COOKIE, HeaderValue::from_static("x=y; jwt=\"d.e.f\""));
    let found = locate([&one, &two].into_iter(), &headers, "/p?a=b&access%5Ftoken=g.h%2Ei&access_token=x#f");
    let seen: Vec<_> = found.iter().map(|f| (&*f.token, f.issuers.clone().unwrap())).collect();
    assert_eq!(seen, [("a.b.c", vec!["one", "two"]), ("g.h.i", vec!["one"]), ("d.e.f", vec!["one"])]);
    assert!(found[1].allows("one") && !found[1].allows("two") && !found[1].allows(""));
    let any = provider("");
    assert!(locate([&any, &one].into_iter(), &headers, "/").iter().all(|f| f.allows("whoever")));
    assert_eq!(locate([&one].into_iter(), &HeaderMap::new(), "/"), []);
    // Whoever could hide a bad token would pass for one who has none.
    let mut strange = HeaderMap::new();
    strange.insert(header::COOKIE, HeaderValue::from_bytes(b"jwt=d.e.f; x=\xff").unwrap());
    assert_eq!(locate([&one].into_iter(), &strange, "/").len(), 1);
}
