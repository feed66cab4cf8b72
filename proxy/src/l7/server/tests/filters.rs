//! CORS, buffering, header mutation and adaptive concurrency from socket to socket.

use std::{sync::Arc, time::Duration};

use http::StatusCode;

use super::{
    faults::{ALL, GET, OK, aborting, chain, level},
    peer::header,
    support::{pair, run},
};
use crate::ir::{
    filters::{AbortKind, Concurrency, Cors, Mutation, Mutations, Overrides, QueryMutation, Setting},
    format::Template,
    http::FilterKind,
    matcher::StringMatcher,
    route::{AppendAction, HeaderAdd},
};

fn policy() -> Arc<Cors> {
    Arc::new(Cors {
        allow_origins: vec![StringMatcher::exact("http://a")],
        allow_methods: Some(http::HeaderValue::from_static("GET,POST")),
        allow_headers: None,
        expose_headers: Some(http::HeaderValue::from_static("x-e")),
        max_age: None,
        allow_credentials: Some(true),
        allow_private_network: None,
        forward_not_matching_preflights: None,
        enabled: ALL,
        shadow: None,
    })
}

#[test]
fn preflights_are_answered_and_responses_marked() {
    run(async {
        for old in [false, true] {
            let (proxy, upstream) = pair(|s| {
                chain(s, [("c", FilterKind::Cors)]);
                if old {
                    s.vhost.overrides = Some(Arc::new(Overrides { cors: Some(policy()), ..Overrides::default() }));
                } else {
                    s.overrides = level([("c", Setting::Cors(policy()))]);
                }
            })
            .await;
            let mut client = proxy.connect().await;
            client
                .send(
                    "OPTIONS /o HTTP/1.1\r\nHost: x\r\nOrigin: http://a\r\nAccess-Control-Request-Method: PUT\r\n\r\n",
                )
                .await;
            let head = client.head().await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            assert_eq!(header(&head, "access-control-allow-origin"), Some("http://a"));
            assert_eq!(header(&head, "access-control-allow-methods"), Some("GET,POST"));
            assert_eq!(header(&head, "access-control-expose-headers"), Some("x-e"));
            let mut server = None;
            for (origin, allowed) in [("http://a", Some("http://a")), ("http://b", Some("up"))] {
                client.send(&format!("GET / HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\n\r\n")).await;
                if server.is_none() {
                    server = Some(upstream.accept().await);
                }
                let server = server.as_mut().unwrap();
                server.head().await;
                server.send("HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: up\r\nContent-Length: 0\r\n\r\n").await;
                let head = client.head().await;
                assert_eq!(header(&head, "access-control-allow-origin"), allowed, "{head}");
            }
            assert_eq!(proxy.log(1).await[0], "200 - cors_response 0 0 0 /o");
            let stats = proxy.filter_stats.local();
            assert_eq!((stats.origin_valid.get(), stats.origin_invalid.get()), (2, 1));
        }
    });
}

#[test]
fn a_buffered_request_comes_whole_or_not_at_all() {
    run(async {
        let (proxy, upstream) = pair(|s| chain(s, [("b", FilterKind::Buffer(10))])).await;
        let mut client = proxy.connect().await;
        client.send("POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
        client.send("2\r\nde\r\n0\r\n\r\n").await;
        let mut server = upstream.accept().await;
        let (head, body) = server.message().await;
        assert_eq!(
            (header(&head, "content-length"), header(&head, "transfer-encoding"), body.as_str()),
            (Some("5"), None, "abcde")
        );
        server.send(OK).await;
        client.message().await;
        for request in [
            "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n12345678901",
            "POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n12345678901\r\n",
        ] {
            let mut client = proxy.connect().await;
            client.send(request).await;
            let (head, body) = client.message().await;
            assert!(head.starts_with("HTTP/1.1 413") && body == "Payload Too Large", "{head}{body}");
        }
        let log = proxy.log(3).await;
        assert_eq!(log[0], "200 - via_upstream 1 5 2 /p");
        assert_eq!(log[1], "413 - request_payload_too_large 0 0 17 /p");
        assert_eq!(proxy.stats.local().downstream_rq_too_large.get(), 2);
    });
}

fn add(name: &'static str, value: &str) -> Mutation {
    Mutation::Add(HeaderAdd {
        name: http::HeaderName::from_static(name),
        value: Template::parse(value).unwrap(),
        action: AppendAction::AppendIfExistsOrAdd,
        keep_empty_value: false,
    })
}

#[test]
fn headers_and_parameters_are_mutated_in_order() {
    run(async {
        let base = Mutations {
            request: vec![add("x-a", "1"), Mutation::Remove(http::header::USER_AGENT)],
            query: vec![
                QueryMutation::Remove("gone".into()),
                QueryMutation::Set {
                    key: "n".into(),
                    value: Template::parse("x y/%REQ(:method)%").unwrap(),
                    action: AppendAction::AddIfAbsent,
                },
            ],
            response: vec![add("x-r", "base %REQ(x-a)%")],
            ..Mutations::default()
        };
        let route = Mutations {
            request: vec![Mutation::RemoveMatching(StringMatcher::exact("x-a")), add("x-a", "2")],
            response: vec![add("x-r", "route")],
            ..Mutations::default()
        };
        let (proxy, upstream) = pair(|s| {
            let kind = FilterKind::HeaderMutation { mutations: base.into(), most_specific_wins: false };
            chain(s, [("m", kind)]);
            s.overrides = level([("m", Setting::HeaderMutation(route.into()))]);
        })
        .await;
        let mut client = proxy.connect().await;
        client.send("GET /p?z=1&gone=2&b=%20x&b=2&flag HTTP/1.1\r\nHost: x\r\nUser-Agent: u\r\n\r\n").await;
        let mut server = upstream.accept().await;
        let asked = server.head().await;
        assert!(asked.starts_with("GET /p?b=%20x&b=2&flag=&n=x%20y%2FGET&z=1 HTTP/1.1"), "{asked}");
        assert_eq!((header(&asked, "x-a"), header(&asked, "user-agent")), (Some("2"), None));
        server.send(OK).await;
        let head = client.head().await;
        let values: Vec<_> = head.lines().filter_map(|l| l.strip_prefix("x-r: ")).collect();
        assert_eq!(values, ["base 2", "route"], "{head}");
    });
}

#[test]
fn trailers_are_mutated_in_both_directions() {
    run(async {
        let gone = || Mutation::Remove(http::HeaderName::from_static("x-gone"));
        let mutations = Mutations {
            request_trailers: vec![add("x-t", "up"), gone()],
            response_trailers: vec![gone(), add("x-t", "down %RESPONSE_CODE%")],
            ..Mutations::default()
        };
        let (proxy, upstream) = pair(|s| {
            let kind = FilterKind::HeaderMutation { mutations: mutations.into(), most_specific_wins: false };
            chain(s, [("m", kind)]);
        })
        .await;
        let mut client = proxy.connect().await;
        let head = "Trailer: x-gone, x-t\r\nTransfer-Encoding: chunked\r\n";
        let rest = "2\r\nhi\r\n0\r\nx-gone: 1\r\n\r\n";
        client.send(&format!("POST /p HTTP/1.1\r\nHost: x\r\n{head}\r\n{rest}")).await;
        let mut server = upstream.accept().await;
        server.head().await;
        assert_eq!(server.until("\r\n0\r\n").await, "2\r\nhi\r\n0\r\n");
        assert_eq!(server.until("\r\n\r\n").await.to_ascii_lowercase(), "x-t: up\r\n\r\n");
        server.send(&format!("HTTP/1.1 200 OK\r\n{head}\r\n{rest}")).await;
        client.head().await;
        assert_eq!(client.until("\r\n0\r\n").await, "2\r\nhi\r\n0\r\n");
        assert_eq!(client.until("\r\n\r\n").await.to_ascii_lowercase(), "x-t: down 200\r\n\r\n");
    });
}

#[test]
fn filters_behind_the_one_that_answers_see_the_response_only() {
    run(async {
        let mutations = Mutations { response: vec![add("x-r", "seen")], ..Mutations::default() };
        let (proxy, _upstream) = pair(|s| {
            let fault = aborting(AbortKind::Http(StatusCode::IM_A_TEAPOT));
            let mutation = FilterKind::HeaderMutation { mutations: mutations.into(), most_specific_wins: false };
            chain(s, [("f", FilterKind::Fault(fault)), ("c", FilterKind::Cors), ("m", mutation)]);
            s.overrides = level([("c", Setting::Cors(policy()))]);
        })
        .await;
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: x\r\nOrigin: http://a\r\n\r\n").await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 418"), "{head}");
        assert_eq!((header(&head, "x-r"), header(&head, "access-control-allow-origin")), (Some("seen"), None));
    });
}

#[test]
fn beyond_the_adaptive_limit_requests_are_turned_away() {
    run(async {
        let concurrency = Concurrency {
            enforced: true,
            status: StatusCode::TOO_MANY_REQUESTS,
            percentile: 500_000,
            max_limit: 1,
            min_limit: 1,
            update_interval: Duration::from_secs(60),
            measurement_interval: Some(Duration::from_secs(60)),
            fixed: None,
            request_count: 50,
            jitter: 0,
            min_concurrency: 1,
            buffer: 0,
        };
        let (proxy, upstream) =
            pair(|s| chain(s, [("a", FilterKind::AdaptiveConcurrency(Arc::new(concurrency)))])).await;
        let mut first = proxy.connect().await;
        first.send(GET).await;
        let mut server = upstream.accept().await;
        server.head().await;
        let mut second = proxy.connect().await;
        second.send(GET).await;
        let (head, body) = second.message().await;
        assert!(head.starts_with("HTTP/1.1 429") && body == "reached concurrency limit", "{head}{body}");
        server.send(OK).await;
        first.message().await;
        assert_eq!(proxy.log(2).await[0], "429 - reached_concurrency_limit 0 0 25 /p");
        // The place is free again.
        second.send(GET).await;
        server.head().await;
        server.send(OK).await;
        assert!(second.message().await.0.starts_with("HTTP/1.1 200"));
    });
}
