use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;

use super::*;
use crate::{ir::Metadata, telemetry::flags::Flags};

fn metadata(value: serde_json::Value) -> Arc<Metadata> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn mesh(series: usize, idle: Option<u64>) -> Arc<Mesh> {
    let mesh = Arc::new(Mesh::default());
    let node = json!({
        "NAMESPACE": "shop", "NAME": "web-74fb669cc6-x7k2p", "CLUSTER_ID": "Kubernetes",
        "LABELS": {"app": "web", "version": "v1", "pod-template-hash": "74fb669cc6"},
    });
    let bounds = Bounds { series, idle: idle.map(Duration::from_secs) };
    mesh.init(Workload::of_node(node.as_object().unwrap()), bounds);
    mesh
}

fn ok() -> Outcome {
    Outcome { code: 200, protocol: Protocol::Http, flags: Flags::default() }
}

fn count(pair: &Pair, outcome: Outcome) {
    pair.request(outcome, Duration::from_millis(3), (10, 20));
}

/// All series of requests, with how many there were.
fn requests(mesh: &Mesh, now: Instant) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    mesh.visit(now, &mut |labels, outcome, sample| {
        if let Sample::Requests { duration, .. } = sample {
            all.push((format!("{labels}{}", outcome.labels()), duration.count()));
        }
    });
    all.sort();
    all
}

fn label<'a>(labels: &'a str, name: &str) -> &'a str {
    let key = format!("{name}=\"");
    let at = labels.match_indices(&key).map(|(at, _)| at).find(|at| *at == 0 || labels.as_bytes()[at - 1] == b',');
    let value = &labels[at.unwrap_or_else(|| panic!("no {name}: {labels}")) + key.len()..];
    &value[..value.find('"').unwrap()]
}

#[test]
fn the_labels_of_a_client_are_istios() {
    let mesh = mesh(10, None);
    let service = metadata(json!({"istio": {"services": [
        {"host": "api.shop.svc.cluster.local", "name": "api", "namespace": "shop"}
    ]}}));
    let endpoint = metadata(json!({"istio": {"workload": "api-v2;back;api;v2;Kubernetes"}}));
    let flow = Flow {
        cluster: Some(("outbound|80||api.shop.svc.cluster.local", Some(&service))),
        endpoint: Some(&endpoint),
        principals: (Some("spiffe://td/ns/shop/sa/web"), Some("spiffe://td/ns/back/sa/api")),
        ..Flow::default()
    };
    let pair = pair(&mesh, &flow);
    assert!(!pair.wants_host);
    count(&pair, Outcome { code: 200, protocol: Protocol::grpc(b"14"), flags: Flags::RATE_LIMITED });
    let all = requests(&mesh, Instant::now());
    let (labels, n) = &all[0];
    assert_eq!((all.len(), *n), (1, 1));
    for (name, value) in [
        ("reporter", "source"),
        ("source_workload", "web"),
        ("source_workload_namespace", "shop"),
        ("source_canonical_service", "web"),
        ("source_canonical_revision", "v1"),
        ("source_app", "web"),
        ("source_version", "v1"),
        ("source_cluster", "Kubernetes"),
        ("source_principal", "spiffe://td/ns/shop/sa/web"),
        ("destination_workload", "api-v2"),
        ("destination_workload_namespace", "back"),
        ("destination_canonical_service", "api"),
        ("destination_canonical_revision", "v2"),
        ("destination_app", "unknown"),
        ("destination_principal", "spiffe://td/ns/back/sa/api"),
        ("destination_service", "api.shop.svc.cluster.local"),
        ("destination_service_name", "api"),
        ("destination_service_namespace", "back"),
        ("connection_security_policy", "unknown"),
        ("request_protocol", "grpc"),
        ("response_code", "200"),
        ("grpc_response_status", "14"),
        ("response_flags", "RL"),
    ] {
        assert_eq!(label(labels, name), value, "{name}");
    }
}

#[test]
fn the_labels_of_a_server_say_only_what_is_known() {
    let mesh = mesh(10, None);
    let plain = Flow { inbound: true, cluster: Some(("inbound|80||", None)), ..Flow::default() };
    let ours = (Some("spiffe://td/ns/shop/sa/web"), Some("spiffe://td/ns/x\"y/sa/a"));
    let mutual = Flow { principals: ours, ..plain };
    count(&pair(&mesh, &plain), ok());
    count(&pair(&mesh, &mutual), ok());
    let all = requests(&mesh, Instant::now());
    let with = |name, value| all.iter().find(|(labels, _)| label(labels, name) == value).unwrap().0.as_str();
    let known = with("connection_security_policy", "mutual_tls");
    assert!(known.contains("source_principal=\"spiffe://td/ns/x\\\"y/sa/a\""), "{known}");
    assert!(known.contains("source_workload_namespace=\"x\\\"y\""), "{known}");
    let unknown = with("connection_security_policy", "none");
    for (name, value) in [
        ("reporter", "destination"),
        ("source_workload", "unknown"),
        ("source_principal", "unknown"),
        ("destination_workload", "web"),
        ("destination_service", "web"),
        ("destination_service_name", "web"),
        ("destination_principal", "unknown"),
    ] {
        assert_eq!(label(unknown, name), value, "{name}");
    }
}

#[test]
fn services_without_a_name_are_called_by_their_cluster_or_host() {
    let mesh = mesh(10, None);
    let flow = Flow { cluster: Some(("PassthroughCluster", None)), ..Flow::default() };
    assert!(pair(&mesh, &flow).wants_host);
    let named = pair_of_host(&mesh, &flow, "example.org");
    assert!(!named.wants_host && Rc::ptr_eq(&named, &pair_of_host(&mesh, &flow, "example.org")));
    count(&named, ok());
    let all = requests(&mesh, Instant::now());
    assert_eq!(label(&all[0].0, "destination_service"), "example.org");
    assert_eq!(label(&all[0].0, "destination_service_name"), "PassthroughCluster");
}

#[test]
fn who_is_called_often_stays_known_among_many() {
    let mesh = mesh(1_000_000, None);
    let flow = Flow { cluster: Some(("PassthroughCluster", None)), ..Flow::default() };
    let often = pair_of_host(&mesh, &flow, "often.example");
    for i in 0..5000 {
        drop(pair_of_host(&mesh, &flow, &format!("{i}.example")));
        assert!(Rc::ptr_eq(&often, &pair_of_host(&mesh, &flow, "often.example")), "after {i} others");
    }
    let last = pair_of_host(&mesh, &flow, "4999.example");
    assert!(Rc::ptr_eq(&last, &pair_of_host(&mesh, &flow, "4999.example")));
    let first = pair_of_host(&mesh, &flow, "0.example");
    assert_eq!(Rc::strong_count(&first), 2, "forgotten, and met anew");
}

#[test]
fn hosts_without_room_share_what_they_are_counted_by_and_those_with_room_keep_theirs() {
    let mesh = mesh(2, None);
    let flow = Flow { cluster: Some(("PassthroughCluster", None)), ..Flow::default() };
    for host in ["a.example", "b.example"] {
        count(&pair_of_host(&mesh, &flow, host), ok());
    }
    let beyond = pair_of_host(&mesh, &flow, "c.example");
    let others = (0..100).filter(|i| Rc::ptr_eq(&beyond, &pair_of_host(&mesh, &flow, &format!("{i}.example")))).count();
    assert!(others > 90, "{others}: but for those that look like known ones");
    count(&beyond, ok());
    count(&pair_of_host(&mesh, &flow, "a.example"), ok());
    let all = requests(&mesh, Instant::now());
    let of = |service| all.iter().find(|(labels, _)| label(labels, "destination_service") == service).map(|(_, n)| *n);
    assert_eq!((of("a.example"), of("b.example"), of("overflow")), (Some(2), Some(1), Some(1)));
}

#[test]
fn a_connection_opened_while_its_idle_series_is_looked_at_is_not_lost() {
    let mesh = mesh(10, Some(60));
    let now = Instant::now();
    let labels: Arc<str> = "reporter=\"source\"".into();
    let outcome = Outcome { code: 0, protocol: Protocol::Tcp, flags: Flags::default() };
    let seen = |seconds| {
        let mut all = Vec::new();
        mesh.visit(now + Duration::from_secs(seconds), &mut |_, _, sample| all.push(sample.clone()));
        all
    };
    // In hand, and counted there only later.
    let found = mesh.connection(&labels, Reporter::Source, outcome);
    assert_eq!((seen(0).len(), seen(60).len()), (1, 1), "whoever has it in hand will count there");
    found.series.counts.local().opened.inc();
    assert_eq!(seen(120), [Sample::Connections { opened: 1, closed: 0, received: 0, sent: 0 }]);
    found.series.counts.local().closed.inc();
    drop(found);
    assert_eq!(seen(130), [Sample::Connections { opened: 1, closed: 1, received: 0, sent: 0 }]);
    assert!(seen(190).is_empty());
}

#[test]
fn what_this_proxy_answers_for_others_is_counted_for_their_host() {
    let conn = crate::l7::server::tests_support::conn_info(1, addr("10.0.0.9:1"), addr("10.0.0.1:80"));
    for (host_fallback, route, service, name) in [
        (true, Some("block_all"), "gone.example", "BlackHoleCluster"),
        (true, Some("allow_any"), "gone.example", "PassthroughCluster"),
        (true, None, "gone.example", "gone.example"),
        (false, Some("block_all"), "unknown", "BlackHoleCluster"),
        (false, None, "unknown", "unknown"),
    ] {
        let mesh = mesh(10, None);
        let reporting = Reporting { mesh: mesh.clone(), host_fallback, tcp_interval: Duration::ZERO, cluster: None };
        count(&Scope::new(Arc::new(reporting), &conn).answered_here("gone.example", route), ok());
        let all = requests(&mesh, Instant::now());
        let of = |name| label(&all[0].0, name);
        assert_eq!((of("destination_service"), of("destination_service_name")), (service, name), "{route:?}");
    }
}

fn addr(text: &str) -> std::net::SocketAddr {
    text.parse().unwrap()
}

#[test]
fn statuses_of_calls_are_read_with_care() {
    for (text, status) in [("0", 0), ("16", 16), ("17", -1), ("-3", -1), ("x", -1), ("", -1), ("999999999", -1)] {
        assert_eq!(Protocol::grpc(text.as_bytes()), Protocol::Grpc(Some(status)), "{text}");
    }
    assert_eq!(Protocol::grpc(&[0xff]), Protocol::Grpc(Some(-1)));
}

#[test]
fn a_million_hosts_leave_memory_bounded_and_totals_right() {
    const LIMIT: usize = 100;
    let mesh = mesh(LIMIT, None);
    let flow = Flow { cluster: Some(("PassthroughCluster", None)), ..Flow::default() };
    let inbound = Flow { inbound: true, ..Flow::default() };
    for i in 0..1_000_000u32 {
        if i % 10 == 0 {
            // Of known peers the series stay what they were.
            count(&pair(&mesh, &inbound), ok());
        } else {
            count(&pair_of_host(&mesh, &flow, &format!("{i}.example.org/{i}")), ok());
        }
    }
    let all = requests(&mesh, Instant::now());
    assert_eq!(all.len(), LIMIT + 1, "and one for what has no room");
    assert_eq!(all.iter().map(|(_, n)| n).sum::<u64>(), 1_000_000);
    let known = all.iter().find(|(labels, _)| label(labels, "reporter") == "destination").unwrap();
    assert_eq!(known.1, 100_000);
    let beyond = all.iter().find(|(labels, _)| label(labels, "destination_service") == "overflow").unwrap();
    assert_eq!((label(&beyond.0, "response_code"), label(&beyond.0, "reporter")), ("overflow", "source"));
    assert_eq!(beyond.1, 1_000_000 - 100_000 - (LIMIT as u64 - 1));
    let counts = mesh.counts();
    assert_eq!((counts.series, counts.refused >= 1), (LIMIT as u64, true));
}

#[test]
fn more_outcomes_than_are_remembered_are_counted_all_the_same() {
    let mesh = mesh(1000, None);
    let pair = pair(&mesh, &Flow { inbound: true, ..Flow::default() });
    for round in 0..3 {
        (200..300).for_each(|code| count(&pair, Outcome { code, ..ok() }));
        let all = requests(&mesh, Instant::now());
        assert_eq!((all.len(), all.iter().all(|(_, n)| *n == round + 1)), (100, true));
    }
}

#[test]
fn idle_series_are_dropped_and_come_back() {
    let mesh = mesh(1, Some(60));
    let (web, other) = (Flow { inbound: true, ..Flow::default() }, Flow::default());
    let (web, other) = (pair(&mesh, &web), pair(&mesh, &other));
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    count(&web, ok());
    count(&other, ok());
    let all = requests(&mesh, at(0));
    assert_eq!(all.len(), 2, "one has no room: {all:?}");
    count(&web, ok());
    assert_eq!(requests(&mesh, at(50)).iter().map(|(_, n)| n).sum::<u64>(), 3);
    assert_eq!(requests(&mesh, at(100)).len(), 2, "it was used in between");
    let left = requests(&mesh, at(111));
    assert_eq!((left.len(), mesh.counts().expired, mesh.counts().series), (1, 1, 0));
    assert_eq!(label(&left[0].0, "destination_service"), "overflow");
    // Whoever had no room finds some after a while; nothing is lost on the way.
    let before = left[0].1;
    (0..1000).for_each(|_| count(&other, ok()));
    let all = requests(&mesh, at(112));
    assert_eq!((all.len(), all.iter().map(|(_, n)| n).sum::<u64>()), (2, before + 1000));
    count(&web, ok());
    let all = requests(&mesh, at(113));
    assert_eq!(all.iter().map(|(_, n)| n).sum::<u64>(), before + 1001);
}

#[test]
fn what_came_to_a_dropped_series_is_carried_over() {
    let mesh = mesh(10, Some(60));
    let now = Instant::now();
    let labels: Arc<str> = "reporter=\"source\"".into();
    let found = mesh.request(&labels, Reporter::Source, ok());
    found.series.counts.local().duration.time(Duration::ZERO);
    requests(&mesh, now);
    assert!(requests(&mesh, now + Duration::from_secs(60)).is_empty());
    // A worker that looked a moment before it was dropped.
    found.series.counts.local().duration.time(Duration::ZERO);
    let all = requests(&mesh, now + Duration::from_secs(61));
    assert_eq!(all.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [1]);
}

#[test]
fn connections_are_counted_from_their_beginning_to_their_end() {
    let mesh = mesh(10, Some(60));
    let pair = pair(&mesh, &Flow { inbound: true, ..Flow::default() });
    let mut connection = pair.connection(Flags::default());
    connection.bytes(5, 7);
    connection.bytes(6, 7);
    let seen = |seconds| {
        let mut all = Vec::new();
        mesh.visit(Instant::now() + Duration::from_secs(seconds), &mut |labels, outcome, sample| {
            assert_eq!(label(&format!("{labels}{}", outcome.labels()), "request_protocol"), "tcp");
            all.push(sample.clone());
        });
        all
    };
    let open = Sample::Connections { opened: 1, closed: 0, received: 6, sent: 7 };
    assert_eq!(seen(0), std::slice::from_ref(&open));
    assert_eq!(seen(3600), [open], "what is open is not idle");
    drop(connection);
    assert_eq!(seen(3600), [Sample::Connections { opened: 1, closed: 1, received: 6, sent: 7 }]);
    assert!(seen(9999).is_empty());
}
