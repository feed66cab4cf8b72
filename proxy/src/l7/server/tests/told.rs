//! What is told of exchanges that nobody logs, and of their ids.

use std::sync::Arc;

use serde_json::Value;

use super::{
    hedging::hedge,
    peer::{Upstream, header},
    support::{Setup, hcm, pair, run},
};
use crate::{
    ir::{
        Fraction,
        tracing::{OpenTelemetry, RequestId, Shares, Tracing},
    },
    telemetry::tap,
};

/// On a thread of its own: how many failures are told is counted for each.
fn alone(test: impl FnOnce() + Send + 'static) {
    std::thread::spawn(test).join().unwrap();
}

/// What is told of requests for `path`, if nobody looked at that moment.
fn told(path: &str) -> Option<Value> {
    tap::recent().into_iter().find(|failure| failure["path"] == path)
}

#[test]
fn an_upstreams_own_failure_is_told_with_what_was_asked_and_of_whom() {
    alone(|| {
        run(async {
            let (proxy, upstream) = pair(|s| s.unlogged = true).await;
            let mut client = proxy.connect().await;
            let mut server = None;
            // Who reads what is told loses what comes meanwhile: other tests do.
            for _ in 0..5 {
                client.send("GET /own-failure HTTP/1.1\r\nHost: shop.example\r\n\r\n").await;
                let server = match &mut server {
                    Some(server) => server,
                    none => none.insert(upstream.accept().await),
                };
                server.head().await;
                server.send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await;
                assert!(client.head().await.starts_with("HTTP/1.1 503"));
            }
            client.send("POST /posted HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody").await;
            let server = server.as_mut().unwrap();
            server.until("body").await;
            server.send("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n").await;
            client.head().await;
            if let Some(failure) = told("/posted") {
                assert_eq!(failure["method"], "POST", "its head went with it: {failure}");
            }
            let failure = told("/own-failure").unwrap();
            for (field, value) in [
                ("method", "GET"),
                ("authority", "shop.example"),
                ("cluster", "up"),
                ("route", "the-route"),
                ("details", "via_upstream"),
            ] {
                assert_eq!(failure[field], value, "{failure}");
            }
            assert_eq!(failure["upstream"], upstream.0.local_addr().unwrap().to_string(), "{failure}");
        });
    });
}

#[test]
fn a_failure_to_connect_is_told_with_its_host() {
    alone(|| {
        run(async {
            for (hedged, path) in [(false, "/nobody-there"), (true, "/nobody-hedged")] {
                let (upstream, address) = Upstream::bind().await;
                drop(upstream);
                let mut setup = Setup { unlogged: true, ..Setup::new(&[address]) };
                if hedged {
                    hedge(&mut setup, 0);
                }
                let proxy = setup.start().await;
                let mut client = proxy.connect().await;
                for _ in 0..4 {
                    client.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
                    assert!(client.message().await.0.starts_with("HTTP/1.1 503"));
                }
                let failure = told(path).unwrap();
                assert_eq!(failure["upstream"], address.to_string(), "{failure}");
                assert_eq!(failure["route"], "the-route", "{failure}");
                assert!(failure["flags"].as_str().unwrap().contains("UF"), "{failure}");
            }
        });
    });
}

#[test]
fn a_client_hears_the_request_id_that_the_upstream_got() {
    run(async {
        let all = Fraction { numerator: 100, denominator: 100 };
        let provider = OpenTelemetry {
            collector: None,
            resource: Vec::new(),
            detects_environment: false,
            scope: true,
            sampler: None,
            capacity: None,
        };
        let tracing = Tracing {
            shares: Shares { client: all, random: all, overall: all },
            custom_tags: Vec::new(),
            verbose: false,
            max_path: 256,
            spawn_upstream_span: false,
            operation: None,
            upstream_operation: None,
            no_context_propagation: false,
            request_id: RequestId::default(),
            provider: Some(Arc::new(provider)),
        };
        let traced = Some(Arc::new(tracing));
        let hcm =
            || crate::ir::http::ConnectionManager { request_id_in_response: true, tracing: traced.clone(), ..hcm() };
        let (proxy, upstream) = pair(|s| s.hcm = hcm()).await;
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut server = upstream.accept().await;
        let asked = server.head().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        let answered = client.head().await;
        let id = header(&asked, "x-request-id").unwrap();
        assert_eq!(header(&answered, "x-request-id"), Some(id));
        assert_eq!(id.as_bytes()[14], b'9', "sampled, which is noted in it: {id}");
    });
}
