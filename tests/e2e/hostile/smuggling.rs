//! Requests that two readers might understand differently: refused, or passed on in a way nobody can misread.

use std::{io::Write, time::Duration};

use outrigger_tests::{
    Exchange, Pair,
    exchange::{Server, values},
    need,
    pair::{by4, pair},
};

const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: app\r\n\r\n";

#[test]
fn nothing_is_smuggled() {
    need!("ip", "curl");
    let mut pair = pair(&[("http", 80, 9080), ("whatever", 7100, 9080)]);
    let server = Server::new(pair.server.pod.listen(9080));
    for port in [80, 7100] {
        refused(&pair, &server, port);
        passed_unambiguously(&pair, &server, port);
    }
    pair.assert_sound();
}

fn refused(pair: &Pair, server: &Server, port: u16) {
    let many = "0".repeat(20);
    let cases = [
        ("two lengths", "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\n".to_owned()),
        ("a list of lengths", "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 0, 44\r\n\r\n".to_owned()),
        ("a negative length", "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: -1\r\n\r\n".to_owned()),
        ("a signed length", "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: +5\r\n\r\nhello".to_owned()),
        ("a huge length", format!("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 9{many}\r\n\r\n")),
        (
            "chunked twice",
            "POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n".to_owned(),
        ),
        (
            "an unknown encoding",
            "POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n".to_owned(),
        ),
        ("a space before the colon", "POST / HTTP/1.1\r\nHost: app\r\nContent-Length : 5\r\n\r\nhello".to_owned()),
        ("a NUL in a value", "GET / HTTP/1.1\r\nHost: app\r\nX: a\0b\r\n\r\n".to_owned()),
        ("a bare CR in a value", "GET / HTTP/1.1\r\nHost: app\r\nX: a\rContent-Length: 5\r\n\r\n".to_owned()),
        ("no version", "GET /\r\n\r\n".to_owned()),
        ("version 3", "GET / HTTP/3.0\r\nHost: app\r\n\r\n".to_owned()),
        ("a space in the target", "GET /a b HTTP/1.1\r\nHost: app\r\n\r\n".to_owned()),
        ("two hosts", "GET / HTTP/1.1\r\nHost: app\r\nHost: other\r\n\r\n".to_owned()),
    ];
    for (what, attack) in cases {
        let mut client = pair.client.pod.connect(by4(port));
        client.say(format!("{attack}{HIDDEN}"));
        let mut answer = None;
        // Either a refusal without the server, or the server sees something: then it must be no smuggled request.
        for _ in 0..2 {
            match server.try_request(Duration::from_millis(150)) {
                Some((_, head)) if head.contains("/smuggled") => panic!("port {port}, {what}: smuggled: {head}"),
                Some((mut connection, head)) => {
                    answer = Some(head);
                    let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                }
                None => break,
            }
        }
        assert!(answer.is_none(), "port {port}, {what}: reached the server as {answer:?}");
        let said = String::from_utf8_lossy(&client.hear_out()).into_owned();
        let status = said.lines().next().unwrap_or_default();
        let refused = ["400", "501", "505", "431", "426"].iter().any(|s| status.starts_with(&format!("HTTP/1.1 {s}")));
        // Closing without a word is a refusal as well (port 7100 may not even take it for HTTP).
        assert!(refused || said.is_empty(), "port {port}, {what}: {said}");
    }
}

/// Length and chunks at once: the chunks count, and the length must not travel on.
fn passed_unambiguously(pair: &Pair, server: &Server, port: u16) {
    let mut client = pair.client.pod.connect(by4(port));
    client.say(format!(
        "POST /both HTTP/1.1\r\nHost: app\r\nContent-Length: 44\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"
    ));
    if let Some((mut connection, head)) = server.try_request(Duration::from_millis(300)) {
        assert!(head.starts_with("POST /both "), "{head}");
        assert!(
            values(&head, "content-length").is_empty() || values(&head, "transfer-encoding").is_empty(),
            "port {port}: passed on with both: {head}"
        );
        if !values(&head, "transfer-encoding").is_empty() {
            assert!(connection.chunked().0.is_empty());
        }
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        // After a message like this the connection must not go on (RFC 9112, 6.1).
        let next = server.try_request(Duration::from_millis(150)).map(|(_, head)| head);
        assert!(next.is_none(), "port {port}: the connection went on: {next:?}");
    } else {
        let said = String::from_utf8_lossy(&client.hear_out()).into_owned();
        assert!(said.starts_with("HTTP/1.1 400") || said.is_empty(), "port {port}: {said}");
    }
}
