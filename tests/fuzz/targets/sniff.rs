//! Protocol detection: the answer for a prefix is "more", or the answer for all that begins with it.

use outrigger_proxy::net::sniff::{Interest, MAX_BYTES, Verdict, classify, classify_for};

pub(super) fn run(data: &[u8]) {
    let whole = classify(data);
    if data.len() >= MAX_BYTES {
        assert_ne!(whole, Verdict::NeedMore, "waits for ever");
    }
    // Long inputs at some places only: the work must not grow with the square of the length.
    let step = data.len() / 64 + 1;
    for end in (0..data.len()).step_by(step) {
        match classify(&data[..end]) {
            Verdict::NeedMore => {}
            decided => assert_eq!(decided, whole, "another answer after {end} bytes"),
        }
    }
    for interest in [Interest { tls: true, http: false }, Interest { tls: false, http: true }] {
        let verdict = classify_for(data, interest);
        let possible = match &verdict {
            Verdict::Tls(_) => interest.tls,
            Verdict::Http1 { .. } | Verdict::Http2 => interest.http,
            Verdict::NeedMore | Verdict::Other => true,
        };
        assert!(possible, "{verdict:?} was not looked for");
        if !matches!(verdict, Verdict::Other) {
            assert_eq!(verdict, whole, "what else is looked for changes the answer");
        }
    }
    if let Verdict::Tls(hello) = whole {
        assert!(hello.sni.iter().all(|name| name.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase())));
        assert!(hello.alpn.len() <= 64);
    }
}
