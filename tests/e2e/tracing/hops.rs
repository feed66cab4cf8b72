//! Three hops with a fault and a retry: one tree.

use std::collections::BTreeMap;

use outrigger_tests::{
    Fabric,
    collector::{Collector, Received},
    eventually, need,
};

use super::{GRPC, HTTP2, Hop};

/// A request's spans, by who is whose parent.
struct Tree(Vec<Received>);

impl Tree {
    fn children(&self, of: &[u8]) -> Vec<&Received> {
        let mut children: Vec<_> = self.0.iter().filter(|r| r.span.parent_span_id == of).collect();
        children.sort_by_key(|r| r.span.start_time_unix_nano);
        children
    }

    /// The only child.
    fn child(&self, of: &Received) -> &Received {
        match &self.children(&of.span.span_id)[..] {
            [one] => one,
            others => panic!("{} children of {of:#?}: {others:#?}", others.len()),
        }
    }
}

fn is(received: &Received, service: &str, kind: i32, attributes: &[(&str, &str)]) {
    assert_eq!((&*received.service, received.span.kind), (service, kind), "{received:#?}");
    for (key, value) in attributes {
        assert_eq!(received.span.attribute(key).as_deref(), Some(*value), "{key} of {received:#?}");
    }
}

#[test]
fn a_request_over_three_hops_with_a_fault_and_a_retry_is_one_tree() {
    need!("ip", "curl");
    let mut fabric = Fabric::new();
    let (client, otel) = (fabric.pod("client", &[]), fabric.pod("otel", &[]));
    let mut hops: Vec<Hop> = [("first", true), ("second", true), ("third", false)]
        .into_iter()
        .map(|(name, calls)| Hop::new(&mut fabric, name, calls))
        .collect();
    let collector = Collector::start(otel.listen(4317));
    let addresses: Vec<String> = hops.iter().map(|hop| hop.pod.ip4.to_string()).collect();
    for (at, hop) in hops.iter_mut().enumerate() {
        let next = addresses.get(at + 1).map_or("127.0.0.9", String::as_str);
        hop.start(&[
            ("NEXT", next),
            ("OTEL", &otel.ip4.to_string()),
            ("COLLECTOR", GRPC),
            ("PROTOCOL", HTTP2),
            ("CACHE", "1000"),
            // Only the first decides; the others do as it did.
            ("RANDOM", if at == 0 { "100" } else { "0" }),
            ("SPAWN", if at == 1 { "true" } else { "false" }),
            ("FAULT", if at == 2 { "1" } else { "never" }),
        ]);
    }
    let answer = client.sh(&format!("curl -sS -i -m 30 -A tester 'http://{}:9000/shop?item=1'", addresses[0]));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let spans = eventually("all spans", || match collector.spans() {
        spans if spans.len() >= 9 => Ok(spans),
        spans => Err(format!("{} spans", spans.len())),
    });
    assert_eq!(spans.len(), 9, "{spans:#?}");
    let traces: BTreeMap<_, usize> = spans.iter().map(|r| (r.span.trace_id.clone(), 1)).collect();
    assert_eq!(traces.len(), 1, "one trace");
    let tree = Tree(spans);
    let [root] = tree.children(&[])[..] else { panic!("one root: {:#?}", tree.0) };
    let request = [
        ("http.request.method", "GET"),
        ("url.path", "/shop"),
        ("url.query", "item=1"),
        ("user_agent.original", "tester"),
        ("http.response.status_code", "200"),
        ("upstream_cluster", "app"),
        ("response_flags", "-"),
        ("hop", "first"),
    ];
    is(root, "first", 2, &request);
    assert_eq!(root.span.name, "app of first");

    let out = tree.child(root);
    is(out, "first", 3, &[("url.full", "http://next.example/next?q=1"), ("upstream_cluster", "next")]);
    is(out, "first", 3, &[("network.peer.address", &addresses[1]), ("network.peer.port", "9000")]);
    assert_eq!(out.span.name, "egress next.example");

    let second = tree.child(out);
    is(second, "second", 2, &[("http.response.status_code", "200"), ("hop", "second")]);

    // Here every try is a span, and what it called is below it. The second's own call was tried twice.
    let to_app = tree.child(second);
    is(to_app, "second", 3, &[("upstream_cluster", "app"), ("http.response.status_code", "200")]);
    let calling = tree.child(to_app);
    is(calling, "second", 2, &[("http.response.status_code", "200"), ("http.request.resend_count", "1")]);
    let [failed, good] = tree.children(&calling.span.span_id)[..] else { panic!("two tries: {:#?}", tree.0) };
    is(failed, "second", 3, &[("http.response.status_code", "503"), ("error.type", "503")]);
    is(good, "second", 3, &[("http.response.status_code", "200"), ("http.request.resend_count", "1")]);
    assert!(failed.span.is_error() && !good.span.is_error() && !calling.span.is_error());
    assert_eq!(failed.span.name, "router next egress");
    let fault = tree.child(failed);
    is(fault, "third", 2, &[("http.response.status_code", "503"), ("response_flags", "FI")]);
    is(fault, "third", 2, &[("response_code_details", "fault_filter_abort"), ("error.type", "503")]);
    assert!(fault.span.is_error());
    is(tree.child(good), "third", 2, &[("http.response.status_code", "200"), ("response_flags", "-")]);

    // Whoever called was there before and after; all on one machine, so its clock is one.
    for received in &tree.0 {
        let span = &received.span;
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{received:#?}");
        for child in tree.children(&span.span_id) {
            assert!(child.span.start_time_unix_nano >= span.start_time_unix_nano, "{child:#?} of {received:#?}");
        }
    }
    assert!(good.span.start_time_unix_nano >= failed.span.end_time_unix_nano, "one try after the other");

    // A trace that a client did not want is nobody's.
    let unsampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    client.sh(&format!("curl -sS -m 30 -H 'traceparent: {unsampled}' http://{}:9000/", addresses[0]));
    // One of B3 is, and keeps its form from hop to hop.
    let b3 = "463ac35c9f6413ad48485a3953bb6124-a2fb4a1d1a96d312-1";
    client.sh(&format!("curl -sS -m 30 -H 'b3: {b3}' http://{}:9000/", addresses[0]));
    let spans = eventually("the spans of both", || match collector.spans() {
        spans if spans.len() >= 18 => Ok(spans),
        spans => Err(format!("{} spans", spans.len())),
    });
    let trace =
        |hex: &str| (0..32).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect::<Vec<_>>();
    assert_eq!(spans[9..].iter().filter(|r| r.span.trace_id == trace(b3)).count(), 9, "{:#?}", &spans[9..]);
    assert!(hops.iter_mut().all(|hop| hop.proxy.as_mut().unwrap().is_running()));
    assert_eq!(hops[0].stat("http.ingress.tracing.random_sampling"), 3);
    assert_eq!(hops[0].stat("tracing.opentelemetry.spans_dropped"), 0);
}
