use std::path::Path;

use super::*;
use crate::{model::load, resources::ClientKind};

pub(super) fn world(name: &str) -> World {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    load(&dir).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

pub(super) fn client(ip: &str) -> Node {
    Node {
        id: "test".to_owned(),
        kind: ClientKind::Outrigger,
        namespace: "default".to_owned(),
        service_account: "default".to_owned(),
        ips: vec![ip.parse().unwrap()],
        labels: Default::default(),
        locality: Default::default(),
    }
}

pub(super) fn get(host: &str, port: u16, path: &str, headers: &[(&'static str, &'static str)]) -> Request {
    let pair = |(name, value): &(&'static str, &'static str)| {
        (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
    };
    Request {
        kind: Kind::Http,
        host: host.to_owned(),
        port,
        server_name: None,
        method: http::Method::GET,
        scheme: "http".to_owned(),
        path: path.to_owned(),
        authority: None,
        headers: headers.iter().map(pair).collect(),
        caller: Default::default(),
    }
}

fn way(name: &str, ip: &str, request: &Request) -> Explanation {
    explain(&world(name), &client(ip), request).unwrap()
}

#[test]
fn a_header_decides_and_the_others_are_told_why_not() {
    let jason = way("bookinfo", "10.244.0.10", &get("reviews", 9080, "/reviews/1", &[("end-user", "jason")]));
    assert_eq!(jason.service.as_deref(), Some("reviews.default.svc.cluster.local"));
    assert_eq!((jason.listener.as_str(), jason.protocol), ("0.0.0.0_9080", "http"));
    assert_eq!(jason.virtual_host.as_deref(), Some("reviews.default.svc.cluster.local:9080"));
    let route = jason.route.as_ref().unwrap();
    assert_eq!(
        (route.index, route.conditions.as_slice()),
        (0, ["path prefix /".to_owned(), "header end-user exact jason".to_owned()].as_slice())
    );
    assert_eq!(jason.targets.len(), 1);
    let target = &jason.targets[0];
    assert_eq!((target.subset.as_deref(), target.share, target.exists), (Some("v2"), 100.0, true));
    assert_eq!(target.endpoints[0].address, "10.244.0.12:9080");
    assert!(target.endpoints[0].mutual_tls);
    assert!(target.destination_rule.as_ref().unwrap().starts_with("default/reviews (routing.yaml document 2)"));
    assert!(jason.virtual_service.as_ref().unwrap().starts_with("default/reviews (routing.yaml document 1)"));

    let other = way("bookinfo", "10.244.0.10", &get("reviews.default", 9080, "/reviews/1", &[("end-user", "lea")]));
    assert_eq!(other.passed.len(), 1);
    assert_eq!(other.passed[0].unmet, ["header end-user exact jason"]);
    let shares: Vec<_> = other.targets.iter().map(|t| (t.subset.as_deref().unwrap(), t.share)).collect();
    assert_eq!(shares, [("v1", 90.0), ("v2", 10.0)]);
    assert_eq!(other.targets[0].policy["lb_policy"], "RANDOM");
    let text = other.to_string();
    for part in [
        "client        default/productpage-v1-0",
        "passed over   #0: not header end-user exact jason",
        "timeout       none",
        "retries       2 on connect-failure",
        "to            90 % outbound|9080|v1|reviews",
        "endpoint 10.244.0.11:9080",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn answers_and_redirects_end_at_the_proxy() {
    let old = way("bookinfo", "10.244.0.10", &get("ratings", 9080, "/old", &[]));
    assert_eq!(old.outcome, Outcome::Redirected);
    assert_eq!(old.route.unwrap().wire["redirect"]["path_redirect"], "/new");
    let down = way("bookinfo", "10.244.0.10", &get("ratings", 9080, "/healthz?full=1", &[]));
    assert_eq!(down.outcome, Outcome::Answered { status: 503 });
    let debug = way("bookinfo", "10.244.0.10", &get("ratings", 9080, "/health?full=2", &[("x-debug", "1")]));
    assert_eq!(debug.passed[2].unmet, ["header x-debug not present", "query parameter full exact 1"]);
    assert_eq!(debug.outcome, Outcome::Forwarded);
}

#[test]
fn mirrors_faults_and_limits_are_told() {
    let request = get("shop", 80, "/Cart", &[]);
    let explanation = way("traffic", "10.9.9.9", &request);
    let route = explanation.route.as_ref().unwrap();
    assert_eq!(
        (route.name.as_str(), route.conditions.as_slice()),
        ("checkout", ["path regex (?i)/c(art)?".to_owned()].as_slice())
    );
    let mirrors: Vec<_> = explanation.mirrors.iter().map(|m| (m.host.as_deref().unwrap(), m.share)).collect();
    assert_eq!(mirrors, [("stock.default.svc.cluster.local", 12.5), ("carts.default.svc.cluster.local", 100.0)]);
    let policy = &explanation.targets[0].policy;
    assert_eq!(policy["circuit_breakers"]["max_requests"], 12);
    assert_eq!(policy["outlier_detection"]["max_ejection_percent"], 30);
    let text = explanation.to_string();
    for part in ["fault         {\"abort\"", "cors          {", "mirrored to   12.5000 %", "timeout       2s"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let value: serde_json::Value = serde_json::to_value(&explanation).unwrap();
    assert_eq!(value["outcome"], "forwarded");
    assert_eq!(value["targets"][1]["subset"], "v2");
}

#[test]
fn strangers_pass_through_or_are_blocked() {
    let through = way("traffic", "10.9.9.9", &get("example.org", 80, "/", &[]));
    assert_eq!((through.outcome, through.address.as_str()), (Outcome::PassedThrough, "?:80"));
    let caged = way("traffic", "10.244.2.9", &get("example.org", 80, "/", &[]));
    assert_eq!(caged.outcome, Outcome::Answered { status: 502 });
    assert!(caged.client.sidecar.as_ref().unwrap().starts_with("default/caged"));
    let tcp = Request { kind: Kind::Tcp, ..get("203.0.113.9", 7777, "/", &[]) };
    assert_eq!(way("traffic", "10.244.2.9", &tcp).outcome, Outcome::Blocked);
    assert_eq!(way("traffic", "10.9.9.9", &tcp).outcome, Outcome::PassedThrough);
}

#[test]
fn connections_are_told_by_address_subnet_and_name() {
    let tcp = Request { kind: Kind::Tcp, ..get("shop", 82, "/", &[]) };
    let split = way("traffic", "10.9.9.9", &tcp);
    assert_eq!((split.listener.as_str(), split.protocol), ("10.96.2.1_82", "tcp"));
    let shares: Vec<_> = split.targets.iter().map(|t| (t.host.as_deref().unwrap(), t.share)).collect();
    assert_eq!(shares, [("shop.default.svc.cluster.local", 10.0), ("carts.default.svc.cluster.local", 90.0)]);
    assert_eq!(split.targets[0].policy["lb_policy"], "MAGLEV");
    let own = way("traffic", "10.244.2.1", &tcp);
    assert_eq!(own.targets[0].host.as_deref(), Some("carts.default.svc.cluster.local"), "sourceLabels decide");
    let name = "shop.default.svc.cluster.local";
    let tls = Request { kind: Kind::Tls, server_name: Some(name.to_owned()), ..get("shop", 443, "/", &[]) };
    assert_eq!(way("traffic", "10.9.9.9", &tls).targets[0].subset.as_deref(), Some("v1"));
    let other = Request { server_name: Some("other.example".to_owned()), ..tls };
    assert_eq!(way("traffic", "10.9.9.9", &other).targets[0].subset, None);
}

#[test]
fn only_documents_that_decide_are_named() {
    let other_port = way("traffic", "10.9.9.9", &get("carts", 80, "/", &[]));
    assert_eq!((other_port.virtual_service.as_deref(), other_port.route.unwrap().name.as_str()), (None, "default"));
    let tcp = |host: &str, port| Request { kind: Kind::Tcp, ..get(host, port, "/", &[]) };
    assert_eq!(way("traffic", "10.9.9.9", &tcp("carts", 90)).virtual_service, None);
    assert!(way("traffic", "10.9.9.9", &tcp("shop", 82)).virtual_service.is_some());
}

#[test]
fn what_no_route_takes_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}\n---\n\
                apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\n\
                spec: {hosts: [a], http: [{match: [{uri: {exact: /only}, method: {exact: POST}}], route: [{destination: {host: a}}]}]}\n";
    std::fs::write(dir.path().join("a.yaml"), yaml).unwrap();
    let world = load(dir.path()).unwrap();
    let lost = explain(&world, &client("10.9.9.9"), &get("a", 80, "/", &[])).unwrap();
    assert_eq!(lost.outcome, Outcome::NoRoute);
    assert_eq!(lost.passed[0].unmet, ["path /only", "method exact POST"]);
    let found = Request { method: http::Method::POST, ..get("a", 80, "/only", &[]) };
    let found = explain(&world, &client("10.9.9.9"), &found).unwrap();
    assert!(found.to_string().contains("no endpoints: 503"), "{found}");
}

#[test]
fn rate_limits_are_told_where_the_request_arrives() {
    let limits = |port, path: &str, headers| {
        let way = way("limits", "10.9.9.9", &get("web.shop.svc.cluster.local", port, path, headers));
        way.limits.iter().map(|text| text.split(" (all.yaml").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let always = ["RateLimit istio-system/mesh", "RateLimit shop/all", "RateLimit shop/together"];
    assert_eq!(limits(80, "/", &[]), always);
    let cart = limits(80, "/cart.html?x", &[("x-tier", "free"), ("x-debug", "1")]);
    assert_eq!(cart, [always[0], always[1], "RateLimit shop/keyed", always[2]]);
    assert_eq!(limits(80, "/cart.html", &[("x-tier", "free")]), always);
    let api = limits(80, "/api/v1", &[]);
    assert_eq!(api, [always[0], always[1], "RateLimit shop/per-caller", always[2]]);
    assert_eq!(limits(80, "/v1/x", &[]), [always[0], always[1], "RateLimit shop/denied", always[2]]);
    assert_eq!(limits(9000, "/", &[]), [always[0], always[1]], "no HTTP there");
    let text = way("limits", "10.9.9.9", &get("web.shop.svc.cluster.local", 80, "/v1/x", &[])).to_string();
    let line = "limited by    RateLimit shop/denied (all.yaml document 10): 3 per day, for each remote_address, of all \
                instances together, only counted\n";
    assert!(text.contains(line), "{text}");
}
