use http::{HeaderMap, HeaderName};

use super::*;
use crate::ir::matcher::Regex;

/// What `policies` make of a request with `headers`, and the cookies they set.
fn hash_of(policies: &[HashPolicy], headers: &[(&str, &str)], path: &str) -> (Option<u64>, Vec<String>) {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    let view = View {
        headers: &map,
        method: "GET",
        authority: "a.example",
        path,
        scheme: "http",
        remote: IpAddr::from([10, 0, 0, 7]),
        connection: &|| "10.0.0.7:50010.0.0.1:80".to_owned(),
    };
    let mut cookies = Vec::new();
    let hash = view.hash(policies, &mut cookies);
    (hash, cookies.iter().map(|c| c.to_str().unwrap().to_owned()).collect())
}

fn header(name: &'static str) -> HashPolicy {
    let name = HashHeader::Regular(HeaderName::from_static(name));
    HashPolicy::Header { name, rewrite: None, terminal: false }
}

fn cookie(ttl: Option<u64>) -> HashPolicy {
    let attributes = "; Max-Age=5; Path=/; HttpOnly".into();
    HashPolicy::Cookie(HashCookie { name: "k".into(), ttl, attributes, terminal: false })
}

fn xx(text: &str) -> Option<u64> {
    Some(xxhash64(text.as_bytes(), 0))
}

#[test]
fn headers() {
    let one = |headers: &[(&str, &str)]| hash_of(&[header("x-h")], headers, "/").0;
    assert_eq!(one(&[]), None);
    assert_eq!(one(&[("x-h", "foo")]), Some(3_728_699_739_546_630_719));
    assert_eq!(one(&[("x-h", "")]), xx(""), "an empty header is there");
    let two = one(&[("x-h", "foo"), ("x-h", "bar")]);
    assert_eq!(two, Some(xxhash64(b"foo", xxhash64(b"bar", 0))), "sorted");
    assert_eq!(two, one(&[("x-h", "bar"), ("x-h", "foo")]));
    let rewrite = Rewrite { pattern: Regex::search("^user-(.).*").unwrap(), substitution: "${1}".into() };
    let name = HashHeader::Regular(HeaderName::from_static("x-h"));
    let rewriting = HashPolicy::Header { name, rewrite: Some(rewrite), terminal: false };
    assert_eq!(hash_of(&[rewriting], &[("x-h", "user-anna")], "/").0, xx("a"));
    for (name, expected) in [
        (HashHeader::Authority, "a.example"),
        (HashHeader::Method, "GET"),
        (HashHeader::Path, "/p?q"),
        (HashHeader::Scheme, "http"),
    ] {
        let policy = HashPolicy::Header { name, rewrite: None, terminal: false };
        assert_eq!(hash_of(&[policy], &[], "/p?q").0, xx(expected));
    }
}

#[test]
fn cookies_are_read_and_made() {
    let read = |line: &str| hash_of(&[cookie(None)], &[("cookie", line)], "/");
    assert_eq!(read("a=b; k=v").0, xx("v"));
    assert_eq!(read("k=\"v\"").0, xx("v"), "quotes are not part of it");
    assert_eq!(read("kk=v; xk=1; k").0, None);
    assert_eq!(read("k=; k=2").0, None, "the first counts, and without a ttl none is made");
    let split = hash_of(&[cookie(None)], &[("cookie", "a=1"), ("cookie", "k=2")], "/");
    assert_eq!(split.0, xx("2"), "crumbs");
    let (hash, made) = hash_of(&[cookie(Some(5))], &[], "/");
    let value = format!("{:016x}", xxhash64(b"10.0.0.7:50010.0.0.1:80", 0));
    assert_eq!(made, [format!("k=\"{value}\"; Max-Age=5; Path=/; HttpOnly")]);
    assert_eq!(hash, xx(&value), "the next request, which brings it, goes to the same host");
    assert_eq!(read(&format!("k=\"{value}\"")).0, hash);
    assert_eq!(hash_of(&[cookie(Some(5))], &[("cookie", "k=v")], "/").1, Vec::<String>::new());
}

#[test]
fn queries_and_addresses() {
    let query = |path| hash_of(&[HashPolicy::Query { name: "q".into(), terminal: false }], &[], path).0;
    assert_eq!(query("/?a=1&q=x%20y&q=2"), xx("x%20y"), "as sent, the first");
    assert_eq!(query("/?q"), xx(""));
    assert_eq!(query("/q=1"), None);
    assert_eq!(query("/?qq=1"), None);
    assert_eq!(hash_of(&[HashPolicy::SourceIp { terminal: false }], &[], "/").0, xx("10.0.0.7"));
}

#[test]
fn policies_combine_until_a_terminal_one_yields() {
    let terminal = |name: &'static str| {
        let name = HashHeader::Regular(HeaderName::from_static(name));
        HashPolicy::Header { name, rewrite: None, terminal: true }
    };
    let source = || HashPolicy::SourceIp { terminal: false };
    let both = hash_of(&[header("x-a"), source()], &[("x-a", "1")], "/").0;
    assert_eq!(both, combine(xx("1"), xx("10.0.0.7")));
    assert_ne!(both, hash_of(&[source(), header("x-a")], &[("x-a", "1")], "/").0, "the order matters");
    assert_eq!(hash_of(&[terminal("x-a"), source()], &[("x-a", "1")], "/").0, xx("1"));
    assert_eq!(hash_of(&[terminal("x-a"), source()], &[], "/").0, xx("10.0.0.7"), "it yielded nothing");
    // A terminal policy without a hash of its own still ends what others began.
    assert_eq!(hash_of(&[source(), terminal("x-a"), header("x-b")], &[("x-b", "2")], "/").0, xx("10.0.0.7"));
    assert_eq!(hash_of(&[], &[], "/"), (None, Vec::new()));
}
