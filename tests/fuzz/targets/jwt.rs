//! Tokens and key sets. The input is a token, and after a line feed a key set.

use outrigger_proxy::policy::jwt::{Jwks, Token};

pub(super) fn run(data: &[u8]) {
    let mut parts = data.splitn(2, |b| *b == b'\n');
    let (token, keys) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let keys = Jwks::parse(keys);
    let Ok(text) = std::str::from_utf8(token) else { return };
    let Ok(token) = Token::parse(text) else { return };
    assert!(text.starts_with(token.signed) && token.signed.ends_with(token.payload_text));
    let _ = token.check_times(1_700_000_000, 60);
    let _ = token.is_for(&["a".into(), "http://b/".into()]);
    let _ = token.claim(&["a".into(), "b".into()]);
    if let Ok(keys) = keys
        && keys.verify(&token).is_ok()
    {
        // Whatever is signed is signed as a whole: a token with another payload is not.
        let mut forged = token.clone();
        let other = format!("{}x", token.signed);
        forged.signed = &other;
        assert!(keys.verify(&forged).is_err(), "a forged token passes");
    }
}
