//! HTTP/1 through the proxy: a hostile client, and a hostile upstream.

use super::{
    stage::{Upstream, play},
    strict,
};

/// The first byte chooses the configuration. What goes upstream is checked there.
pub(super) fn request(data: &[u8]) {
    let Some((&options, client)) = data.split_first() else { return };
    let told = play(options, client, Upstream::Strict);
    // Whatever was asked, the first thing said is a whole message (or the other protocol's frames).
    if told.bytes.starts_with(b"HTTP/") {
        strict::response(&told.bytes, "GET").expect("a head");
    }
}

const REQUESTS: &[(&str, &str)] = &[
    ("GET", "GET /a HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("HEAD", "HEAD /a HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("POST", "POST /inner HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"),
    ("GET", "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"),
    (
        "POST",
        "POST /x HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    ),
    ("POST", "POST /g HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web-text\r\ncontent-length: 4\r\n\r\nAAAA"),
    ("GET", "GET /a HTTP/1.0\r\n\r\n"),
    ("GET", "GET /mirror HTTP/1.1\r\nhost: a\r\nx-envoy-retry-on: 5xx\r\n\r\n"),
];

/// The first byte chooses the configuration and the request, the rest is what the upstream says.
pub(super) fn response(data: &[u8]) {
    let Some((&options, upstream)) = data.split_first() else { return };
    let (method, request) = REQUESTS[usize::from(options >> 1 & 7)];
    let told = play(options, request.as_bytes(), Upstream::Says(upstream.into()));
    one_answer(&told.bytes, method);
}

/// One request has one answer: what follows it would be taken for the answer to somebody else's.
pub(super) fn one_answer(mut bytes: &[u8], method: &str) {
    let whole = bytes;
    while !bytes.is_empty() {
        let Some(head) = strict::response(bytes, method) else { return };
        bytes = &bytes[head.size..];
        if head.status == 101 {
            return;
        }
        if head.status >= 200 {
            let Some(size) = strict::body(head.framing, bytes) else { return };
            assert!(bytes.len() <= size, "more than one answer: {}", whole.escape_ascii());
            return;
        }
    }
}
