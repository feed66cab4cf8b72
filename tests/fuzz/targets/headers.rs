//! Headers that say something: trace contexts, tokens, forwarding, the signed debug header. The input is a head without
//! its first line.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue};
use outrigger_proxy::{
    ir::{format::Template, http::FilterKind, jwt_authn::JwtProvider, spiffe::SpiffeId},
    l7::{forwarded, headers, timeouts::parse_grpc_timeout},
    live::LiveTerminal,
    policy::{
        debug::{DebugKeys, Signed},
        jwt,
    },
    telemetry::trace::context::{Extracted, SpanContext, SpanId, TraceId},
};

use super::fixture;

pub(super) fn run(data: &[u8]) {
    let map = parse(data);
    traces(&map);
    for found in jwt::locate(PROVIDERS.iter(), &map, &text(&map, "x-path")) {
        let _ = jwt::Token::parse(&found.token);
    }
    let keys = DebugKeys::new(b"0123456789abcdef").expect("long enough");
    let (host, path) = (text(&map, "host"), text(&map, "x-path"));
    for value in map.get_all("x-debug") {
        let request = Signed { method: "GET", host: &host, path: &path };
        assert_eq!(keys.accepts(value.as_bytes(), &request, 1_000_000), None, "a signature was guessed");
    }
    if let Some(timeout) = parse_grpc_timeout(&text(&map, "grpc-timeout")) {
        assert!(timeout.as_secs() <= 99_999_999 * 3600);
    }
    if let Some(id) = SpiffeId::parse(&text(&map, "x-spiffe")) {
        assert!(!id.trust_domain().is_empty());
    }
    let _ = Template::parse(&text(&map, "x-format"));
    let mut map = map;
    headers::join_cookies(&mut map);
    assert!(map.get_all("cookie").iter().count() <= 1);
    forwarded::append(&mut map, &forwarded::XFF, "10.0.0.1");
    assert!(map.get_all(forwarded::XFF).iter().count() >= 1);
    headers::strip_hop_by_hop(&mut map);
    for name in ["connection", "keep-alive", "proxy-connection"] {
        assert!(!map.contains_key(name), "{name} goes on");
    }
}

/// What goes on is what came in, and what is made of it is read as the same.
fn traces(map: &HeaderMap) {
    let from = Extracted::of(map);
    if let Some(state) = from.state(map) {
        assert!(state.len() <= 512);
    }
    let trace = from.parent.map_or(TraceId::from_random(7), |parent| parent.trace);
    let span = SpanContext { trace, span: SpanId::from_random(9), sampled: from.sampled.unwrap_or(true) };
    let mut out = map.clone();
    span.inject(&from, &mut out);
    let there = Extracted::of(&out);
    let parent = there.parent.expect("a context is there");
    assert_eq!((parent.trace, parent.span), (trace, span.span), "{map:?} became {out:?}");
    assert_eq!(there.sampled, Some(span.sampled), "{map:?} became {out:?}");
}

fn text(map: &HeaderMap, name: &str) -> String {
    map.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).unwrap_or_default()
}

fn parse(data: &[u8]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in data.split(|b| *b == b'\n').take(100) {
        let mut parts = line.splitn(2, |b| *b == b':');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (name, value) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value.trim_ascii()));
        if let (Ok(name), Ok(value)) = (name, value) {
            map.append(name, value);
        }
    }
    map
}

static PROVIDERS: LazyLock<Vec<JwtProvider>> = LazyLock::new(|| {
    let live = fixture::live(include_str!("../proxy.yaml"));
    let chain = &live.listener("rich").expect("the fixture has it").chains[0];
    let LiveTerminal::Http(manager) = &chain.terminal else { panic!("a chain of the fixture is for HTTP") };
    let providers = manager.config.filters.iter().filter_map(|filter| match &filter.kind {
        FilterKind::JwtAuthn(config) => Some(config.providers.iter().cloned()),
        _ => None,
    });
    providers.flatten().collect()
});
