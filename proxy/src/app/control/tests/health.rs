//! Hosts that fail, seen from a client: they are taken out, and come back.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use super::*;
use crate::{
    app::testing::{http_listener, server},
    upstream::HealthFlag,
};

/// An HTTP server that can be ill.
struct Host {
    address: SocketAddr,
    ill: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Host {
    fn start() -> Self {
        let (ill, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let shared = (ill.clone(), asked.clone());
        let address = server(move |stream| {
            let mut writer = stream.try_clone().unwrap();
            let mut lines = BufReader::new(stream).lines();
            while let Some(Ok(line)) = lines.next() {
                if line.is_empty() {
                    shared.1.fetch_add(1, SeqCst);
                    let status = if shared.0.load(SeqCst) { "503 Ill" } else { "200 OK" };
                    let _ = write!(writer, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                }
            }
        });
        Self { address, ill, asked }
    }
}

fn endpoint(address: SocketAddr) -> String {
    format!(
        "{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}",
        address.ip(),
        address.port()
    )
}

/// A cluster of these hosts.
fn cluster_of(hosts: &[&Host], more: &str) -> String {
    let endpoints: Vec<String> = hosts.iter().map(|h| endpoint(h.address)).collect();
    format!(
        "\n  - name: c\n    {more}\n    load_assignment: {{cluster_name: c, endpoints: [{{lb_endpoints: [{}]}}]}}\n",
        endpoints.join(", ")
    )
}

fn ask(address: SocketAddr) -> String {
    let mut stream: TcpStream = client(address);
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// Whether a host answers through a relay, which does not end with its answer.
fn answers(stream: &mut TcpStream) -> bool {
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let (mut answer, mut part) = (Vec::new(), [0; 64]);
    while !answer.ends_with(b"\r\n\r\n") {
        match stream.read(&mut part) {
            Ok(n) if n > 0 => answer.extend_from_slice(&part[..n]),
            _ => return false,
        }
    }
    true
}

fn flag(shared: &Shared, host: usize, flag: HealthFlag) -> bool {
    let live = shared.publisher.current();
    live.cluster("c").unwrap().members()[host].endpoint.has_flag(flag)
}

fn stat(shared: &Shared, metric: &str) -> u64 {
    let mut found = None;
    shared.publisher.current().cluster("c").unwrap().visit_stats(&mut |name, _, value| {
        if name == metric {
            found = Some(value);
        }
    });
    found.unwrap_or_else(|| panic!("no statistic {metric}"))
}

const SHORT: ending::Times = ending::Times { total: Duration::ZERO, accepting: Duration::ZERO };

#[tokio::test]
async fn a_host_that_fails_is_ejected_and_nobody_is_sent_to_it() {
    let (ill, well) = (Host::start(), Host::start());
    ill.ill.store(true, SeqCst);
    let more = "outlier_detection: {consecutive_5xx: 3, base_ejection_time: 3600s, max_ejection_percent: 50}";
    let yaml = statics(&[http_listener("l", "c", None)], &[cluster_of(&[&ill, &well], more)]);
    let rig = start(&yaml, SHORT);
    let (address, shared) = (rig.address("l").await, rig.shared.clone());
    let mut changed = shared.publisher.watch();
    changed.borrow_and_update();
    let looking = shared.clone();
    blocking(move || {
        until("the host is ejected", || {
            ask(address);
            flag(&looking, 0, HealthFlag::FailedOutlierCheck)
        })
    })
    .await;
    changed.changed().await.unwrap();
    let before = ill.asked.load(SeqCst);
    assert!(before >= 3);
    blocking(move || assert!((0..30).all(|_| ask(address) == "200"))).await;
    assert_eq!(ill.asked.load(SeqCst), before, "nobody was sent to it");
    for (metric, value) in [
        ("outlier_detection.ejections_active", 1),
        ("outlier_detection.ejections_enforced_total", 1),
        ("outlier_detection.ejections_enforced_consecutive_5xx", 1),
        ("membership_healthy", 1),
        ("membership_total", 2),
        ("lb_healthy_panic", 0),
    ] {
        assert_eq!(stat(&shared, metric), value, "{metric}");
    }
    rig.requests.send(Request::Cut).unwrap();
    rig.end().await;
}

#[tokio::test]
async fn a_host_that_recovers_proves_it_and_comes_back() {
    let (ill, well) = (Host::start(), Host::start());
    ill.ill.store(true, SeqCst);
    let more = "outlier_detection: {consecutive_5xx: 3, interval: 0.01s, base_ejection_time: 0.2s, \
                max_ejection_time: 0.2s, max_ejection_percent: 50}";
    let yaml = statics(&[http_listener("l", "c", None)], &[cluster_of(&[&ill, &well], more)]);
    let rig = start(&yaml, SHORT);
    let (address, shared) = (rig.address("l").await, rig.shared.clone());
    let (health, asked) = (ill.ill.clone(), ill.asked.clone());
    blocking(move || {
        until("it fails to prove itself", || {
            ask(address);
            stat(&shared, "outlier_detection.half_open_failure") >= 2
        });
        assert!(flag(&shared, 0, HealthFlag::FailedOutlierCheck), "it is out as before");
        health.store(false, SeqCst);
        until("it returns", || {
            ask(address);
            !flag(&shared, 0, HealthFlag::FailedOutlierCheck)
        });
        assert_eq!(stat(&shared, "outlier_detection.ejections_active"), 0);
        let before = asked.load(SeqCst);
        until("it gets its share again", || {
            assert_eq!(ask(address), "200");
            asked.load(SeqCst) > before + 5
        });
    })
    .await;
    rig.requests.send(Request::Cut).unwrap();
    rig.end().await;
}

/// A check over HTTP as often as the test allows.
const CHECKED: &str = "common_lb_config: {healthy_panic_threshold: {value: 0}}\n    ignore_health_on_host_removal: true\n    \
     health_checks: [{timeout: 10s, interval: 0.01s, no_traffic_interval: 0.01s, unhealthy_threshold: 1, \
     healthy_threshold: 1, http_health_check: {path: /}}]";

#[tokio::test]
async fn hosts_that_fail_their_active_checks_get_no_traffic_until_they_pass() {
    let (ill, well) = (Host::start(), Host::start());
    ill.ill.store(true, SeqCst);
    let yaml = statics(&[http_listener("l", "c", None)], &[cluster_of(&[&ill, &well], CHECKED)]);
    let rig = start(&yaml, SHORT);
    let (address, shared) = (rig.address("l").await, rig.shared.clone());
    let health = (ill.ill.clone(), well.ill.clone());
    assert!(
        (0..2).all(|host| !flag(&shared, host, HealthFlag::PendingActiveCheck)),
        "checked before anybody is let in"
    );
    blocking(move || {
        assert!(flag(&shared, 0, HealthFlag::FailedActiveCheck) && !flag(&shared, 1, HealthFlag::FailedActiveCheck));
        until("what was found is in force", || ask(address) == "200");
        assert!((0..20).all(|_| ask(address) == "200"));
        assert_eq!((stat(&shared, "membership_healthy"), stat(&shared, "health_check.healthy")), (1, 1));
        assert!(stat(&shared, "health_check.failure") > 0 && stat(&shared, "health_check.success") > 0);
        assert_eq!(stat(&shared, "health_check.network_failure"), 0);
        health.1.store(true, SeqCst);
        until("nobody is well", || ask(address) == "503" && flag(&shared, 1, HealthFlag::FailedActiveCheck));
        health.0.store(false, SeqCst);
        until("the other one is back", || ask(address) == "200");
    })
    .await;
    rig.requests.send(Request::Cut).unwrap();
    rig.end().await;
}

#[tokio::test]
async fn a_passed_active_check_returns_an_ejected_host() {
    let host = Host::start();
    let more = format!(
        "{CHECKED}\n    outlier_detection: {{consecutive_5xx: 1, base_ejection_time: 3600s, max_ejection_percent: 100}}"
    );
    // Checks pass whatever the requests get.
    let more = more.replace("{path: /}", "{path: /, expected_statuses: [{start: 200, end: 600}]}");
    host.ill.store(true, SeqCst);
    let yaml = statics(&[http_listener("l", "c", None)], &[cluster_of(&[&host], &more)]);
    let rig = start(&yaml, SHORT);
    let (address, shared) = (rig.address("l").await, rig.shared.clone());
    blocking(move || {
        until("it is ejected", || {
            ask(address);
            stat(&shared, "outlier_detection.ejections_enforced_total") > 0
        });
        until("it returns", || !flag(&shared, 0, HealthFlag::FailedOutlierCheck));
        assert_eq!(stat(&shared, "outlier_detection.half_open_success"), 0);
    })
    .await;
    rig.requests.send(Request::Cut).unwrap();
    rig.end().await;
}

#[tokio::test]
async fn connections_to_a_host_that_fails_are_cut_where_that_is_asked_for() {
    let host = Host::start();
    let more = format!("{CHECKED}\n    close_connections_on_host_health_failure: true");
    let listeners = [http_listener("l", "c", None), tcp_listener("t", "127.0.0.1", 0, "c", "")];
    let rig = start(&statics(&listeners, &[cluster_of(&[&host], &more)]), SHORT);
    let (address, ill) = (rig.address("t").await, host.ill.clone());
    blocking(move || {
        let mut stream = None;
        until("the host takes connections", || {
            let mut made: TcpStream = client(address);
            if !answers(&mut made) {
                return false;
            }
            stream = Some(made);
            true
        });
        ill.store(true, SeqCst);
        assert!(is_closed(&mut stream.unwrap()), "cut although nobody ended it");
    })
    .await;
    rig.requests.send(Request::Cut).unwrap();
    rig.end().await;
}

#[tokio::test]
async fn a_host_that_takes_no_connections_is_ejected_for_tcp() {
    let well = Host::start();
    let gone = Host { address: SocketAddr::from(([127, 86, 75, 64], 1)), ..Host::start() };
    let more = "outlier_detection: {split_external_local_origin_errors: true, consecutive_local_origin_failure: 2, \
                base_ejection_time: 3600s, max_ejection_percent: 50}";
    let yaml = statics(&[tcp_listener("t", "127.0.0.1", 0, "c", "")], &[cluster_of(&[&gone, &well], more)]);
    let rig = start(&yaml, SHORT);
    let (address, shared) = (rig.address("t").await, rig.shared.clone());
    blocking(move || {
        until("it is ejected", || {
            answers(&mut client(address));
            flag(&shared, 0, HealthFlag::FailedOutlierCheck)
        });
        until("that is in force", || stat(&shared, "membership_healthy") == 1 && answers(&mut client(address)));
        assert_eq!(stat(&shared, "outlier_detection.ejections_enforced_consecutive_local_origin_failure"), 1);
        // The workers see the publication with their next connection; from then on nobody is sent to it.
        until("no more failures", || (0..8).all(|_| answers(&mut client(address))));
    })
    .await;
    rig.requests.send(Request::Cut).unwrap();
    rig.end().await;
}
