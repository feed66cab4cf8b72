//! Which host a request reaches: keys, cookies made for clients, subsets, latencies.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    peer::{Peer, Upstream, header},
    support::{Proxy, Setup, run},
};
use crate::ir::{
    balancing::*,
    cluster::{Discovery, LbPolicy},
    route::{HashCookie, HashHeader, HashPolicy},
};

/// Answers every request with `name`, after `wait`.
fn answer(upstream: Upstream, name: usize, wait: Duration) {
    tokio::task::spawn_local(async move {
        loop {
            let mut peer = upstream.accept().await;
            tokio::task::spawn_local(async move {
                while peer.head_or_end().await.ends_with("\r\n\r\n") {
                    peer.head().await;
                    tokio::time::sleep(wait).await;
                    peer.send(&format!("HTTP/1.1 200 OK\r\nX-Name: {name}\r\nContent-Length: 0\r\n\r\n")).await;
                }
            });
        }
    });
}

/// A proxy in front of as many hosts as there are answering times.
async fn hosts(waits: &[Duration], change: impl FnOnce(&mut Setup)) -> Proxy {
    let mut addresses = Vec::new();
    for (name, wait) in waits.iter().enumerate() {
        let (upstream, address) = Upstream::bind().await;
        addresses.push(address);
        answer(upstream, name, *wait);
    }
    let mut setup = Setup::new(&addresses);
    change(&mut setup);
    setup.start().await
}

/// Who answered, and with which head.
async fn get(client: &mut Peer, headers: &str) -> (usize, String) {
    client.send(&format!("GET /?q=1 HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
    let (head, _) = client.message().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    (header(&head, "x-name").unwrap().parse().unwrap(), head)
}

const QUICK: [Duration; 4] = [Duration::ZERO; 4];

#[test]
fn a_key_always_reaches_the_same_host() {
    run(async {
        for lb in [LbPolicy::RingHash(RingHash::default()), LbPolicy::Maglev(Maglev::default())] {
            let proxy = hosts(&QUICK, |s| {
                let name = HashHeader::Regular("x-user".parse().unwrap());
                s.cluster.lb = lb;
                s.forward.hash_policy = vec![HashPolicy::Header { name, rewrite: None, terminal: false }];
            })
            .await;
            let mut reached = BTreeMap::new();
            for round in 0..3 {
                let mut client = proxy.connect().await;
                for user in 0..40 {
                    let (host, _) = get(&mut client, &format!("X-User: {user}\r\n")).await;
                    assert_eq!(*reached.entry(user).or_insert(host), host, "user {user} in round {round}");
                }
            }
            let hosts: std::collections::BTreeSet<_> = reached.values().collect();
            assert!(hosts.len() > 1, "spread over hosts: {reached:?}");
        }
    });
}

#[test]
fn a_client_without_a_cookie_gets_one_and_stays_where_it_was() {
    run(async {
        let proxy = hosts(&QUICK, |s| {
            s.cluster.lb = LbPolicy::RingHash(RingHash::default());
            let attributes = "; Path=/; HttpOnly".into();
            let cookie = HashCookie { name: "sticky".into(), ttl: Some(0), attributes, terminal: false };
            s.forward.hash_policy = vec![HashPolicy::Cookie(cookie)];
        })
        .await;
        let mut hosts = std::collections::BTreeSet::new();
        for _ in 0..12 {
            let mut client = proxy.connect().await;
            let (host, head) = get(&mut client, "").await;
            let cookie = header(&head, "set-cookie").unwrap();
            let (pair, rest) = cookie.split_once(';').unwrap();
            assert_eq!(rest, " Path=/; HttpOnly");
            // From another connection, which without the cookie would be another client.
            let (again, head) = get(&mut proxy.connect().await, &format!("Cookie: {pair}\r\n")).await;
            assert_eq!(again, host);
            assert_eq!(header(&head, "set-cookie"), None, "it has one");
            hosts.insert(host);
        }
        assert!(hosts.len() > 1, "{hosts:?}");
    });
}

#[test]
fn no_cookie_is_made_where_no_key_is_used() {
    run(async {
        let proxy = hosts(&QUICK[..1], |s| {
            let cookie = HashCookie { name: "sticky".into(), ttl: Some(0), attributes: "".into(), terminal: false };
            s.forward.hash_policy = vec![HashPolicy::Cookie(cookie)];
        })
        .await;
        let (_, head) = get(&mut proxy.connect().await, "").await;
        assert_eq!(header(&head, "set-cookie"), None);
    });
}

#[test]
fn a_route_reaches_the_subset_it_asks_for() {
    run(async {
        let asked = |version: &str| Some(Arc::new(Criteria::new([("version".into(), version.into())])));
        for (version, expected) in [("v1", Some(vec![0, 1])), ("v2", Some(vec![2])), ("v3", None)] {
            let proxy = hosts(&QUICK[..3], |s| {
                let Discovery::Static(assignment) = &mut s.cluster.discovery else { panic!() };
                for (i, endpoint) in Arc::make_mut(assignment).localities[0].endpoints.iter_mut().enumerate() {
                    let version = if i < 2 { "v1" } else { "v2" };
                    let labels = serde_json::Map::from_iter([("version".to_owned(), version.into())]);
                    endpoint.metadata = Some(Arc::new(BTreeMap::from([("envoy.lb".to_owned(), labels)])));
                }
                let selector = SubsetSelector {
                    keys: vec!["version".into()],
                    fallback: SelectorFallback::Inherit,
                    single_host: false,
                };
                let subsets = Subsets { selectors: vec![selector], ..Subsets::default() };
                s.cluster.lb_options = Arc::new(LbOptions { subsets: Some(subsets), ..LbOptions::default() });
                s.forward.criteria = asked(version);
            })
            .await;
            let mut client = proxy.connect().await;
            let Some(expected) = expected else {
                client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
                let (head, body) = client.message().await;
                assert!(head.starts_with("HTTP/1.1 503") && body == "no healthy upstream", "{head}{body}");
                continue;
            };
            let mut reached = Vec::new();
            for _ in 0..2 * expected.len() {
                reached.push(get(&mut client, "").await.0);
            }
            reached.sort_unstable();
            reached.dedup();
            assert_eq!(reached, expected);
        }
    });
}

#[test]
fn a_slow_host_is_left_alone_once_it_is_known() {
    run(async {
        let slow = Duration::from_millis(150);
        // Who was never measured is tried first.
        let config = PeakEwma { default_rtt: Duration::from_nanos(1), ..PeakEwma::default() };
        let proxy = hosts(&[Duration::ZERO, slow], |s| s.cluster.lb = LbPolicy::PeakEwma(config)).await;
        let mut client = proxy.connect().await;
        let mut first = [get(&mut client, "").await.0, get(&mut client, "").await.0];
        first.sort_unstable();
        assert_eq!(first, [0, 1]);
        for _ in 0..20 {
            assert_eq!(get(&mut client, "").await.0, 0, "latencies decide");
        }
    });
}
