use http::HeaderName;

use super::*;
use crate::ir::matcher::Regex;

fn matches(path: PathMatch) -> RouteMatch {
    RouteMatch {
        path,
        case_sensitive: true,
        headers: Vec::new(),
        query: Vec::new(),
        grpc: false,
        fraction: None,
        further: None,
    }
}

fn prefix(text: &str) -> RouteMatch {
    matches(PathMatch::Prefix(text.into()))
}

#[test]
fn paths_are_rewritten() {
    let with = |text: &str| PathRewrite::Prefix(text.into());
    let regex = |pattern: &str, substitution: &str| PathRewrite::Regex {
        pattern: Regex::search(pattern).unwrap(),
        substitution: substitution.into(),
    };
    for (rewrite, matched, given, expected) in [
        (with("/v2"), prefix("/v1"), "/v1/a?b=/v1", Some("/v2/a?b=/v1")),
        (with("/"), prefix("/v1/"), "/v1/a", Some("/a")),
        (with("/new"), matches(PathMatch::Exact("/old".into())), "/old?q", Some("/new?q")),
        (with("/x"), matches(PathMatch::SeparatedPrefix("/api".into())), "/api/y", Some("/x/y")),
        (with("/x"), matches(PathMatch::SeparatedPrefix("/api".into())), "/api", Some("/x")),
        (with("/x"), matches(PathMatch::Connect), "/api", None),
        (regex("^/(\\w+)/(\\d+)$", "/$2/$1"), prefix("/"), "/item/7?q=/a/1", Some("/7/item?q=/a/1")),
        (regex("nope", "x"), prefix("/"), "/a?b", Some("/a?b")),
        (with("/x"), prefix("/longer than the path"), "/a", None),
    ] {
        assert_eq!(path(&rewrite, &matched, given).as_deref(), expected, "{rewrite:?} {given}");
    }
}

#[test]
fn hosts_are_rewritten() {
    let mut headers = HeaderMap::new();
    headers.insert("x-host", "from.header".parse().unwrap());
    let name = |text| HostRewrite::Header(HeaderName::from_static(text));
    let from_path =
        HostRewrite::PathRegex { pattern: Regex::search("^/(\\w+)/.*$").unwrap(), substitution: "$1.example".into() };
    for (rewrite, expected) in [
        (HostRewrite::Literal("lit".into()), Some("lit")),
        (HostRewrite::Auto, None),
        (name("x-host"), Some("from.header")),
        (name("x-none"), None),
        (from_path, Some("tenant.example")),
    ] {
        assert_eq!(host(&rewrite, &headers, "/tenant/x?y").as_deref(), expected, "{rewrite:?}");
    }
}

#[test]
fn redirects_are_built() {
    let plain = || Redirect {
        status: StatusCode::MOVED_PERMANENTLY,
        https: false,
        scheme: None,
        host: None,
        port: None,
        path: None,
        rewrite: None,
        strip_query: false,
    };
    let new = |text: &str| Some(PathRewrite::Prefix(text.into()));
    for (config, authority, expected) in [
        (Redirect { https: true, ..plain() }, "h", "https://h/old/x?q=1"),
        (Redirect { https: true, ..plain() }, "h:80", "https://h/old/x?q=1"),
        (Redirect { https: true, ..plain() }, "h:8080", "https://h:8080/old/x?q=1"),
        (Redirect { scheme: Some("ftp".into()), ..plain() }, "h", "ftp://h/old/x?q=1"),
        (Redirect { host: Some("n".into()), ..plain() }, "h:80", "http://n/old/x?q=1"),
        (Redirect { port: Some(99), ..plain() }, "h:80", "http://h:99/old/x?q=1"),
        (Redirect { path: Some("/p".into()), ..plain() }, "h", "http://h/p?q=1"),
        (Redirect { path: Some("/p?own=1".into()), ..plain() }, "h", "http://h/p?own=1"),
        (Redirect { strip_query: true, ..plain() }, "h", "http://h/old/x"),
        (Redirect { rewrite: new("/new"), ..plain() }, "h", "http://h/new/x?q=1"),
        (Redirect { rewrite: new("/new"), strip_query: true, ..plain() }, "[::1]:80", "http://[::1]:80/new/x"),
    ] {
        let line = Line { scheme: "http", authority, path: "/old/x?q=1" };
        let (status, location) = redirect(&config, &prefix("/old"), &line);
        assert_eq!((status, location.as_str()), (StatusCode::MOVED_PERMANENTLY, expected), "{config:?}");
    }
}
