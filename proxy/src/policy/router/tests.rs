use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, header};

use super::*;
use crate::ir::{
    Fraction,
    matcher::{CookieMatcher, HeaderMatcher, HeaderRule, QueryMatcher, QueryRule, Regex, StringMatcher},
    route::{Action, FurtherMatch, HeaderOps, PathMatch, RouteMatch},
};

fn route(name: &str, path: PathMatch) -> Route {
    Route {
        name: name.into(),
        matches: Arc::new(RouteMatch {
            path,
            case_sensitive: true,
            headers: Vec::new(),
            query: Vec::new(),
            grpc: false,
            fraction: None,
            further: None,
        }),
        action: Action::NonForwarding,
        headers: HeaderOps::default().into(),
        metadata: None,
        overrides: None,
        tracing: None,
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
                headers: HeaderOps::default().into(),
                retry: None,
                hedge: false,
                timeout_retry_header: false,
                body_buffer: None,
                attempt_count_in_request: false,
                attempt_count_in_response: false,
                require_tls: false,
                overrides: None,
            })
        })
        .collect();
    RouteTable::new(Arc::new(RouteConfiguration { virtual_hosts, ..Default::default() }))
}

fn pick(table: &RouteTable, authority: &str, path: &str, headers: &HeaderMap) -> Result<String, Miss> {
    let facts = RequestFacts {
        authority,
        path,
        method: &Method::GET,
        scheme: "http",
        headers,
        certificate: Default::default(),
        random: 0,
    };
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
    Arc::make_mut(&mut folded.matches).case_sensitive = false;
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
    Arc::make_mut(&mut rule.matches).headers = vec![HeaderMatcher {
        name: "x-user".into(),
        rule: HeaderRule::Value(StringMatcher::exact("mary")),
        invert: false,
        treat_missing_as_empty: false,
    }];
    Arc::make_mut(&mut rule.matches).query =
        vec![QueryMatcher { name: "v".into(), rule: QueryRule::Value(StringMatcher::exact("2")) }];
    Arc::make_mut(&mut rule.matches).grpc = true;
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
    Arc::make_mut(&mut rule.matches).fraction = Some(Fraction { numerator: 0, denominator: 100 });
    assert!(pick(&table(&[("v", &["*"], vec![rule])]), "h", "/", &headers).is_err());
}

#[test]
fn a_second_value_hides_no_other_from_a_rule() {
    let picks = |rule: HeaderRule, invert: bool, values: &[&'static str]| {
        let mut r = route("r", PathMatch::Prefix("/".into()));
        Arc::make_mut(&mut r.matches).headers =
            vec![HeaderMatcher { name: "x-h".into(), rule, invert, treat_missing_as_empty: false }];
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-h", HeaderValue::from_static(value));
        }
        pick(&table(&[("v", &["*"], vec![r])]), "h", "/", &headers).is_ok()
    };
    let exact = |text: &str| HeaderRule::Value(StringMatcher::exact(text));
    let range = HeaderRule::Range { start: 5, end: 9 };
    for (rule, invert, values, wanted) in [
        (exact("a"), false, &["a", "b"][..], true),
        (exact("b"), false, &["a", "b"], true),
        (exact("c"), false, &["a", "b"], false),
        (exact("a,b"), false, &["a", "b"], false),
        (exact("a,b"), false, &["a,b"], true),
        (exact("a"), true, &["a", "b"], false),
        (exact("b"), true, &["a", "b"], false),
        (exact("c"), true, &["a", "b"], true),
        (exact("a"), true, &[], false),
        (range.clone(), false, &["1", "7"], true),
        (range, true, &["1", "7"], false),
        (HeaderRule::Present(true), false, &["a", "b"], true),
        (HeaderRule::Present(false), false, &["a", "b"], false),
        (HeaderRule::Present(true), true, &[], true),
    ] {
        assert_eq!(picks(rule.clone(), invert, values), wanted, "{rule:?} {invert} {values:?}");
    }
}

#[test]
fn a_query_parameter_may_have_to_be_absent() {
    let mut r = route("r", PathMatch::Prefix("/".into()));
    Arc::make_mut(&mut r.matches).query = vec![QueryMatcher { name: "q".into(), rule: QueryRule::Present(false) }];
    let table = table(&[("v", &["*"], vec![r])]);
    let none = HeaderMap::new();
    for (path, wanted) in [("/", true), ("/?p=1", true), ("/?q", false), ("/?p&q=1", false)] {
        assert_eq!(pick(&table, "h", path, &none).is_ok(), wanted, "{path}");
    }
}

#[test]
fn weights_are_honoured_exactly_over_all_draws() {
    let target = |cluster: &str, weight| WeightedTarget {
        cluster: cluster.into(),
        cluster_header: None,
        weight,
        headers: HeaderOps::default(),
        host_rewrite: None,
        overrides: None,
        criteria: None,
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

#[test]
fn case_matters_where_the_route_says_so_and_never_to_a_regular_expression() {
    let mut folded = route("folded", PathMatch::Prefix("/api".into()));
    Arc::make_mut(&mut folded.matches).case_sensitive = false;
    let mut regex = route("regex", PathMatch::Regex(Regex::full("/Img/[A-Z]+").unwrap()));
    Arc::make_mut(&mut regex.matches).case_sensitive = false;
    let table = table(&[("h", &["*"], vec![folded, regex])]);
    let none = HeaderMap::new();
    for (path, wanted) in [
        ("/API/x", Ok("h/folded")),
        ("/api?A=b", Ok("h/folded")),
        ("/Img/ABC?q", Ok("h/regex")),
        ("/img/abc", Err(Miss::NoRoute)),
    ] {
        assert_eq!(pick(&table, "h", path, &none), wanted.map(str::to_owned), "{path}");
    }
}

#[test]
fn connect_has_no_path_and_takes_only_its_own_matcher() {
    let table = table(&[(
        "h",
        &["*"],
        vec![route("prefix", PathMatch::Prefix("/".into())), route("connect", PathMatch::Connect)],
    )]);
    let headers = HeaderMap::new();
    let facts = |method, path| RequestFacts {
        authority: "h",
        path,
        method,
        scheme: "http",
        headers: &headers,
        certificate: Default::default(),
        random: 0,
    };
    let name = |facts: RequestFacts<'_>| table.select(&facts).map(|s| s.route.name.to_string());
    assert_eq!(name(facts(&Method::CONNECT, "")).as_deref(), Ok("connect"));
    assert_eq!(name(facts(&Method::CONNECT, "/chat")).as_deref(), Ok("prefix"), "extended CONNECT has a path");
    assert_eq!(name(facts(&Method::GET, "/")).as_deref(), Ok("prefix"));
}

#[test]
fn cookies_and_the_clients_certificate_decide_too() {
    let cookie = |name: &str, value: &str, invert| CookieMatcher {
        name: name.into(),
        value: StringMatcher::exact(value),
        invert,
    };
    let further = |name: &str, further: FurtherMatch| {
        let mut route = route(name, PathMatch::Prefix("/".into()));
        Arc::make_mut(&mut route.matches).further = Some(Box::new(further));
        route
    };
    let table = table(&[(
        "h",
        &["*"],
        vec![
            further("validated", FurtherMatch { validated: Some(true), ..FurtherMatch::default() }),
            further("presented", FurtherMatch { presented: Some(true), ..FurtherMatch::default() }),
            further(
                "canary",
                FurtherMatch {
                    cookies: vec![cookie("group", "canary", false), cookie("opt-out", "1", true)],
                    ..FurtherMatch::default()
                },
            ),
            further(
                "stable",
                FurtherMatch { cookies: vec![cookie("group", "canary", true)], ..FurtherMatch::default() },
            ),
        ],
    )]);
    let name = |cookies: &[&'static str], presented, validated| {
        let mut headers = HeaderMap::new();
        cookies.iter().for_each(|line| {
            headers.append(header::COOKIE, HeaderValue::from_static(line));
        });
        let facts = RequestFacts {
            authority: "h",
            path: "/",
            method: &Method::GET,
            scheme: "https",
            headers: &headers,
            certificate: ClientCertificate { presented, validated },
            random: 0,
        };
        table.select(&facts).map(|s| s.route.name.to_string())
    };
    for (cookies, wanted) in [
        (&[][..], "stable"),
        (&["group=canary"], "canary"),
        (&["a=b; group=\"canary\""], "canary"),
        (&["a=b", "group=canary; opt-out=0"], "canary"),
        (&["group=canaries"], "stable"),
        (&["Group=canary"], "stable"),
        (&["group=other; group=canary"], "stable"),
    ] {
        assert_eq!(name(cookies, false, false).as_deref(), Ok(wanted), "{cookies:?}");
    }
    assert_eq!(name(&["group=canary; opt-out=1"], false, false), Err(Miss::NoRoute));
    assert_eq!(name(&[], true, true).as_deref(), Ok("validated"));
    assert_eq!(name(&[], true, false).as_deref(), Ok("presented"));
}

#[test]
fn a_cluster_header_that_is_absent_or_no_text_names_no_cluster() {
    let target = Target::Header("x-cluster".parse().unwrap());
    let mut headers = HeaderMap::new();
    assert!(pick_target(&target, &headers, 0).is_none());
    headers.insert("x-cluster", HeaderValue::from_static(""));
    assert!(pick_target(&target, &headers, 0).is_none());
    headers.insert("x-cluster", HeaderValue::from_bytes(b"\xff").unwrap());
    assert!(pick_target(&target, &headers, 0).is_none());
    headers.insert("x-cluster", HeaderValue::from_static("blue"));
    assert_eq!(pick_target(&target, &headers, 0).map(Chosen::cluster), Some("blue"));
}

#[test]
fn many_hosts_and_odd_authorities_find_their_way() {
    let names: Vec<String> = (0..2000).map(|i| format!("svc-{i}.ns.svc.cluster.local")).collect();
    let hosts: Vec<(&str, Vec<&str>)> = names.iter().map(|n| (n.as_str(), vec![n.as_str()])).collect();
    let all = || vec![route("r", PathMatch::Prefix("/".into()))];
    let hosts: Vec<(&str, &[&str], Vec<Route>)> = hosts.iter().map(|(n, d)| (*n, d.as_slice(), all())).collect();
    let table = table(&hosts);
    let none = HeaderMap::new();
    assert_eq!(pick(&table, "SVC-1999.ns.svc.cluster.local", "/", &none).unwrap(), "svc-1999.ns.svc.cluster.local/r");
    for odd in ["", ":", "svc-1", "\u{e9}\u{e9}.ns", &"a".repeat(100_000)] {
        assert_eq!(pick(&table, odd, "/", &none), Err(Miss::NoVirtualHost), "{}", odd.len());
    }
}
