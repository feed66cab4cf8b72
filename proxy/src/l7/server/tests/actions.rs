//! What routes do, from socket to socket.

use std::sync::Arc;

use http::StatusCode;

use super::{
    peer::header,
    support::{pair, run},
};
use crate::ir::{
    format::{JsonField, LogFormat, Operator, Template},
    route::{
        Action, AppendAction, BodyFormat, DirectResponse, HeaderAdd, HeaderOps, HostRewrite, InternalRedirect,
        PathRewrite, Target, WeightedTarget,
    },
};

#[test]
fn a_formatted_answer_knows_the_request() {
    run(async {
        let mut template = Template::parse("<%LOCAL_REPLY_BODY%> %REQ(:path)% %REQ(x-none)%").unwrap();
        template.substitute(&Operator::LocalReplyBody, "hi");
        let fields = vec![("path".into(), JsonField::Value(Template::parse("%REQ(:path)%").unwrap()))];
        for (format, content_type, body) in [
            (LogFormat::Text(template), "text/plain", "<hi> /p -"),
            (LogFormat::Json(fields), "application/json", "{\"path\":\"/p\"}\n"),
        ] {
            let (proxy, _upstream) = pair(|s| {
                let format = Some(BodyFormat { format, content_type: None });
                let direct = DirectResponse { status: StatusCode::CREATED, body: "hi".into(), format };
                s.action = Some(Action::Direct(Arc::new(direct)));
            })
            .await;
            let mut client = proxy.connect().await;
            client.send("GET /p HTTP/1.1\r\nHost: x\r\n\r\n").await;
            let (head, text) = client.message().await;
            assert_eq!((text.as_str(), header(&head, "content-type")), (body, Some(content_type)), "{head}");
            assert_eq!(header(&head, "location"), Some("http://x/p"));
        }
    });
}

#[test]
fn a_weighted_cluster_may_be_named_by_a_header() {
    run(async {
        let (proxy, upstream) = pair(|s| {
            s.forward.target = Target::Weighted(vec![WeightedTarget {
                cluster: "".into(),
                cluster_header: Some(http::HeaderName::from_static("x-cluster")),
                weight: 1,
                headers: HeaderOps::default(),
                host_rewrite: None,
                overrides: None,
                criteria: None,
            }]);
        })
        .await;
        let mut client = proxy.connect().await;
        client.send("GET /p HTTP/1.1\r\nHost: x\r\nX-Cluster: up\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
        for cluster in ["X-Cluster: gone\r\n", ""] {
            client.send(&format!("GET /p HTTP/1.1\r\nHost: x\r\n{cluster}\r\n")).await;
            assert!(client.head().await.starts_with("HTTP/1.1 503"));
        }
        assert_eq!(proxy.log(3).await[2], "503 NC cluster_not_found 0 0 0 /p");
    });
}

fn following(max: u32) -> InternalRedirect {
    InternalRedirect {
        max,
        codes: vec![StatusCode::FOUND, StatusCode::SEE_OTHER],
        cross_scheme: false,
        copied_headers: vec![http::HeaderName::from_static("x-copied")],
        predicates: Vec::new(),
    }
}

fn redirect(status: u16, location: &str) -> String {
    format!("HTTP/1.1 {status} R\r\nLocation: {location}\r\nX-Copied: c\r\nContent-Length: 0\r\n\r\n")
}

#[test]
fn redirects_of_the_upstream_are_followed_so_many_times() {
    run(async {
        let (proxy, upstream) = pair(|s| s.forward.internal_redirect = Some(following(2).into())).await;
        let mut client = proxy.connect().await;
        client.send("GET /a?b HTTP/1.1\r\nHost: x\r\nX-Own: o\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send(&redirect(302, "http://other:81/next?q=1")).await;
        let asked = server.head().await;
        assert!(asked.starts_with("GET /next?q=1 HTTP/1.1"), "{asked}");
        assert_eq!((header(&asked, "host"), header(&asked, "x-own")), (Some("other:81"), Some("o")));
        assert_eq!(header(&asked, "x-envoy-original-url"), Some("http://x/a?b"));
        assert_eq!(header(&asked, "x-copied"), Some("c"));
        server.send(&redirect(302, "http://other/third")).await;
        server.head().await;
        server.send(&redirect(302, "http://other/fourth")).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 302"), "{head}");
        assert_eq!(header(&head, "location"), Some("http://other/fourth"));
        let stats = proxy.cluster_stats.local();
        assert_eq!(stats.upstream_internal_redirect_succeeded_total.get(), 2);
        assert_eq!(stats.upstream_internal_redirect_failed_total.get(), 1);
        assert_eq!(proxy.filter_stats.local().redirect_too_many.get(), 1);
        assert_eq!(proxy.log(1).await, ["302 - via_upstream 1 0 0 /third"]);
    });
}

#[test]
fn redirects_that_are_not_for_us_go_to_the_client() {
    run(async {
        for (request, status, location) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 302, "/relative"),
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 302, "https://x/other-scheme"),
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 301, "http://x/not-this-code"),
        ] {
            let (proxy, upstream) = pair(|s| s.forward.internal_redirect = Some(following(2).into())).await;
            let mut client = proxy.connect().await;
            client.send(request).await;
            let mut server = upstream.accept().await;
            server.message().await;
            server.send(&redirect(status, location)).await;
            let head = client.head().await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
            assert_eq!(header(&head, "location"), Some(location));
        }
    });
}

#[test]
fn see_other_is_asked_for_with_get() {
    run(async {
        let (proxy, upstream) = pair(|s| s.forward.internal_redirect = Some(following(1).into())).await;
        let mut client = proxy.connect().await;
        client.send("DELETE / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send(&redirect(303, "http://x/done")).await;
        assert!(server.head().await.starts_with("GET /done HTTP/1.1"));
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 200"));
    });
}

#[test]
fn header_values_know_the_exchange_with_or_without_a_log() {
    run(async {
        for unlogged in [false, true] {
            let add = |name: &'static str, value: &str| HeaderAdd {
                name: http::HeaderName::from_static(name),
                value: Template::parse(value).unwrap(),
                action: AppendAction::OverwriteIfExistsOrAdd,
                keep_empty_value: false,
            };
            let (proxy, upstream) = pair(|s| {
                s.unlogged = unlogged;
                s.headers.request_add = vec![add("x-route", "%ROUTE_NAME% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%")];
                s.headers.response_add =
                    vec![add("x-from", "%UPSTREAM_CLUSTER% %UPSTREAM_HOST% %RESPONSE_CODE% %RESPONSE_FLAGS%")];
            })
            .await;
            let address = upstream.0.local_addr().unwrap();
            let mut client = proxy.connect().await;
            client.send("GET /p HTTP/1.1\r\nHost: x\r\n\r\n").await;
            let mut server = upstream.accept().await;
            let asked = server.head().await;
            assert_eq!(header(&asked, "x-route"), Some("the-route 127.0.0.1"), "{asked}");
            server.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
            let head = client.head().await;
            assert_eq!(header(&head, "x-from"), Some(format!("up {address} 201 -").as_str()), "{head}");
        }
    });
}

#[test]
fn a_small_body_goes_along() {
    run(async {
        let (proxy, upstream) = pair(|s| s.forward.internal_redirect = Some(following(1).into())).await;
        for (framing, body) in [("Content-Length: 2", "hi"), ("Transfer-Encoding: chunked", "2\r\nhi\r\n0\r\n\r\n")] {
            let mut client = proxy.connect().await;
            client.send(&format!("POST / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n{body}")).await;
            let mut server = upstream.accept().await;
            server.head().await;
            server.until(body).await;
            server.send(&redirect(302, "http://x/there")).await;
            let asked = server.head().await;
            assert!(asked.starts_with("POST /there HTTP/1.1"), "{asked}");
            server.until(body).await;
            server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
            assert!(client.head().await.starts_with("HTTP/1.1 200"));
        }
    });
}

#[test]
fn a_large_body_stays_and_the_redirect_goes_to_the_client() {
    run(async {
        let (proxy, upstream) = pair(|s| s.forward.internal_redirect = Some(following(1).into())).await;
        let mut client = proxy.connect().await;
        let size = 100_000;
        client.send(&format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n{}", "x".repeat(size))).await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.exactly(size).await;
        server.send(&redirect(302, "http://x/there")).await;
        assert!(client.head().await.starts_with("HTTP/1.1 302"));
    });
}

#[test]
fn paths_and_hosts_are_made_of_what_is_known_of_the_request() {
    run(async {
        let (proxy, upstream) = pair(|s| {
            s.forward.path_rewrite = Some(PathRewrite::Format(Template::parse("%REQ(x-p)%").unwrap()));
            s.forward.host_rewrite = Some(HostRewrite::Format(Template::parse("h-%REQ(x-h)%").unwrap()));
        })
        .await;
        let mut client = proxy.connect().await;
        let mut server = None;
        for (headers, path, host) in
            [("X-P: /v\r\nX-H: w\r\n", "/v?q", "h-w"), ("", "/p?q", "h--"), ("X-P: /v?own\r\n", "/v?own", "h--")]
        {
            client.send(&format!("GET /p?q HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
            if server.is_none() {
                server = Some(upstream.accept().await);
            }
            let server = server.as_mut().unwrap();
            let asked = server.head().await;
            assert!(asked.starts_with(&format!("GET {path} HTTP/1.1")), "{asked}");
            assert_eq!(header(&asked, "host"), Some(host));
            server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            client.head().await;
        }
    });
}
