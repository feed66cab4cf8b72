//! Upgrades and CONNECT, in both protocols.

use http::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    http2::{client, full, serve},
    peer::{Upstream, header},
    support::{Setup, pair, run, until},
};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

#[test]
fn websockets_relay_until_both_sides_are_done() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = proxy.connect().await;
        client.send(UPGRADE).await;
        let mut server = upstream.accept().await;
        let head = server.head().await;
        assert_eq!(header(&head, "upgrade"), Some("websocket"), "{head}");
        assert_eq!(header(&head, "connection"), Some("upgrade"));
        assert_eq!(header(&head, "sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
        // The first frame may come in one piece with the head.
        server
            .send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello",
            )
            .await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert_eq!(header(&head, "upgrade"), Some("websocket"));
        assert_eq!(header(&head, "sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(client.exactly(5).await, "hello");
        assert_eq!(proxy.stats.local().downstream_cx_upgrades_active.get(), 1);
        client.send("ping").await;
        assert_eq!(server.exactly(4).await, "ping");
        // Half-close: the other direction goes on.
        client.stream.shutdown().await.unwrap();
        assert_eq!(server.rest().await.unwrap(), "");
        server.send("late").await;
        drop(server);
        assert_eq!(client.rest().await.unwrap(), "late");
        assert_eq!(proxy.log(1).await, ["101 - via_upstream 1 4 9 /chat"]);
        until(|| proxy.stats.local().downstream_cx_active.get() == 0).await;
        assert_eq!(proxy.stats.local().downstream_cx_upgrades_active.get(), 0);
    });
}

#[test]
fn refused_upgrades_stay_http() {
    run(async {
        let (proxy, upstream) = pair(|s| s.forward.upgrades = vec![("telnet".into(), true)]).await;
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: mqtt\r\n\r\n").await;
        let (head, _) = client.message().await;
        assert!(head.starts_with("HTTP/1.1 403"), "{head}");
        assert_eq!(proxy.log(1).await, ["403 - upgrade_failed 0 0 0 /"]);
        // Allowed, but the upstream would rather not.
        let mut client = proxy.connect().await;
        client.send(UPGRADE).await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").await;
        let (head, body) = client.message().await;
        assert!(head.starts_with("HTTP/1.1 200") && body == "no", "{head}");
        // An offer of h2c is declined in silence.
        let mut client = proxy.connect().await;
        client.send("GET /h2c HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n").await;
        let head = server.head().await.to_ascii_lowercase();
        assert!(!head.contains("h2c\r\n") && !head.contains("http2-settings"), "{head}");
    });
}

#[test]
fn connect_makes_a_tunnel() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = proxy.connect().await;
        client.send("CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n").await;
        let mut server = upstream.accept().await;
        assert!(server.head().await.starts_with("CONNECT db.example:5432 HTTP/1.1\r\n"));
        server.send("HTTP/1.1 200 OK\r\n\r\n").await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(header(&head, "content-length"), None, "{head}");
        client.send("to the database").await;
        assert_eq!(server.exactly(15).await, "to the database");
        server.send("and back").await;
        assert_eq!(client.exactly(8).await, "and back");
        drop(client);
        assert_eq!(server.rest().await.unwrap_or_default(), "");
    });
}

#[test]
fn extended_connect_reaches_an_http1_websocket() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let mut client = client(&proxy).await;
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri("http://x/chat")
            .extension(hyper::ext::Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .body(full(""))
            .unwrap();
        // The peer's SETTINGS have to have arrived first.
        client.ready().await.unwrap();
        let mut sender = client.clone();
        let pending = tokio::task::spawn_local(async move { sender.send_request(request).await });
        let mut server = upstream.accept().await;
        let head = server.head().await;
        assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
        assert_eq!(header(&head, "upgrade"), Some("websocket"));
        assert!(header(&head, "sec-websocket-key").is_some());
        server.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
        let response = pending.await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        stream.write_all(b"ping").await.unwrap();
        assert_eq!(server.exactly(4).await, "ping");
        server.send("pong").await;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"pong");
        drop(server);
        assert_eq!(stream.read(&mut answer).await.unwrap(), 0);
    });
}

#[test]
fn http1_websockets_cross_an_http2_hop() {
    run(async {
        let (upstream, address) = Upstream::bind().await;
        let proxy = Setup::new(&[address]).upstream_http2().start().await;
        serve(upstream, |mut request| async move {
            assert_eq!(request.method(), Method::CONNECT);
            assert_eq!(request.extensions().get::<hyper::ext::Protocol>().unwrap().as_str(), "websocket");
            assert_eq!(request.uri().path(), "/chat");
            let promise = hyper::upgrade::on(&mut request);
            tokio::task::spawn_local(async move {
                let mut stream = TokioIo::new(promise.await.unwrap());
                let mut seen = [0; 4];
                stream.read_exact(&mut seen).await.unwrap();
                stream.write_all(&seen).await.unwrap();
                stream.shutdown().await.unwrap();
            });
            Ok(Response::new(full("")))
        });
        // The pool learns of the peer's support with its SETTINGS, which a first request waits for.
        let mut client = proxy.connect().await;
        client.send(UPGRADE).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert_eq!(header(&head, "upgrade"), Some("websocket"));
        client.send("echo").await;
        assert_eq!(client.exactly(4).await, "echo");
    });
}
