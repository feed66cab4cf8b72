//! External authorization and JSON web tokens from socket to socket.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, StatusCode, header};

use super::{
    faults::chain,
    peer::{Upstream, header as field},
    support::{pair, run, until},
};
use crate::ir::{
    ext_authz::{AuthService, BodySettings, ExtAuthz, HttpService},
    http::FilterKind,
    jwt_authn::{JwksSource, JwtAuthn, JwtProvider, JwtRule, Requirement},
    matcher::StringMatcher,
    route::{PathMatch, RouteMatch},
    service::HttpUri,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn authz(change: impl FnOnce(&mut ExtAuthz)) -> FilterKind {
    let uri = HttpUri { uri: "http://auth/".into(), cluster: "auth".into(), timeout: Some(Duration::from_secs(20)) };
    let service = HttpService {
        uri,
        path_prefix: "".into(),
        path_override: None,
        headers_to_add: Vec::new(),
        upstream_headers: Vec::new(),
        upstream_headers_to_append: Vec::new(),
        client_headers: None,
        client_headers_on_success: Vec::new(),
        metadata_from_headers: Vec::new(),
    };
    let mut config = ExtAuthz {
        service: AuthService::Http(Box::new(service)),
        failure_mode_allow: false,
        failure_mode_header: false,
        body: None,
        clear_route_cache: false,
        status_on_error: StatusCode::FORBIDDEN,
        validate_mutations: false,
        metadata_namespaces: Vec::new(),
        route_metadata_namespaces: Vec::new(),
        enabled: None,
        enabled_metadata: None,
        deny_at_disable: false,
        include_peer_certificate: false,
        include_tls_session: false,
        stat_prefix: "".into(),
        allowed_headers: Some([":method", ":path", ":authority"].map(StringMatcher::exact).to_vec()),
        disallowed_headers: Vec::new(),
        raw_headers: false,
        rules: None,
        ingest_metadata: true,
        charge_cluster: true,
        max_denied_body: 0,
        enforce_header_limits: false,
    };
    change(&mut config);
    FilterKind::ExtAuthz(Arc::new(config))
}

#[test]
fn a_long_body_is_shown_in_part_and_goes_on_whole() {
    run(async {
        let (auth, address) = Upstream::bind().await;
        let (proxy, upstream) = pair(|s| {
            let body = Some(BodySettings { max_bytes: 4, partial: true, raw: false });
            chain(s, [("authz", authz(|c| c.body = body))]);
            s.others = vec![("auth", address)];
        })
        .await;
        let mut client = proxy.connect().await;
        client.send("POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345").await;
        let mut asked = auth.accept().await;
        let (head, body) = asked.message().await;
        assert_eq!((field(&head, "x-envoy-auth-partial-body"), &*body), (Some("true"), "1234"));
        asked.send(OK).await;
        let mut server = upstream.accept().await;
        server.until("12345").await;
        client.send("67890").await;
        server.until("67890").await;
        server.send(OK).await;
        assert_eq!(client.message().await.1, "ok");
    });
}

#[test]
fn a_body_up_to_the_bound_is_a_part_unless_its_end_was_seen() {
    run(async {
        let (auth, address) = Upstream::bind().await;
        let (proxy, upstream) = pair(|s| {
            let body = Some(BodySettings { max_bytes: 4, partial: true, raw: false });
            chain(s, [("authz", authz(|c| c.body = body))]);
            s.others = vec![("auth", address)];
        })
        .await;
        let (mut client, mut asked, mut server) = (proxy.connect().await, None, None);
        // The head's length or coding, what comes before the question, what after it, and whether it is a part.
        for (framing, first, rest, partial) in [
            ("Content-Length: 4", "1234", "", "false"),
            ("Content-Length: 3", "123", "", "false"),
            ("Content-Length: 5", "1234", "5", "true"),
            ("Transfer-Encoding: chunked", "3\r\n123\r\n0\r\n\r\n", "", "false"),
            ("Transfer-Encoding: chunked", "4\r\n1234\r\n", "0\r\n\r\n", "true"),
            ("Transfer-Encoding: chunked", "4\r\n1234\r\n", "1\r\n5\r\n0\r\n\r\n", "true"),
        ] {
            let case = format!("{framing}, {first:?} and {rest:?}");
            client.send(&format!("POST /p HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n{first}")).await;
            let asked = match &mut asked {
                Some(asked) => asked,
                none => none.insert(auth.accept().await),
            };
            let (head, body) = asked.message().await;
            assert_eq!(field(&head, "x-envoy-auth-partial-body"), Some(partial), "{case}");
            assert!("1234".starts_with(&body) && body.len() >= 3, "{case}: {body}");
            asked.send(OK).await;
            client.send(rest).await;
            let server = match &mut server {
                Some(server) => server,
                none => none.insert(upstream.accept().await),
            };
            server.head().await;
            let end = if framing.starts_with("Content") { &first[first.len() - 1..] } else { "0\r\n\r\n" };
            server.until(if rest == "5" { "5" } else { end }).await;
            server.send(OK).await;
            assert_eq!(client.message().await.1, "ok", "{case}");
        }
    });
}

#[test]
fn what_cannot_be_asked_about_is_denied_whatever_holds_without_the_service() {
    run(async {
        let (_auth, address) = Upstream::bind().await;
        let (proxy, _upstream) = pair(|s| {
            let told = Some([":method", ":authority"].map(StringMatcher::exact).to_vec());
            chain(s, [("authz", authz(|c| (c.allowed_headers, c.failure_mode_allow) = (told, true)))]);
            s.others = vec![("auth", address)];
        })
        .await;
        let mut client = proxy.connect().await;
        client.send("GET /p HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 403"));
        assert_eq!(proxy.log(1).await, ["403 UAEX ext_authz_denied 0 0 0 /p"]);
        let connections = |cluster: &crate::upstream::Cluster| cluster.stats.local().upstream_cx_total.get();
        assert_eq!((connections(&proxy.other("auth")), connections(&proxy.cluster)), (0, 0));
    });
}

#[test]
fn a_service_that_is_away_may_let_requests_pass() {
    run(async {
        let closed = Upstream::bind().await.1;
        let (proxy, upstream) = pair(|s| {
            chain(s, [("authz", authz(|c| c.failure_mode_allow = true))]);
            s.others = vec![("auth", closed)];
        })
        .await;
        let mut client = proxy.connect().await;
        client.send("GET /p HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut server = upstream.accept().await;
        server.head().await;
        server.send(OK).await;
        assert_eq!(client.message().await.1, "ok");
    });
}

#[test]
fn nobody_to_ask_is_a_denial() {
    run(async {
        let closed = Upstream::bind().await.1;
        let (proxy, _upstream) = pair(|s| {
            chain(s, [("authz", authz(|_| {}))]);
            s.others = vec![("auth", closed)];
        })
        .await;
        let mut client = proxy.connect().await;
        client.send("GET /p HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(client.head().await.starts_with("HTTP/1.1 403"));
        assert_eq!(proxy.log(1).await, ["403 UAEX ext_authz_error 0 0 0 /p"]);
    });
}

#[test]
fn who_leaves_is_not_asked_about_any_more() {
    run(async {
        let (auth, address) = Upstream::bind().await;
        let (proxy, _upstream) = pair(|s| {
            chain(s, [("authz", authz(|_| {}))]);
            s.others = vec![("auth", address)];
        })
        .await;
        let mut client = proxy.connect().await;
        client.send("GET /p HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut asked = auth.accept().await;
        asked.head().await;
        drop(client);
        assert_eq!(asked.rest().await.unwrap_or_default(), "");
        until(|| proxy.stats.local().downstream_rq_active.get() == 0).await;
    });
}

/// RFC 7515, appendix A.1, without its last digit where it is to be wrong.
const TOKEN: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const SET: &[u8] = br#"{"keys":[{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}]}"#;

fn jwt(change: impl FnOnce(&mut JwtProvider)) -> FilterKind {
    let mut provider = JwtProvider {
        name: "p".into(),
        issuer: "joe".into(),
        audiences: Vec::new(),
        subjects: None,
        require_expiration: false,
        max_lifetime: None,
        forward: false,
        headers: vec![(header::AUTHORIZATION, "Bearer ".into())],
        params: Vec::new(),
        cookies: Vec::new(),
        payload_header: None,
        pad_payload: false,
        payload_key: "".into(),
        header_key: "".into(),
        failed_key: "".into(),
        space_delimited: Vec::new(),
        // The token has been out of date since 2011.
        clock_skew: u64::MAX,
        claims: vec![(HeaderName::from_static("x-iss"), vec!["iss".into()])],
        clear_route_cache: false,
        keys: JwksSource::Local(Bytes::from_static(SET)),
    };
    change(&mut provider);
    let matches = RouteMatch {
        further: None,
        path: PathMatch::Prefix("/p".into()),
        case_sensitive: true,
        headers: Vec::new(),
        query: Vec::new(),
        grpc: false,
        fraction: None,
    };
    FilterKind::JwtAuthn(Arc::new(JwtAuthn {
        providers: vec![provider],
        rules: vec![JwtRule { matches, requirement: Some(Requirement::Provider(0, Vec::new())) }],
        requirements: Vec::new(),
        bypass_cors_preflight: false,
        strip_failure_response: false,
        stat_prefix: "".into(),
    }))
}

#[test]
fn a_good_token_passes_and_nobody_else_says_what_it_said() {
    run(async {
        let (proxy, upstream) = pair(|s| chain(s, [("jwt", jwt(|_| {}))])).await;
        let mut client = proxy.connect().await;
        client
            .send(&format!("GET /p HTTP/1.1\r\nHost: x\r\nX-Iss: forged\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"))
            .await;
        let mut server = upstream.accept().await;
        let head = server.head().await;
        assert_eq!((field(&head, "x-iss"), field(&head, "authorization")), (Some("joe"), None));
        assert_eq!(head.to_ascii_lowercase().matches("x-iss:").count(), 1);
        server.send(OK).await;
        assert_eq!(client.message().await.1, "ok");
        for (sent, said) in [
            (String::new(), "Bearer realm=\"http://x/p\""),
            (
                format!("Authorization: Bearer {}x\r\n", &TOKEN[..TOKEN.len() - 1]),
                "Bearer realm=\"http://x/p\", error=\"invalid_token\"",
            ),
        ] {
            client.send(&format!("GET /p HTTP/1.1\r\nHost: x\r\nX-Iss: forged\r\n{sent}\r\n")).await;
            let (head, _) = client.message().await;
            assert!(head.starts_with("HTTP/1.1 401"), "{head}");
            assert_eq!(field(&head, "www-authenticate"), Some(said));
        }
    });
}

#[test]
fn keys_are_fetched_once_for_all_who_wait() {
    run(async {
        let (keys, address) = Upstream::bind().await;
        let (proxy, upstream) = pair(|s| {
            let uri = HttpUri { uri: "http://keys.test/set".into(), cluster: "keys".into(), timeout: None };
            let cache = Duration::from_secs(600);
            let remote = crate::ir::jwt_authn::RemoteJwks { uri, cache, ahead: None, retries: 0, backoff: cache };
            chain(s, [("jwt", jwt(|p| p.keys = JwksSource::Remote(Box::new(remote))))]);
            s.others = vec![("keys", address)];
        })
        .await;
        let (mut one, mut two) = (proxy.connect().await, proxy.connect().await);
        for client in [&mut one, &mut two] {
            client.send(&format!("GET /p HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n")).await;
        }
        let mut asked = keys.accept().await;
        let head = asked.head().await;
        assert!(head.starts_with("GET /set HTTP/1.1") && field(&head, "host") == Some("keys.test"), "{head}");
        until(|| proxy.stats.local().downstream_rq_active.get() == 2).await;
        let set = std::str::from_utf8(SET).unwrap();
        asked.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{set}", set.len())).await;
        for client in [&mut one, &mut two] {
            let mut server = upstream.accept().await;
            server.head().await;
            server.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
            let _ = client;
        }
        assert_eq!((one.message().await.1, two.message().await.1), ("ok".to_owned(), "ok".to_owned()));
        tokio::select! {
            biased;
            _ = keys.accept() => panic!("fetched twice"),
            () = std::future::ready(()) => {}
        }
    });
}
