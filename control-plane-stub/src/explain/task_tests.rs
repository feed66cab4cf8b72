//! What the pages of Istio's traffic management tasks promise of single requests.

use super::{
    tests::{client, get},
    *,
};
use crate::model::load;

fn way(files: &[&str], namespace: &str, ip: &str, request: &Request) -> Explanation {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let from = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/tasks").join(file);
        std::fs::copy(from, dir.path().join(file)).unwrap();
    }
    let world = load(dir.path()).unwrap_or_else(|problems| panic!("{problems:#?}"));
    explain(&world, &Node { namespace: namespace.to_owned(), ..client(ip) }, request).unwrap()
}

/// Subsets with their shares.
fn shares(explanation: &Explanation) -> Vec<(&str, f64)> {
    explanation.targets.iter().map(|t| (t.subset.as_deref().unwrap_or_default(), t.share)).collect()
}

const PRODUCTPAGE: &str = "10.244.0.10";

#[test]
fn jason_sees_what_others_do_not() {
    let ask = |file: &str, host: &str, user: &'static str| {
        way(&["bookinfo.yaml", file], "default", PRODUCTPAGE, &get(host, 9080, "/reviews/0", &[("end-user", user)]))
    };
    assert_eq!(shares(&ask("virtual-service-all-v1.yaml", "reviews", "jason")), [("v1", 100.0)]);
    assert_eq!(shares(&ask("virtual-service-reviews-test-v2.yaml", "reviews", "jason")), [("v2", 100.0)]);
    assert_eq!(shares(&ask("virtual-service-reviews-test-v2.yaml", "reviews", "kate")), [("v1", 100.0)]);
    assert_eq!(shares(&ask("virtual-service-reviews-50-v3.yaml", "reviews", "kate")), [("v1", 50.0), ("v3", 50.0)]);
    for (file, part) in [("delay", "\"fixed_delay\":\"7s\""), ("abort", "\"http_status\":500")] {
        let file = format!("virtual-service-ratings-test-{file}.yaml");
        assert!(ask(&file, "ratings", "jason").to_string().contains(part), "{file}");
        assert!(!ask(&file, "ratings", "kate").to_string().contains(part), "{file}");
    }
    assert!(ask("request-timeouts.yaml", "reviews", "kate").to_string().contains("timeout       0.500s"));
}

#[test]
fn copies_shares_and_limits_are_as_promised() {
    let request = get("httpbin", 8000, "/headers", &[]);
    let mirrored = way(&["httpbin.yaml", "mirroring.yaml"], "default", "10.9.9.9", &request);
    assert_eq!(shares(&mirrored), [("v1", 100.0)]);
    assert_eq!((mirrored.mirrors[0].subset.as_deref(), mirrored.mirrors[0].share), (Some("v2"), 100.0));
    let limited = way(&["httpbin.yaml", "circuit-breaking.yaml"], "default", "10.9.9.9", &request);
    let limits = &limited.targets[0].policy["circuit_breakers"];
    assert_eq!(*limits, serde_json::json!({"max_connections": 1, "max_pending_requests": 1}));
    let tcp = Request { kind: Kind::Tcp, ..get("tcp-echo", 9000, "/", &[]) };
    let split = way(&["tcp-echo.yaml", "tcp-echo-20-v2-mesh.yaml"], "default", "10.9.9.9", &tcp);
    assert_eq!(shares(&split), [("v1", 80.0), ("v2", 20.0)]);
}

#[test]
fn localities_come_in_the_promised_order_and_shares() {
    let request = get("helloworld.sample", 5000, "/hello", &[]);
    let endpoints =
        |file: &str| way(&["helloworld.yaml", file], "sample", "10.244.1.9", &request).targets.remove(0).endpoints;
    let places: Vec<_> = endpoints("locality-failover.yaml").iter().map(|e| (e.priority, e.locality.clone())).collect();
    let expected = ["region1/zone1", "region1/zone2", "region2/zone3", "region3/zone4"];
    assert_eq!(places, expected.iter().enumerate().map(|(i, at)| (i as u64, (*at).to_owned())).collect::<Vec<_>>());
    let places: Vec<_> = endpoints("locality-distribute.yaml").into_iter().map(|e| e.locality).collect();
    assert_eq!(places, ["region1/zone1", "region1/zone2", "region3/zone4"]);
}
