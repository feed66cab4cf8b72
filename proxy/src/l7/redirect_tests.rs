use super::*;
use crate::{
    ir::route::{Action, HeaderOps, PathMatch, RouteConfiguration, RouteMatch, VirtualHost},
    l7::{forwarded::Origin, incoming::Incoming, sanitize::Sane},
};

fn target(location: &str) -> Result<(&'static str, String, String), Refused> {
    let mut headers = HeaderMap::new();
    headers.insert(header::LOCATION, HeaderValue::from_str(location).unwrap());
    let mut hcm = crate::l7::server::tests_support::hcm();
    hcm.normalize_path = true;
    Target::of(&hcm, &headers).map(|t| (t.scheme, t.authority, t.path.to_string()))
}

#[test]
fn only_whole_urls_are_followed() {
    assert_eq!(target("http://a:81/b?c#d"), Ok(("http", "a:81".into(), "/b?c".into())));
    assert_eq!(target("https://a"), Ok(("https", "a".into(), "/".into())));
    assert_eq!(target("http://a/b/%2e%2e/admin?c"), Ok(("http", "a".into(), "/admin?c".into())));
    assert_eq!(target("http://a?c"), Ok(("http", "a".into(), "/?c".into())));
    for bad in ["/b", "a/b", "//a/b", "ftp://a/b", "http://user@a/b", "http:///b", "http://a b/", ""] {
        assert_eq!(target(bad), Err(Refused::Location), "{bad}");
    }
    assert_eq!(Target::of(&crate::l7::server::tests_support::hcm(), &HeaderMap::new()).err(), Some(Refused::Location));
}

fn route(name: &str, prefix: &str) -> Arc<Route> {
    Arc::new(Route {
        name: name.into(),
        matches: Arc::new(RouteMatch {
            path: PathMatch::Prefix(prefix.into()),
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
    })
}

/// A table with the routes `a` and `b`.
fn table() -> RouteTable {
    let host = VirtualHost {
        name: "v".into(),
        domains: vec!["*".into()],
        routes: vec![route("a", "/a"), route("b", "/b")],
        headers: HeaderOps::default().into(),
        retry: None,
        hedge: false,
        timeout_retry_header: false,
        body_buffer: None,
        attempt_count_in_request: false,
        attempt_count_in_response: false,
        require_tls: false,
        overrides: None,
    };
    let config = RouteConfiguration { virtual_hosts: vec![Arc::new(host)], ..RouteConfiguration::default() };
    RouteTable::new(Arc::new(config))
}

fn request(scheme: &'static str) -> Inbound {
    let (mut parts, ()) = http::Request::builder().method("POST").uri("/a?q").body(()).unwrap().into_parts();
    parts.headers.insert(header::HOST, HeaderValue::from_static("x:80"));
    parts.headers.insert("x-copied", HeaderValue::from_static("old"));
    let origin =
        Origin { remote: ([127, 0, 0, 1], 1).into(), internal: false, scheme, certificate: Default::default() };
    let sane = Sane { origin, tunnel: Tunnel::None, grpc: false, names: Default::default() };
    Inbound { parts, body: Incoming::None, sane, upgrade: None }
}

fn policy(predicates: Vec<RedirectPredicate>) -> InternalRedirect {
    InternalRedirect {
        max: 5,
        codes: vec![StatusCode::FOUND],
        cross_scheme: true,
        copied_headers: vec![HeaderName::from_static("x-copied")],
        predicates,
    }
}

/// Follows one redirect from the route `a`.
fn go(
    policy: &InternalRedirect,
    table: &RouteTable,
    (request, hops): (&mut Inbound, &mut Hops),
    location: &'static str,
) -> Result<(), Refused> {
    let mut headers = HeaderMap::new();
    headers.insert(header::LOCATION, HeaderValue::from_static(location));
    let from = table.config.virtual_hosts[0].routes[0].clone();
    let hcm = crate::l7::server::tests_support::hcm();
    let answer = Answer { status: StatusCode::SEE_OTHER, headers: &headers, route: &from, hcm: &hcm };
    follow(policy, &answer, table, (request, false), hops)
}

#[test]
fn the_request_becomes_the_one_that_was_named() {
    let (table, mut request, mut hops) = (table(), request("http"), Hops::default());
    assert_eq!(go(&policy(Vec::new()), &table, (&mut request, &mut hops), "https://y/b?z"), Ok(()));
    assert_eq!((request.path(), request.authority(), request.sane.origin.scheme), ("/b?z", "y", "https"));
    assert_eq!(request.parts.method, Method::GET, "a POST whose answer is elsewhere is asked for with GET");
    assert_eq!(request.parts.headers[ORIGINAL_URL], "http://x:80/a?q");
    assert!(!request.parts.headers.contains_key("x-copied"), "what the redirect lacks is removed");
}

#[test]
fn what_is_refused_leaves_the_request_alone() {
    let table = table();
    let plain = InternalRedirect { cross_scheme: false, ..policy(Vec::new()) };
    let used_up = InternalRedirect { max: 0, ..policy(Vec::new()) };
    let listed = policy(vec![RedirectPredicate::AllowListedRoutes(vec!["b".into()])]);
    let safe = policy(vec![RedirectPredicate::SafeCrossScheme]);
    for (policy, scheme, location, expected) in [
        (&plain, "http", "https://y/b", Err(Refused::UnsafeScheme)),
        (&plain, "http", "http://y/b", Ok(())),
        (&used_up, "http", "http://y/b", Err(Refused::TooMany)),
        (&plain, "http", "http://y/c", Err(Refused::NoRoute)),
        (&listed, "http", "http://y/a", Err(Refused::Predicate)),
        (&listed, "http", "http://y/b", Ok(())),
        (&safe, "http", "https://y/b", Err(Refused::Predicate)),
        (&safe, "https", "http://y/b", Ok(())),
    ] {
        let (mut request, mut hops) = (request(scheme), Hops::default());
        assert_eq!(go(policy, &table, (&mut request, &mut hops), location), expected, "{location}");
        if expected.is_err() {
            assert_eq!((request.path(), request.sane.origin.scheme), ("/a?q", scheme));
        }
    }
}

#[test]
fn a_way_is_taken_once() {
    let (table, mut request, mut hops) = (table(), request("http"), Hops::default());
    let once = policy(vec![RedirectPredicate::PreviousRoutes]);
    assert_eq!(go(&once, &table, (&mut request, &mut hops), "http://y/b"), Ok(()));
    assert_eq!(go(&once, &table, (&mut request, &mut hops), "http://y/b/2"), Err(Refused::Predicate));
    assert_eq!(go(&once, &table, (&mut request, &mut hops), "http://y/a"), Ok(()));
}
