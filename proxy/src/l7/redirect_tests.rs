use super::*;

fn target(location: &str) -> Result<(&'static str, String, String), Refused> {
    let mut headers = HeaderMap::new();
    headers.insert(header::LOCATION, HeaderValue::from_str(location).unwrap());
    Target::of(&headers).map(|t| (t.scheme, t.authority, t.path.to_string()))
}

#[test]
fn only_whole_urls_are_followed() {
    assert_eq!(target("http://a:81/b?c#d"), Ok(("http", "a:81".into(), "/b?c".into())));
    assert_eq!(target("https://a"), Ok(("https", "a".into(), "/".into())));
    for bad in ["/b", "a/b", "//a/b", "ftp://a/b", "http://user@a/b", "http:///b", "http://a b/", ""] {
        assert_eq!(target(bad), Err(Refused::Location), "{bad}");
    }
    assert_eq!(Target::of(&HeaderMap::new()).err(), Some(Refused::Location));
}
