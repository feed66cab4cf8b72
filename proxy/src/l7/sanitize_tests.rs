use std::net::SocketAddr;

use http::Request;

use super::*;
use crate::{
    ir::http::EscapedSlashes,
    l7::server::tests_support::{conn_info, hcm},
};

fn conn(remote: &str) -> ConnInfo {
    conn_info(1, remote.parse().unwrap(), SocketAddr::from(([10, 0, 0, 9], 8080)))
}

fn parts(uri: &str, headers: &[(&'static str, &'static str)]) -> Parts {
    let mut request = Request::builder().uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if !headers.iter().any(|(n, _)| *n == "host") {
        request = request.header("host", "h");
    }
    request.body(()).unwrap().into_parts().0
}

fn values(parts: &Parts, name: &str) -> Vec<String> {
    parts.headers.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect()
}

#[test]
fn paths_are_normalised() {
    let mut config = hcm();
    for (path, expected) in [
        ("/a/b", "/a/b"),
        ("/a/./b/../c?x=/../y", "/a/c?x=/../y"),
        ("/../../etc/passwd", "/etc/passwd"),
        ("/a/%2e%2E/b", "/b"),
        ("/a/..", "/"),
        ("/a/b/.", "/a/b/"),
        ("/a%2Fb", "/a%2Fb"),
        ("/%61%7E/x", "/a~/x"),
        ("/a//b", "/a//b"),
        ("/..a/.b/c..", "/..a/.b/c.."),
        ("/a/..;/b", "/b"),
        ("/a/..;x=1/b/.;y", "/b/"),
        ("/a/%2e%2e;/b", "/b"),
        ("/a;x/b/...;/c", "/a;x/b/...;/c"),
    ] {
        let mut request = parts(path, &[]);
        sanitize(&config, &conn("1.2.3.4:5"), &mut request).unwrap();
        assert_eq!(request.uri.to_string(), expected, "{path}");
    }
    for (whole, expected) in [("http://h?x=1", "/?x=1"), ("http://h", "/"), ("?y", "/?y")] {
        let mut request = parts("/", &[("host", "h")]);
        request.uri = whole.parse().unwrap_or_else(|_| {
            let path = http::uri::PathAndQuery::from_static("?y");
            http::Uri::from(path)
        });
        sanitize(&config, &conn("1.2.3.4:5"), &mut request).unwrap();
        assert_eq!(request.uri.path_and_query().unwrap().as_str(), expected, "{whole}");
    }
    for bad in ["/a%00b", "/a%zz", "/a%2"] {
        let reply = sanitize(&config, &conn("1.2.3.4:5"), &mut parts(bad, &[])).unwrap_err();
        assert_eq!((reply.status, &*reply.details), (StatusCode::BAD_REQUEST, "path_normalization_failed"), "{bad}");
    }
    config.merge_slashes = true;
    config.escaped_slashes = EscapedSlashes::UnescapeAndForward;
    let mut request = parts("/a//b%2F%2fc%5Cd?e=%2F//", &[]);
    sanitize(&config, &conn("1.2.3.4:5"), &mut request).unwrap();
    assert_eq!(request.uri.to_string(), "/a/b/c/d?e=%2F//");
    config.escaped_slashes = EscapedSlashes::Reject;
    assert!(sanitize(&config, &conn("1.2.3.4:5"), &mut parts("/a%2Fb", &[])).is_err());
    config.escaped_slashes = EscapedSlashes::UnescapeAndRedirect;
    let reply = sanitize(&config, &conn("1.2.3.4:5"), &mut parts("/a%2Fb?q", &[])).unwrap_err();
    assert_eq!((reply.status.as_u16(), reply.location.as_deref()), (307, Some("/a/b?q")));
}

#[test]
fn the_authority_is_one() {
    let mut config = hcm();
    let mut request = parts("http://uri.example/x", &[("host", "header.example")]);
    sanitize(&config, &conn("1.2.3.4:5"), &mut request).unwrap();
    assert_eq!(values(&request, "host"), ["uri.example"], "an absolute target wins");
    assert_eq!(request.uri.to_string(), "/x");
    for (strip, host, expected) in [
        (StripPort::No, "h:8080", "h:8080"),
        (StripPort::Matching, "h:8080", "h"),
        (StripPort::Matching, "h:8081", "h:8081"),
        (StripPort::Any, "h:8081", "h"),
        (StripPort::Any, "[::1]:80", "[::1]"),
        (StripPort::Any, "[::1]", "[::1]"),
    ] {
        config.strip_port = strip;
        let mut request = parts("/", &[("host", host)]);
        sanitize(&config, &conn("1.2.3.4:5"), &mut request).unwrap();
        assert_eq!(values(&request, "host"), [expected], "{strip:?} {host}");
    }
}

#[test]
fn underscores_follow_the_policy() {
    let mut config = hcm();
    for (mode, kept, refused) in
        [(Underscores::Allow, 1, false), (Underscores::DropHeader, 0, false), (Underscores::RejectRequest, 1, true)]
    {
        config.underscores = mode;
        let mut request = parts("/", &[("x_y", "1")]);
        assert_eq!(sanitize(&config, &conn("1.2.3.4:5"), &mut request).is_err(), refused);
        assert_eq!(values(&request, "x_y").len(), kept);
    }
}

#[test]
fn request_ids_are_made_kept_or_replaced() {
    for (edge, preserve, peer, replaced) in [
        (false, false, "8.8.8.8:1", false),
        (true, false, "8.8.8.8:1", true),
        (true, true, "8.8.8.8:1", false),
        (true, false, "10.0.0.1:1", true),
    ] {
        let mut config = hcm();
        (config.use_remote_address, config.preserve_external_request_id) = (edge, preserve);
        let mut request = parts("/", &[("x-request-id", "given")]);
        sanitize(&config, &conn(peer), &mut request).unwrap();
        assert_eq!(values(&request, "x-request-id") != ["given"], replaced, "edge={edge} preserve={preserve} {peer}");
    }
    let mut request = parts("/", &[]);
    sanitize(&hcm(), &conn("1.2.3.4:5"), &mut request).unwrap();
    let id = values(&request, "x-request-id").concat();
    assert!(uuid::Uuid::parse_str(&id).is_ok_and(|id| id.get_version_num() == 4), "{id}");
    let mut config = hcm();
    config.generate_request_id = false;
    let mut request = parts("/", &[]);
    sanitize(&config, &conn("1.2.3.4:5"), &mut request).unwrap();
    assert!(values(&request, "x-request-id").is_empty());
}

#[test]
fn a_quote_is_no_letter_of_a_name() {
    let mut request = parts("/", &[]);
    request.version = Version::HTTP_2;
    let name = HeaderName::from_lowercase(b"cont\"nt-length").unwrap();
    request.headers.insert(name, HeaderValue::from_static("5"));
    let refused = sanitize(&hcm(), &conn("10.0.0.1:1"), &mut request).unwrap_err();
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}

#[test]
fn only_chunked_is_a_transfer_encoding() {
    let check = |headers: &[(&'static str, &'static str)]| {
        sanitize(&hcm(), &conn("10.0.0.1:1"), &mut parts("/", headers)).map(drop).map_err(|reply| reply.status.as_u16())
    };
    assert_eq!(check(&[("transfer-encoding", "Chunked")]), Ok(()));
    for value in ["chunked, chunked", "gzip, chunked", "identity", "", "chunked;q=1"] {
        assert_eq!(check(&[("transfer-encoding", value)]), Err(501), "{value}");
    }
    assert_eq!(check(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]), Err(501));
    let mut odd = parts("/", &[("transfer-encoding", "chuNked")]);
    assert!(sanitize(&hcm(), &conn("10.0.0.1:1"), &mut odd).is_ok());
    assert_eq!(odd.headers["transfer-encoding"], "chunked", "readers may compare letters");
}

#[test]
fn upgrades_look_alike_in_both_protocols() {
    let mut one =
        parts("/chat", &[("connection", "keep-alive, Upgrade, x-hop"), ("upgrade", "WebSocket"), ("x-hop", "1")]);
    let upgrade = sanitize(&hcm(), &conn("1.2.3.4:5"), &mut one).unwrap().tunnel;
    assert_eq!(upgrade, Tunnel::Upgrade("websocket".into()));
    let mut two = parts("http://h:80/a/../chat", &[]);
    (two.method, two.version) = (Method::CONNECT, Version::HTTP_2);
    two.extensions.insert(hyper::ext::Protocol::from_static("websocket"));
    let extended = sanitize(&ConnectionManager { strip_port: StripPort::Any, ..hcm() }, &conn("1.2.3.4:5"), &mut two);
    assert_eq!(extended.unwrap().tunnel, Tunnel::Extended("websocket".into()));
    assert!(two.extensions.get::<hyper::ext::Protocol>().is_none());
    for request in [&one, &two] {
        assert_eq!((&request.method, request.uri.to_string().as_str()), (&Method::GET, "/chat"));
        assert_eq!(values(request, "connection"), ["upgrade"]);
        assert_eq!(values(request, "upgrade"), ["websocket"]);
        assert_eq!(values(request, "host"), ["h"]);
        assert!(values(request, "x-hop").is_empty());
    }
    let mut post = parts("/exec", &[("connection", "upgrade"), ("upgrade", "spdy/3.1")]);
    post.method = Method::POST;
    sanitize(&hcm(), &conn("1.2.3.4:5"), &mut post).unwrap();
    assert_eq!(post.method, Method::POST, "what is decided on is what is sent");
    let mut offer = parts("/", &[("connection", "upgrade"), ("upgrade", "h2c")]);
    sanitize(&hcm(), &conn("1.2.3.4:5"), &mut offer).unwrap();
    assert!(values(&offer, "upgrade").is_empty() && values(&offer, "connection").is_empty());
}
