//! Mirrored requests from socket to socket.

use super::{
    peer::{Upstream, header},
    support::{Setup, pair, run, until},
};
use crate::ir::{
    Fraction,
    filters::Mutation,
    route::{Mirror, MirrorTarget},
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn mirror(setup: &mut Setup, change: impl FnOnce(&mut Mirror)) {
    let target = MirrorTarget::Cluster("mirror".into());
    let mut mirror = Mirror { target, fraction: None, suffix: true, host: None, mutations: Vec::new() };
    change(&mut mirror);
    setup.forward.mirrors = [mirror].into();
}

#[test]
fn a_copy_goes_to_the_mirror_and_its_answer_to_nobody() {
    run(async {
        let (shadow, address) = Upstream::bind().await;
        let (proxy, upstream) = pair(|s| {
            mirror(s, |_| {});
            s.others = vec![("mirror", address)];
        })
        .await;
        let mut client = proxy.connect().await;
        client.send("POST /p HTTP/1.1\r\nHost: x:81\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
        let (mut server, mut copy) = (upstream.accept().await, shadow.accept().await);
        let (asked, copied) = (server.head().await, copy.head().await);
        assert_eq!((header(&asked, "host"), header(&copied, "host")), (Some("x:81"), Some("x-shadow:81")));
        assert_eq!((header(&asked, "x-envoy-internal"), header(&copied, "x-envoy-internal")), (None, Some("true")));
        assert_eq!(header(&asked, "x-request-id"), header(&copied, "x-request-id"));
        // Frame by frame, not at the end.
        assert!(server.until("abc\r\n").await.ends_with("abc\r\n") && copy.until("abc\r\n").await.ends_with("abc\r\n"));
        client.send("0\r\n\r\n").await;
        server.until("0\r\n\r\n").await;
        copy.until("0\r\n\r\n").await;
        copy.send("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n").await;
        server.send(OK).await;
        let (head, body) = client.message().await;
        assert!(head.starts_with("HTTP/1.1 200") && body == "ok", "{head}");
        assert_eq!(proxy.log(1).await, ["200 - via_upstream 1 3 2 /p"]);
        assert_eq!(proxy.filter_stats.local().mirrored.get(), 1);
    });
}

#[test]
fn a_mirror_that_does_not_answer_or_read_harms_nothing() {
    run(async {
        let (shadow, address) = Upstream::bind().await;
        let (proxy, upstream) = pair(|s| {
            mirror(s, |_| {});
            s.cluster.buffer_limit = 64 * 1024;
            s.others = vec![("mirror", address)];
        })
        .await;
        let mut client = proxy.connect().await;
        let size = 16 << 20;
        client.send(&format!("POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n")).await;
        let (mut server, _copy) = (upstream.accept().await, shadow.accept().await);
        server.head().await;
        let chunk = "x".repeat(1 << 20);
        for _ in 0..16 {
            client.send(&chunk).await;
            server.exactly(1 << 20).await;
        }
        server.send(OK).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
        assert_eq!(proxy.filter_stats.local().mirror_dropped.get(), 1, "what the mirror cannot take is not kept");
    });
}

#[test]
fn mirrors_may_be_missing_unlucky_or_dressed_differently() {
    run(async {
        let (shadow, address) = Upstream::bind().await;
        for (case, change) in [
            ("missing", (|m| m.target = MirrorTarget::Cluster("gone".into())) as fn(&mut Mirror)),
            ("no header", |m| m.target = MirrorTarget::Header(http::HeaderName::from_static("x-none"))),
            ("never", |m| m.fraction = Some(Fraction { numerator: 0, denominator: 100 })),
            ("dressed", |m| {
                m.target = MirrorTarget::Header(http::HeaderName::from_static("x-mirror"));
                m.host = Some("other".into());
                m.mutations = vec![Mutation::Remove(http::HeaderName::from_static("x-a"))];
            }),
        ] {
            let (proxy, upstream) = pair(|s| {
                mirror(s, change);
                s.others = vec![("mirror", address)];
            })
            .await;
            let mut client = proxy.connect().await;
            client.send("GET /p HTTP/1.1\r\nHost: x\r\nX-A: a\r\nX-Mirror: mirror\r\n\r\n").await;
            let mut server = upstream.accept().await;
            server.head().await;
            server.send(OK).await;
            assert!(client.head().await.starts_with("HTTP/1.1 200"), "{case}");
            let stats = proxy.filter_stats.local();
            let expected = match case {
                "never" => (0, 0),
                "dressed" => (1, 0),
                _ => (0, 1),
            };
            assert_eq!((stats.mirrored.get(), stats.mirror_dropped.get()), expected, "{case}");
            if case == "dressed" {
                let copied = shadow.accept().await.head().await;
                assert_eq!((header(&copied, "host"), header(&copied, "x-a")), (Some("other"), None));
            }
        }
    });
}

#[test]
fn a_mirror_that_is_down_is_only_counted() {
    run(async {
        let (shadow, address) = Upstream::bind().await;
        drop(shadow);
        let (proxy, upstream) = pair(|s| {
            mirror(s, |_| {});
            s.others = vec![("mirror", address)];
        })
        .await;
        let mut client = proxy.connect().await;
        client.send("GET /p HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send(OK).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
        until(|| proxy.filter_stats.local().mirrored.get() == 1).await;
        assert_eq!(proxy.log(1).await, ["200 - via_upstream 1 0 2 /p"]);
    });
}
