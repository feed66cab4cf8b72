use std::sync::Arc;

use http::{HeaderMap, Method};

use super::*;
use crate::{
    ir::{
        matcher::{Cidr, HeaderMatcher, HeaderRule, Pattern, Regex, StringMatcher},
        rbac::{Policy, Rule, SanKind, SanMatcher},
    },
    policy::router::RequestFacts,
    telemetry::record::PeerInfo,
};

fn exact(text: &str) -> StringMatcher {
    StringMatcher::exact(text)
}

fn of(pattern: Pattern) -> StringMatcher {
    StringMatcher { pattern, ignore_case: false }
}

fn net(text: &str) -> Cidr {
    let (ip, len) = text.split_once('/').unwrap();
    Cidr::new(ip.parse().unwrap(), len.parse().unwrap()).unwrap()
}

fn header(name: &str, value: &str) -> Rule {
    let rule = HeaderRule::Value(exact(value));
    Rule::Header(Box::new(HeaderMatcher { name: name.into(), rule, invert: false, treat_missing_as_empty: false }))
}

fn policy(name: &str, permissions: Rule, principals: Rule) -> Policy {
    Policy { name: name.into(), permissions, principals }
}

fn peer(uris: &[&str], dns: &[&str], subject: &str) -> PeerInfo {
    PeerInfo {
        certificate: Some(Arc::from([1u8])),
        verified: true,
        uri_sans: uris.iter().map(|u| (*u).into()).collect(),
        dns_sans: dns.iter().map(|u| (*u).into()).collect(),
        subject: subject.into(),
        ..PeerInfo::default()
    }
}

/// A request as a test describes it.
struct Request {
    tls: Option<PeerInfo>,
    path: String,
    authority: String,
    headers: HeaderMap,
    client: String,
    port: u16,
    http: bool,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            tls: None,
            path: "/".into(),
            authority: "host".into(),
            headers: HeaderMap::new(),
            client: "10.1.2.3:5".into(),
            port: 80,
            http: true,
        }
    }
}

impl Request {
    fn with<T>(&self, then: impl FnOnce(&Facts<'_>) -> T) -> T {
        let http = RequestFacts {
            authority: &self.authority,
            path: &self.path,
            method: &Method::GET,
            scheme: "http",
            headers: &self.headers,
            certificate: Default::default(),
            random: 0,
        };
        then(&Facts {
            tls: self.tls.as_ref(),
            local: format!("192.168.0.1:{}", self.port).parse().unwrap(),
            peer: "172.16.0.9:1".parse().unwrap(),
            client: self.client.parse().unwrap(),
            server_name: "",
            http: self.http.then_some(http),
            dynamic: None,
            route: None,
        })
    }

    fn matches(&self, rule: &Rule) -> bool {
        self.with(|facts| rule::matches(rule, facts))
    }
}

fn decided(action: Action, policies: Vec<Policy>, request: &Request) -> (bool, Option<String>, Option<bool>) {
    let engine = Engine::Policies(Policies::new(action, policies));
    request.with(|facts| {
        let decision = decide(&engine, facts);
        (decision.allowed, decision.policy.map(|p| p.to_string()), decision.log)
    })
}

#[test]
fn actions_decide_and_the_first_policy_by_name_counts() {
    let both = || vec![policy("b", Rule::Any, Rule::Any), policy("a", Rule::Any, Rule::Any)];
    let request = Request::default();
    let a = Some("a".to_owned());
    assert_eq!(decided(Action::Allow, both(), &request), (true, a.clone(), None));
    assert_eq!(decided(Action::Deny, both(), &request), (false, a.clone(), None));
    assert_eq!(decided(Action::Log, both(), &request), (true, a, Some(true)));
    assert_eq!(decided(Action::Allow, vec![], &request), (false, None, None), "no policy allows nothing");
    assert_eq!(decided(Action::Deny, vec![], &request), (true, None, None));
    assert_eq!(decided(Action::Log, vec![], &request), (true, None, Some(false)));
}

#[test]
fn a_policy_needs_a_permission_and_a_principal() {
    let path = || Rule::Path(exact("/a"));
    let from = || Rule::Peer(net("172.16.0.0/12"));
    for (permission, principal, allowed) in [
        (path(), from(), true),
        (path(), Rule::Not(Box::new(from())), false),
        (Rule::Not(Box::new(path())), from(), false),
        (Rule::all_of(vec![path(), Rule::Any]), Rule::any_of(vec![Rule::Peer(net("1.0.0.0/8")), from()]), true),
    ] {
        let request = Request { path: "/a?b#c".into(), ..Request::default() };
        assert_eq!(decided(Action::Allow, vec![policy("p", permission, principal)], &request).0, allowed);
    }
}

#[test]
fn names_are_those_of_a_verified_certificate() {
    let name = |n: &str| Rule::Authenticated(Some(exact(n)));
    let uri = "spiffe://cluster.local/ns/a/sa/b";
    let tls = |tls: PeerInfo| Request { tls: Some(tls), ..Request::default() };
    let full = || peer(&["spiffe://x/y", uri], &["b.a.svc"], "CN=b");
    assert!(tls(full()).matches(&name(uri)), "any URI name counts");
    assert!(tls(full()).matches(&name("b.a.svc")));
    assert!(tls(full()).matches(&name("CN=b")));
    assert!(!tls(full()).matches(&name("spiffe://cluster.local/ns/a/sa/b/")));
    assert!(!tls(full()).matches(&name("spiffe://cluster.local/ns/A/sa/b")));
    assert!(!Request::default().matches(&name(uri)), "no TLS, no name");
    assert!(!Request::default().matches(&Rule::Authenticated(None)));
    assert!(tls(PeerInfo::default()).matches(&Rule::Authenticated(None)));
    let claimed = || PeerInfo { verified: false, ..full() };
    for rule in [name(uri), Rule::Mtls(None), Rule::PeerPrincipal(exact("spiffe://x/y"))] {
        assert!(!tls(claimed()).matches(&rule), "a name that anybody can claim: {rule:?}");
    }
    let san = |kind, n: &str| Rule::Mtls(Some(SanMatcher { kind, matcher: exact(n) }));
    assert!(tls(full()).matches(&san(SanKind::Uri, uri)));
    assert!(tls(full()).matches(&san(SanKind::Dns, "b.a.svc")));
    assert!(!tls(full()).matches(&san(SanKind::Dns, uri)), "each kind for itself");
    assert!(tls(full()).matches(&Rule::PeerPrincipal(exact("spiffe://x/y"))), "the first one");
}

#[test]
fn addresses_and_ports() {
    let request = Request::default();
    for (rule, matches) in [
        (Rule::Peer(net("172.16.0.9/32")), true),
        (Rule::Peer(net("10.0.0.0/8")), false),
        (Rule::Client(net("10.0.0.0/8")), true),
        (Rule::Client(net("172.16.0.9/32")), false),
        (Rule::Client(net("::/0")), false),
        (Rule::DestinationIp(net("192.168.0.0/24")), true),
        (Rule::DestinationIp(net("192.168.1.0/24")), false),
        (Rule::DestinationPort { start: 80, end: 81 }, true),
        (Rule::DestinationPort { start: 81, end: 90 }, false),
        (Rule::DestinationPort { start: 70, end: 80 }, false),
        (Rule::ServerName(exact("")), true),
        (Rule::ServerName(exact("a")), false),
    ] {
        assert_eq!(request.matches(&rule), matches, "{rule:?}");
    }
}

#[test]
fn rules_on_requests_match_no_connection() {
    let connection = Request { http: false, ..Request::default() };
    for rule in [Rule::Path(of(Pattern::Prefix("/".into()))), header(":method", "GET")] {
        assert!(Request::default().matches(&rule));
        assert!(!connection.matches(&rule), "{rule:?}");
    }
    assert!(!Request { path: "".into(), ..Request::default() }.matches(&Rule::Path(exact(""))), "CONNECT");
}

#[test]
fn details_stay_one_word() {
    assert_eq!(details(None), "rbac_access_denied_matched_policy[none]");
    assert_eq!(details(Some(&"a b\tc".into())), "rbac_access_denied_matched_policy[a_b_c]");
}

/// Every set decides as its policies one after the other do.
#[test]
fn the_index_only_saves_work() {
    let mut random = fastrand::Rng::with_seed(7);
    let names = ["spiffe://t/ns/a/sa/x", "spiffe://t/ns/ns/a/sa/x", "spiffe://t/ns/b/sa/y", "plain", "CN=z"];
    let paths = ["/", "/a", "/a/b", "/a/bc", "/A", ""];
    for round in 0..400 {
        let policies: Vec<_> = (0..random.usize(8..14))
            .map(|i| {
                policy(&format!("p{i:02}"), rule(&mut random, 2, &names, &paths), rule(&mut random, 2, &names, &paths))
            })
            .collect();
        let indexed = Policies::new(Action::Allow, policies.clone());
        let request = Request {
            tls: random.bool().then(|| {
                let mut pick = || names[random.usize(..names.len())];
                peer(&[pick(), pick()], &[pick()], pick())
            }),
            path: format!("{}{}", paths[random.usize(..paths.len())], ["", "?q", "#f"][random.usize(..3)]),
            authority: ["host", "HOST", "host:80"][random.usize(..3)].into(),
            headers: ["x", "y"].iter().map(|v| (http::HeaderName::from_static("k"), v.parse().unwrap())).collect(),
            client: ["10.1.2.3:5", "[::1]:6"][random.usize(..2)].into(),
            port: [80, 443][random.usize(..2)],
            http: random.u8(..8) > 0,
        };
        request.with(|facts| {
            let naive =
                policies.iter().find(|p| rule::matches(&p.permissions, facts) && rule::matches(&p.principals, facts));
            assert_eq!(first(&indexed, facts), naive.map(|p| &p.name), "round {round}: {indexed:#?}\n{facts:?}");
        });
    }
}

fn rule(random: &mut fastrand::Rng, depth: u32, names: &[&str], paths: &[&str]) -> Rule {
    if depth > 0 && random.u8(..3) == 0 {
        let rules = (0..random.usize(1..4)).map(|_| rule(random, depth - 1, names, paths)).collect();
        return match random.u8(..5) {
            0 => Rule::Not(Box::new(Rule::any_of(rules))),
            1 | 2 => Rule::all_of(rules),
            _ => Rule::any_of(rules),
        };
    }
    let name = names[random.usize(..names.len())];
    let path = paths[random.usize(..paths.len())];
    match random.u8(..12) {
        0 => Rule::Authenticated(Some(exact(name))),
        1 => Rule::Authenticated(Some(of(Pattern::Regex(Regex::full(".*/ns/a/.*").unwrap())))),
        2 => Rule::Mtls(Some(SanMatcher { kind: SanKind::Uri, matcher: exact(name) })),
        3 => Rule::PeerPrincipal(exact(name)),
        4 => Rule::Path(exact(path)),
        5 => Rule::Path(of(Pattern::Prefix(path.into()))),
        6 => Rule::Path(StringMatcher { pattern: Pattern::Exact("/a".into()), ignore_case: true }),
        7 => header(":authority", "host"),
        8 => header("k", ["x", "y", "z"][random.usize(..3)]),
        9 => Rule::Client(net(["10.0.0.0/8", "10.1.2.3/32", "::1/128", "0.0.0.0/0"][random.usize(..4)])),
        10 => Rule::Peer(net("172.16.0.0/12")),
        _ => Rule::DestinationPort { start: 80, end: 81 },
    }
}
