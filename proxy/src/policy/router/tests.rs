use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method};

use super::*;
use crate::ir::{
    Fraction,
    matcher::{HeaderMatcher, HeaderRule, QueryMatcher, Regex, StringMatcher},
    route::{Action, HeaderOps, PathMatch, RouteMatch},
};

fn route(name: &str, path: PathMatch) -> Route {
    Route {
        name: name.into(),
        matches: RouteMatch {
            path,
            case_sensitive: true,
            headers: Vec::new(),
            query: Vec::new(),
            grpc: false,
            fraction: None,
        },
        action: Action::NonForwarding,
        headers: HeaderOps::default(),
        metadata: None,
    }
}

fn table(hosts: &[(&str, &[&str], Vec<Route>)]) -> RouteTable {
    let virtual_hosts = hosts
        .iter()
        .map(|(name, domains, routes)| {
            Arc::new(VirtualHost {
                name: (*name).into(),
                domains: domains.iter().map(|d| (*d).into()).collect(),
                routes: routes.iter().cloned().map(Arc::new).collect(),
                headers: HeaderOps::default(),
                retry: None,
                attempt_count_in_request: false,
                attempt_count_in_response: false,
                require_tls: false,
            })
        })
        .collect();
    RouteTable::new(Arc::new(RouteConfiguration { virtual_hosts, ..Default::default() }))
}

fn pick(table: &RouteTable, authority: &str, path: &str, headers: &HeaderMap) -> Result<String, Miss> {
    let facts = RequestFacts { authority, path, method: &Method::GET, scheme: "http", headers, random: 0 };
    table.select(&facts).map(|s| format!("{}/{}", s.virtual_host.name, s.route.name))
}

#[test]
fn hosts_go_from_exact_over_longest_wildcard_to_any() {
    let all = || vec![route("r", PathMatch::Prefix("/".into()))];
    let table = table(&[
        ("any", &["*"], all()),
        ("suffix", &["*.example.com"], all()),
        ("longer", &["*.api.example.com"], all()),
        ("dash", &["*-v2.example.com"], all()),
        ("prefix", &["www.*"], all()),
        ("exact", &["www.example.com", "www.example.com:8080"], all()),
    ]);
    let none = HeaderMap::new();
    for (host, wanted) in [
        ("www.example.com", "exact/r"),
        ("WWW.Example.COM", "exact/r"),
        ("www.example.com:8080", "exact/r"),
        ("a.example.com", "suffix/r"),
        ("a.api.example.com", "longer/r"),
        ("x-v2.example.com", "dash/r"),
        (".example.com", "any/r"),
        ("www.other.org", "prefix/r"),
        ("www.", "any/r"),
        ("", "any/r"),
        ("é.example.com", "suffix/r"),
    ] {
        assert_eq!(pick(&table, host, "/", &none).unwrap(), wanted, "{host}");
    }
}

#[test]
fn paths_ignore_the_query_and_respect_case_and_separators() {
    let mut folded = route("folded", PathMatch::Exact("/case".into()));
    folded.matches.case_sensitive = false;
    let table = table(&[(
        "v",
        &["*"],
        vec![
            route("exact", PathMatch::Exact("/a".into())),
            folded,
            route("separated", PathMatch::SeparatedPrefix("/shop".into())),
            route("regex", PathMatch::Regex(Regex::full("/items/[0-9]+").unwrap())),
            route("prefix", PathMatch::Prefix("/p".into())),
        ],
    )]);
    let none = HeaderMap::new();
    for (path, wanted) in [
        ("/a", Ok("v/exact")),
        ("/a?x=1", Ok("v/exact")),
        ("/a#frag?x", Ok("v/exact")),
        ("/ab", Err(Miss::NoRoute)),
        ("/CaSe?q", Ok("v/folded")),
        ("/shop", Ok("v/separated")),
        ("/shop/cart", Ok("v/separated")),
        ("/shopping", Err(Miss::NoRoute)),
        ("/items/42?x", Ok("v/regex")),
        ("/items/42/x", Err(Miss::NoRoute)),
        ("/pq", Ok("v/prefix")),
    ] {
        assert_eq!(pick(&table, "h", path, &none), wanted.map(str::to_owned), "{path}");
    }
}

#[test]
fn headers_query_grpc_and_fraction_all_have_to_hold() {
    let mut rule = route("r", PathMatch::Prefix("/".into()));
    rule.matches.headers = vec![HeaderMatcher {
        name: "x-user".into(),
        rule: HeaderRule::Value(StringMatcher::exact("jason,mary")),
        invert: false,
        treat_missing_as_empty: false,
    }];
    rule.matches.query = vec![QueryMatcher { name: "v".into(), value: Some(StringMatcher::exact("2")) }];
    rule.matches.grpc = true;
    let strict = table(&[("v", &["*"], vec![rule.clone()])]);
    let mut headers = HeaderMap::new();
    headers.append("x-user", HeaderValue::from_static("jason"));
    headers.append("x-user", HeaderValue::from_static("mary"));
    headers.insert("content-type", HeaderValue::from_static("application/grpc+proto"));
    assert!(pick(&strict, "h", "/?v=2", &headers).is_ok());
    assert!(pick(&strict, "h", "/?v=3", &headers).is_err());
    headers.insert("content-type", HeaderValue::from_static("application/grpc-web"));
    assert!(pick(&strict, "h", "/?v=2", &headers).is_err());
    headers.remove("x-user");
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    assert!(pick(&strict, "h", "/?v=2", &headers).is_err());

    rule.matches = route("", PathMatch::Prefix("/".into())).matches;
    rule.matches.fraction = Some(Fraction { numerator: 0, denominator: 100 });
    assert!(pick(&table(&[("v", &["*"], vec![rule])]), "h", "/", &headers).is_err());
}

#[test]
fn weights_are_honoured_exactly_over_all_draws() {
    let target = |cluster: &str, weight| WeightedTarget {
        cluster: cluster.into(),
        weight,
        headers: HeaderOps::default(),
        host_rewrite: None,
    };
    let targets = [target("a", 90), target("zero", 0), target("b", 10)];
    let hits = |name: &str| (0..100).filter(|d| &*pick_weighted(&targets, *d).unwrap().cluster == name).count();
    assert_eq!((hits("a"), hits("zero"), hits("b")), (90, 0, 10));
    assert!(pick_weighted(&[target("a", 0)], 7).is_none());
}

#[test]
fn ports_are_stripped_only_where_there_is_one() {
    for (authority, wanted) in
        [("a:80", "a"), ("a", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("a:b", "a:b"), ("a:", "a")]
    {
        assert_eq!(strip_port(authority), wanted, "{authority}");
    }
}
