//! gRPC-Web from socket to socket.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    faults::chain,
    peer::header,
    support::{pair, run},
};
use crate::ir::http::FilterKind;

/// A gRPC answer over HTTP/1, as a bridge would give it.
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTrailer: grpc-status\r\n\
                      Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\ngrpc-status: 0\r\n\r\n";

fn request(kind: &str, accept: &str, body: &str) -> String {
    format!(
        "POST /s/m HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nAccept: {accept}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The chunks of a body.
async fn chunked(client: &mut super::peer::Peer) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let size = client.until("\r\n").await;
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let data = client.bytes(size + 2).await;
        all.extend_from_slice(&data[..size]);
        if size == 0 {
            return all;
        }
    }
}

#[test]
fn trailers_become_the_last_frame() {
    run(async {
        let (proxy, upstream) = pair(|s| chain(s, [("w", FilterKind::GrpcWeb)])).await;
        let frame = [&b"hello"[..], &[0x80, 0, 0, 0, 15], b"grpc-status:0\r\n"].concat();
        for (suffix, body) in [("", "ping".to_owned()), ("-text", STANDARD.encode("ping"))] {
            let kind = format!("application/grpc-web{suffix}");
            let mut client = proxy.connect().await;
            client.send(&request(&kind, &kind, &body)).await;
            let mut server = upstream.accept().await;
            let asked = server.head().await;
            assert_eq!(
                (header(&asked, "content-type"), header(&asked, "te")),
                (Some("application/grpc"), Some("trailers"))
            );
            assert_eq!(
                (header(&asked, "content-length"), header(&asked, "grpc-accept-encoding")),
                (None, Some("identity"))
            );
            server.until("ping").await;
            server.until("0\r\n\r\n").await;
            server.send(ANSWER).await;
            let head = client.head().await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            assert_eq!(header(&head, "content-type"), Some(format!("{kind}+proto").as_str()));
            let mut found = chunked(&mut client).await;
            if !suffix.is_empty() {
                found = STANDARD.decode(&found).unwrap();
            }
            assert_eq!(found, frame);
        }
    });
}

#[test]
fn what_is_not_grpc_becomes_a_failure() {
    run(async {
        let (proxy, upstream) = pair(|s| chain(s, [("w", FilterKind::GrpcWeb)])).await;
        let mut client = proxy.connect().await;
        client.send(&request("application/grpc-web", "*/*", "ping")).await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.until("0\r\n\r\n").await;
        server.send("HTTP/1.1 403 No\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\nno, 50%").await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 403"), "{head}");
        assert_eq!((header(&head, "grpc-status"), header(&head, "grpc-message")), (Some("7"), Some("no, 50%25")));
        assert_eq!(header(&head, "content-length"), Some("0"));
    });
}

#[test]
fn other_requests_pass_and_bad_text_does_not_reach_its_end() {
    run(async {
        let (proxy, upstream) = pair(|s| chain(s, [("w", FilterKind::GrpcWeb)])).await;
        let mut client = proxy.connect().await;
        client.send(&request("application/json", "*/*", "{}")).await;
        let mut server = upstream.accept().await;
        let (asked, body) = server.message().await;
        assert_eq!((header(&asked, "content-type"), body.as_str()), (Some("application/json"), "{}"));
        server.send("HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 2\r\n\r\nok").await;
        let (head, body) = client.message().await;
        assert_eq!((header(&head, "content-type"), body.as_str()), (Some("a/b"), "ok"));
        let mut client = proxy.connect().await;
        client.send(&request("application/grpc-web-text", "*/*", "cGlu*")).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 400"), "{head}");
        assert_eq!(header(&head, "grpc-status"), Some("13"));
        assert_eq!(header(&head, "grpc-message"), Some("Bad gRPC-web request, invalid base64 data."));
        assert!(proxy.log(2).await[1].starts_with("400 - grpc_base_64_decode_failed"));
    });
}
