//! HTTP/1 byte by byte: what one side says is what the other side hears, in the order and at the time it was said.

use std::net::{Shutdown, TcpStream};

use outrigger_tests::{
    Exchange, Pair,
    exchange::{Server, has_line, values},
    need,
    pair::{by4, by6, pair},
    until,
};

struct Script<'a> {
    pair: &'a Pair,
    server: Server,
}

impl Script<'_> {
    /// A fresh connection of the client.
    fn client(&self) -> TcpStream {
        self.pair.client.pod.connect(by4(80))
    }

    /// The server's side of the next request, which must be this one.
    fn request(&self, line: &str) -> (TcpStream, String) {
        let (server, head) = self.server.request();
        assert_eq!(head.split("\r\n").next(), Some(line), "{head}");
        (server, head)
    }
}

#[test]
fn http1_semantics() {
    need!("ip", "curl");
    let mut pair = pair(&[("http", 80, 9080)]);
    let script = Script { server: Server::new(pair.server.pod.listen(9080)), pair: &pair };
    late_first_request(&script);
    header_case_and_order(&script);
    long_target(&script);
    pipelining(&script);
    trailers(&script);
    expect_continue(&script);
    server_sent_events(&script);
    bodiless_responses(&script);
    http10(&script);
    response_ended_by_close(&script);
    truncated_response(&script);
    both_families(&script);
    pair.assert_sound();
}

/// A client that connects long before it has something to say. While it is silent the proxy tries whether the server
/// speaks first; that the original destination, nobody's address, cannot be reached must not cost the client anything.
fn late_first_request(s: &Script<'_>) {
    let mut client = s.client();
    if std::env::var_os("OUTRIGGER_TESTS_UNMESHED").is_none() {
        until("the proxy's fruitless dial", || {
            let stats =
                ["connect_fail", "connect_timeout"].map(|n| format!("cluster.PassthroughCluster.upstream_cx_{n}"));
            stats.iter().any(|name| s.pair.client.stat(name) > 0)
        });
    }
    client.say("GET /late HTTP/1.1\r\nHost: app\r\n\r\n");
    let (mut server, _) = s.request("GET /late HTTP/1.1");
    server.say("HTTP/1.1 204 No Content\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 204 "));
}

fn header_case_and_order(s: &Script<'_>) {
    let mut client = s.client();
    client.say(
        "GET /Path%20as-it-is?Q=%2F&x HTTP/1.1\r\nHost: app\r\nX-CamelCase-Header: Value  inside\r\nx-lower: l\r\n\
         X-UPPER: U\r\nX-Repeated: 1\r\nX-Repeated: 2\r\nx-EmPtY:\r\nX-Utf8: gr\u{fc}n\r\n\r\n",
    );
    let (mut server, head) = s.request("GET /Path%20as-it-is?Q=%2F&x HTTP/1.1");
    for line in ["X-CamelCase-Header: Value  inside", "x-lower: l", "X-UPPER: U", "X-Utf8: gr\u{fc}n"] {
        assert!(has_line(&head, line), "{line:?} is not in {head}");
    }
    assert!(has_line(&head, "x-EmPtY:") || has_line(&head, "x-EmPtY: "), "{head}");
    assert_eq!(values(&head, "x-repeated"), ["1", "2"], "{head}");
    assert_eq!(values(&head, "host"), ["app"], "{head}");
    server.say(
        "HTTP/1.1 418 I am Not a Teapot\r\nX-Reply-CASE: Kept\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n\
         Content-Length: 5\r\n\r\nhello",
    );
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 418 "), "{head}");
    assert!(has_line(&head, "X-Reply-CASE: Kept"), "{head}");
    assert_eq!(values(&head, "set-cookie"), ["a=1", "b=2"], "{head}");
    assert_eq!(values(&head, "content-length"), ["5"], "{head}");
    assert_eq!(client.hear(5), b"hello");
}

/// Long and slow, but within the limit (60 kB): the request line alone fills many packets.
fn long_target(s: &Script<'_>) {
    let target = format!("/{}", "t".repeat(50_000));
    let mut client = s.client();
    for part in format!("GET {target} HTTP/1.1\r\nHost: app\r\n\r\n").as_bytes().chunks(7_000) {
        client.say(part);
    }
    let (mut server, _) = s.request(&format!("GET {target} HTTP/1.1"));
    server.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlong");
    client.head();
    assert_eq!(client.hear(4), b"long");
}

fn pipelining(s: &Script<'_>) {
    let mut client = s.client();
    let mut all = String::new();
    for n in 1..=3 {
        all += &format!("POST /{n} HTTP/1.1\r\nHost: app\r\nContent-Length: 6\r\n\r\nbody-{n}");
    }
    client.say(&all);
    for n in 1..=3 {
        let (mut server, _) = s.request(&format!("POST /{n} HTTP/1.1"));
        assert_eq!(server.hear(6), format!("body-{n}").as_bytes());
        server.say(format!("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nanswer-{n}"));
    }
    for n in 1..=3 {
        assert!(client.head().starts_with("HTTP/1.1 200 "));
        assert_eq!(client.hear(8), format!("answer-{n}").as_bytes());
    }
}

fn trailers(s: &Script<'_>) {
    let mut client = s.client();
    client.say(
        "POST /trailers HTTP/1.1\r\nHost: app\r\nTE: trailers\r\nTrailer: X-Request-Sum\r\n\
         Transfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n5;ext=1\r\nworld\r\n0\r\nX-Request-Sum: 17\r\n\r\n",
    );
    let (mut server, head) = s.request("POST /trailers HTTP/1.1");
    assert_eq!(values(&head, "transfer-encoding"), ["chunked"], "{head}");
    assert_eq!(values(&head, "trailer"), ["X-Request-Sum"], "{head}");
    let (body, trailers) = server.chunked();
    assert_eq!(body, b"hello world");
    assert_eq!(values(&trailers, "x-request-sum"), ["17"], "request trailers: {trailers:?}");
    server.say(
        "HTTP/1.1 200 OK\r\nTrailer: X-Reply-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\
         X-Reply-Sum: 42\r\n\r\n",
    );
    let head = client.head();
    assert_eq!(values(&head, "transfer-encoding"), ["chunked"], "{head}");
    let (body, trailers) = client.chunked();
    assert_eq!(body, b"abc");
    assert_eq!(values(&trailers, "x-reply-sum"), ["42"], "response trailers: {trailers:?}");
}

fn expect_continue(s: &Script<'_>) {
    // The body is sent only once it was asked for, by the server or by a proxy on its behalf.
    let mut client = s.client();
    client.say("PUT /big HTTP/1.1\r\nHost: app\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n");
    let answering = std::thread::spawn(move || {
        let interim = client.head();
        assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
        client.say("hello world");
        client.head()
    });
    let (mut server, head) = s.request("PUT /big HTTP/1.1");
    if !values(&head, "expect").is_empty() {
        server.say("HTTP/1.1 100 Continue\r\n\r\n");
    }
    assert_eq!(server.hear(11), b"hello world");
    server.say("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
    let head = answering.join().unwrap();
    assert!(head.starts_with("HTTP/1.1 201 "), "{head}");
}

fn server_sent_events(s: &Script<'_>) {
    let mut client = s.client();
    client.say("GET /events HTTP/1.1\r\nHost: app\r\nAccept: text/event-stream\r\n\r\n");
    let (mut server, _) = s.request("GET /events HTTP/1.1");
    server.say("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
    // The head arrives before there is any event.
    let head = client.head();
    assert_eq!(values(&head, "content-type"), ["text/event-stream"], "{head}");
    for n in 0..20 {
        let event = format!("data: {n}\n\n");
        server.say(format!("{:x}\r\n{event}\r\n", event.len()));
        // The next one is sent only after this one was read: a proxy that collects them stops the test.
        let size = usize::from_str_radix(client.hear_until("\r\n").trim(), 16).unwrap();
        assert_eq!(client.hear(size), event.as_bytes());
        client.hear(2);
    }
    server.say("0\r\n\r\n");
    assert_eq!(client.hear_until("0\r\n\r\n"), "0\r\n\r\n");
}

fn bodiless_responses(s: &Script<'_>) {
    // One connection: a body waited for or made up after any of these would break the next exchange.
    let mut client = s.client();
    let cases = [
        ("HEAD", "200 OK", "Content-Length: 1234\r\n", vec!["1234"]),
        ("GET", "304 Not Modified", "Content-Length: 77\r\nETag: \"e\"\r\n", vec!["77"]),
        ("GET", "204 No Content", "", vec![]),
    ];
    for (method, status, headers, length) in cases {
        client.say(format!("{method} / HTTP/1.1\r\nHost: app\r\n\r\n"));
        let (mut server, _) = s.request(&format!("{method} / HTTP/1.1"));
        server.say(format!("HTTP/1.1 {status}\r\n{headers}\r\n"));
        let head = client.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {}", &status[..3])), "{head}");
        assert_eq!(values(&head, "content-length"), length, "{method} {status}: {head}");
        assert!(values(&head, "transfer-encoding").is_empty(), "{method} {status}: {head}");
    }
    client.say("GET /last HTTP/1.1\r\nHost: app\r\n\r\n");
    let (mut server, _) = s.request("GET /last HTTP/1.1");
    server.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast");
    client.head();
    assert_eq!(client.hear(4), b"last");
}

fn http10(s: &Script<'_>) {
    let mut client = s.client();
    client.say("GET /old HTTP/1.0\r\nHost: app\r\nX-Old: yes\r\n\r\n");
    let (mut server, head) = s.server.request();
    assert!(head.starts_with("GET /old HTTP/1."), "{head}");
    assert!(has_line(&head, "X-Old: yes"), "{head}");
    // Chunks must not reach a client that cannot know them; it reads until the connection ends.
    server.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
    let head = client.head();
    assert!(head.contains(" 200 "), "{head}");
    assert!(values(&head, "transfer-encoding").is_empty(), "{head}");
    assert_eq!(client.hear_end(), b"hello world");

    // Keep-alive is HTTP/1.0's too, when it is asked for.
    let mut client = s.client();
    for _ in 0..2 {
        client.say("GET /old HTTP/1.0\r\nHost: app\r\nConnection: keep-alive\r\n\r\n");
        let (mut server, _) = s.server.request();
        server.say("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold");
        let head = client.head();
        assert!(values(&head, "connection").iter().any(|v| v.eq_ignore_ascii_case("keep-alive")), "{head}");
        assert_eq!(client.hear(3), b"old");
    }
}

fn response_ended_by_close(s: &Script<'_>) {
    let mut client = s.client();
    client.say("GET /until-close HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n");
    let (mut server, _) = s.request("GET /until-close HTTP/1.1");
    server.say("HTTP/1.0 200 OK\r\n\r\neverything until the end");
    server.shutdown(Shutdown::Both).unwrap();
    let head = client.head();
    assert!(head.contains(" 200 "), "{head}");
    let body = if values(&head, "transfer-encoding").is_empty() { client.hear_end() } else { client.chunked().0 };
    assert_eq!(body, b"everything until the end");
}

fn truncated_response(s: &Script<'_>) {
    // A server that dies in mid-response must look like one: never a short body that seems complete.
    let mut client = s.client();
    client.say("GET /dies HTTP/1.1\r\nHost: app\r\n\r\n");
    let (mut server, _) = s.request("GET /dies HTTP/1.1");
    server.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    client.head();
    assert_eq!(client.hear_until("hello\r\n"), "5\r\nhello\r\n");
    server.shutdown(Shutdown::Both).unwrap();
    let rest = client.hear_out();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a truncated body was ended as if it were whole");
}

fn both_families(s: &Script<'_>) {
    for address in [by4(80), by6(80)] {
        let mut client = s.pair.client.pod.connect(address);
        client.say("GET /family HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n");
        let (mut server, _) = s.request("GET /family HTTP/1.1");
        server.say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nfamily");
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 200 "), "{address}: {head}");
        assert_eq!(client.hear(6), b"family", "{address}");
    }
}
