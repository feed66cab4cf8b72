//! Side calls against scripted peers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};

use super::{
    peer::{Upstream, header},
    support::{Proxy, Setup, pair, run, until},
};
use crate::l7::side::{self, Ask, SideError};

fn ask(cluster: &str) -> Ask {
    Ask { cluster: cluster.into(), timeout: Some(Duration::from_secs(20)), limit: 16, downstream: None }
}

fn question() -> Request<Bytes> {
    Request::post("/q?a=b").header("host", "who").body(Bytes::from_static(b"body")).unwrap()
}

#[test]
fn a_question_is_answered_over_http() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let asked = ask("up");
        let (answer, _) = tokio::join!(side::http(&proxy.engine, &asked, question()), async {
            let mut server = upstream.accept().await;
            let (head, body) = server.message().await;
            assert!(head.starts_with("POST /q?a=b HTTP/1.1"), "{head}");
            assert_eq!((header(&head, "host"), &*body), (Some("who"), "body"));
            server.send("HTTP/1.1 403 No\r\nX-Why: because\r\nContent-Length: 2\r\n\r\nno").await;
            server
        });
        let answer = answer.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.headers()["x-why"]), (403, &HeaderValue::from_static("because")));
        assert_eq!(answer.body(), "no");
        let stats = proxy.cluster_stats.local();
        assert_eq!((stats.upstream_rq_total.get(), stats.upstream_rq_4xx.get()), (1, 1));
    });
}

#[test]
fn there_is_a_reason_for_every_missing_answer() {
    run(async {
        let (mute, address) = Upstream::bind().await;
        let closed = Upstream::bind().await.1;
        let (proxy, upstream) = pair(|s| s.others = vec![("mute", address), ("closed", closed)]).await;
        let fails = async |ask: Ask| side::http(&proxy.engine, &ask, question()).await.unwrap_err();
        assert_eq!(fails(ask("none")).await, SideError::NoCluster);
        assert!(matches!(fails(ask("closed")).await, SideError::Failed(_)));
        let hasty = Ask { timeout: Some(Duration::from_millis(20)), ..ask("mute") };
        assert_eq!(fails(hasty).await, SideError::Timeout);
        drop(mute);
        let (error, _) = tokio::join!(fails(ask("up")), async {
            let mut server = upstream.accept().await;
            server.message().await;
            server.send("HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n12345678901234567").await;
            server
        });
        assert_eq!(error, SideError::TooLarge);
    });
}

#[test]
fn who_stops_waiting_cancels_the_call() {
    run(async {
        let (proxy, upstream) = pair(|_| {}).await;
        let (engine, asked) = (proxy.engine.clone(), ask("up"));
        let waiting = tokio::task::spawn_local(async move { side::http(&engine, &asked, question()).await });
        let mut server = upstream.accept().await;
        server.message().await;
        waiting.abort();
        assert_eq!(server.rest().await.unwrap_or_default(), "");
        until(|| proxy.cluster_stats.local().upstream_cx_active.get() == 0).await;
    });
}

/// Serves one gRPC call: the body and the trailers of the answer.
async fn answered(body: &'static [u8], trailers: &[(&'static str, &'static str)]) -> Result<String, SideError> {
    let (upstream, address) = Upstream::bind().await;
    let proxy: Proxy = Setup::new(&[address]).upstream_http2().start().await;
    let mut head = HeaderMap::new();
    head.insert("x-more", HeaderValue::from_static("metadata"));
    let (question, asked) = ("question".to_owned(), ask("up"));
    let call = side::unary::<String, String>(&proxy.engine, &asked, ("/a.B/C", head), &question);
    let serve = async {
        let stream = upstream.0.accept().await.unwrap().0;
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        tokio::task::spawn_local(async move { while connection.accept().await.is_some() {} });
        let (parts, mut incoming) = request.into_parts();
        assert_eq!((parts.uri.path(), parts.uri.authority().unwrap().as_str()), ("/a.B/C", "up"));
        for (name, value) in [
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("x-more", "metadata"),
            ("grpc-timeout", "20000m"),
        ] {
            assert_eq!(parts.headers[name], value);
        }
        assert_eq!(incoming.data().await.unwrap().unwrap(), b"\0\0\0\0\x0a\x0a\x08question"[..]);
        let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut sending = respond.send_response(response, false).unwrap();
        sending.send_data(Bytes::from_static(body), false).unwrap();
        let pairs = trailers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        sending.send_trailers(pairs.collect()).unwrap();
    };
    tokio::join!(call, serve).0
}

#[test]
fn a_call_has_one_message_and_a_status() {
    run(async {
        const YES: &[u8] = b"\0\0\0\0\x05\x0a\x03yes";
        assert_eq!(answered(YES, &[("grpc-status", "0")]).await, Ok("yes".to_owned()));
        let denied = answered(b"", &[("grpc-status", "7"), ("grpc-message", "no")]).await;
        assert_eq!(denied, Err(SideError::Status(7, "no".to_owned())));
        assert_eq!(answered(YES, &[("x", "y")]).await, Err(SideError::Malformed));
        assert_eq!(answered(b"\x01\0\0\0\0", &[("grpc-status", "0")]).await, Err(SideError::Malformed));
        assert_eq!(answered(&[0; 17], &[("grpc-status", "0")]).await, Err(SideError::TooLarge));
    });
}
