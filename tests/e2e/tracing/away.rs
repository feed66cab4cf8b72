//! A collector that goes away and comes back.

use outrigger_tests::{Fabric, collector::Collector, need, until};

use super::{HTTP, Hop};

#[test]
fn without_a_collector_requests_go_on_and_lost_spans_are_counted() {
    need!("ip", "curl");
    let mut fabric = Fabric::new();
    let (client, otel) = (fabric.pod("client", &[]), fabric.pod("otel", &[]));
    let mut hop = Hop::new(&mut fabric, "only", false);
    let collector = Collector::start(otel.listen(4317));
    hop.start(&[
        ("NEXT", "127.0.0.9"),
        ("OTEL", &otel.ip4.to_string()),
        ("COLLECTOR", HTTP),
        ("PROTOCOL", ""),
        ("CACHE", "20"),
        ("RANDOM", "100"),
        ("SPAWN", "false"),
        ("FAULT", "never"),
    ]);
    let ask = |count: u32| {
        let url = format!("http://{}:9000/[1-{count}]", hop.pod.ip4);
        let codes = client.sh(&format!("curl -sS -m 60 -o /dev/null -w '%{{http_code}} ' '{url}'"));
        assert_eq!(codes.split_whitespace().filter(|code| *code == "200").count(), count as usize, "{codes}");
    };
    ask(10);
    until("spans over HTTP", || collector.spans().len() == 10);
    until("they are counted", || hop.stat("tracing.opentelemetry.spans_sent") == 10);

    drop(collector);
    // More than may wait: the rest is dropped while every request is answered.
    ask(100);
    until("dropped spans are counted", || hop.stat("tracing.opentelemetry.spans_dropped") >= 60);
    until("so are the failures", || hop.stat("tracing.opentelemetry.export_failed") > 0);

    let collector = Collector::start(otel.listen(4317));
    until("what waited arrives", || !collector.spans().is_empty());
    until("nothing is lost uncounted", || {
        hop.stat("tracing.opentelemetry.spans_sent") + hop.stat("tracing.opentelemetry.spans_dropped") == 110
    });
    let before = hop.stat("tracing.opentelemetry.spans_sent");
    ask(5);
    until("new ones, too", || hop.stat("tracing.opentelemetry.spans_sent") == before + 5);
}
