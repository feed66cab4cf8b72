//! Tunnels from the switch to the end, in both protocols.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    http2::{Out, bare, client, full, serve},
    peer::{Peer, Upstream, header},
    support::{Proxy, Setup, pair, run, until},
};

pub(super) const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Asks for a websocket over HTTP/2.
pub(super) async fn extended(
    mut client: SendRequest<Out>,
    path: &str,
) -> tokio::task::JoinHandle<hyper::Result<Response<hyper::body::Incoming>>> {
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("http://x{path}"))
        .extension(hyper::ext::Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(full(""))
        .unwrap();
    // The peer's SETTINGS have to have arrived first.
    client.ready().await.unwrap();
    tokio::task::spawn_local(async move { client.send_request(request).await })
}

/// A websocket from an HTTP/2 client to an HTTP/1 server.
async fn extended_to_http1(proxy: &Proxy, upstream: &Upstream) -> (TokioIo<hyper::upgrade::Upgraded>, Peer) {
    let pending = extended(client(proxy).await, "/chat").await;
    let mut server = upstream.accept().await;
    server.head().await;
    server.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    let response = pending.await.unwrap().unwrap();
    (TokioIo::new(hyper::upgrade::on(response).await.unwrap()), server)
}

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
        let (proxy, upstream) = pair(|s| s.hcm.http2.allow_connect = true).await;
        let pending = extended(client(&proxy).await, "/chat").await;
        let mut server = upstream.accept().await;
        let head = server.head().await;
        assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
        assert_eq!(header(&head, "upgrade"), Some("websocket"));
        assert!(header(&head, "sec-websocket-key").is_some());
        server
            .send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            )
            .await;
        let response = pending.await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        // The client may be a proxy whose own client sent the key.
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
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
        // Servers of RFC 8441 do not say it, clients of RFC 6455 insist on it.
        assert_eq!(header(&head, "sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        client.send("echo").await;
        assert_eq!(client.exactly(4).await, "echo");
    });
}

#[test]
fn a_cancelled_stream_reaches_an_http1_server_as_a_reset() {
    run(async {
        let (proxy, upstream) = pair(|s| s.hcm.http2.allow_connect = true).await;
        let (mut stream, mut server) = extended_to_http1(&proxy, &upstream).await;
        stream.write_all(b"part").await.unwrap();
        assert_eq!(server.exactly(4).await, "part");
        // Dropped before its end: CANCEL.
        drop(stream);
        assert!(server.rest().await.is_err(), "a cut stream looked complete");
    });
}

#[test]
fn a_reset_by_an_http1_server_reaches_the_stream_as_one() {
    run(async {
        let (proxy, upstream) = pair(|s| s.hcm.http2.allow_connect = true).await;
        let mut sender = bare(&proxy).await;
        let request = Request::builder().method(Method::CONNECT).uri("http://x/chat");
        let request = request.extension(h2::ext::Protocol::from_static("websocket")).body(()).unwrap();
        let (response, _ours) = sender.send_request(request, false).unwrap();
        let mut server = upstream.accept().await;
        server.head().await;
        server.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\npart").await;
        let mut theirs = response.await.unwrap().into_body();
        assert_eq!(theirs.data().await.unwrap().unwrap(), "part");
        server.stream.set_zero_linger().unwrap();
        drop(server);
        let end = theirs.data().await;
        assert!(matches!(&end, Some(Err(e)) if e.reason() == Some(h2::Reason::CANCEL)), "{end:?}");
    });
}

#[test]
fn a_cancelled_stream_of_an_http2_server_resets_the_client() {
    run(async {
        let (upstream, address) = Upstream::bind().await;
        let proxy = Setup::new(&[address]).upstream_http2().start().await;
        tokio::task::spawn_local(async move {
            let stream = upstream.0.accept().await.unwrap().0;
            let mut builder = h2::server::Builder::new();
            let mut connection = builder.enable_connect_protocol().handshake::<_, Bytes>(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                tokio::task::spawn_local(async move {
                    let mut ours = respond.send_response(Response::new(()), false).unwrap();
                    ours.send_data(Bytes::from_static(b"part"), false).unwrap();
                    // Only what the client has is surely not taken back.
                    assert_eq!(request.into_body().data().await.unwrap().unwrap(), "go");
                    ours.send_reset(h2::Reason::CANCEL);
                });
            }
        });
        let mut client = proxy.connect().await;
        client.send(UPGRADE).await;
        assert!(client.head().await.starts_with("HTTP/1.1 101"));
        assert_eq!(client.exactly(4).await, "part");
        client.send("go").await;
        assert!(client.rest().await.is_err(), "a cut stream looked complete");
    });
}

#[test]
fn first_bytes_that_nobody_takes_run_into_the_idle_limit() {
    run(async {
        let limit = std::time::Duration::from_millis(300);
        let (proxy, upstream) = pair(|s| s.hcm.stream_idle_timeout = Some(limit)).await;
        let mut client = proxy.connect().await;
        // As much as the codec reads, and more than the sockets in between hold.
        let rest = "x".repeat(4 << 20);
        let (mut reader, mut writer) = client.stream.split();
        let writing = async {
            let _ = writer.write_all(UPGRADE.as_bytes()).await;
            let _ = writer.write_all(rest.as_bytes()).await;
        };
        let serving = async {
            let mut server = upstream.accept().await;
            server.head().await;
            server.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
            // Takes nothing; what it says goes through all the same.
            server.send("hello").await;
            server
        };
        let reading = async {
            let mut heard = Vec::new();
            let _ = reader.read_to_end(&mut heard).await;
            heard
        };
        let ((), heard, _server) = tokio::join!(writing, reading, serving);
        assert!(heard.ends_with(b"hello"), "{}", String::from_utf8_lossy(&heard));
        let log = proxy.log(1).await;
        assert!(log[0].starts_with("101 SI stream_idle_timeout"), "{log:?}");
        until(|| proxy.stats.local().downstream_cx_active.get() == 0).await;
    });
}
