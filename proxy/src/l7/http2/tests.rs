use http::{HeaderMap, HeaderValue, header};

use super::{content_length, strip_connection_headers};

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    lines.iter().map(|(n, v)| (n.parse::<http::HeaderName>().unwrap(), HeaderValue::from_static(v))).collect()
}

#[test]
fn connection_headers_stay_on_their_connection() {
    let lines = [
        ("connection", "x-hop, Keep-Alive"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("proxy-connection", "close"),
        ("te", "trailers"),
        ("x-stays", "1"),
    ];
    let mut request = headers(&lines);
    strip_connection_headers(&mut request, true);
    assert_eq!(request, headers(&[("te", "trailers"), ("x-stays", "1")]));
    let mut response = headers(&lines);
    strip_connection_headers(&mut response, false);
    assert_eq!(response, headers(&[("x-stays", "1")]));
    let mut te = headers(&[("te", "gzip")]);
    strip_connection_headers(&mut te, true);
    assert!(te.is_empty());
}

#[test]
fn lengths_must_agree() {
    assert_eq!(content_length(&headers(&[("content-length", "12")])), Some(12));
    assert_eq!(content_length(&HeaderMap::new()), None);
    assert_eq!(content_length(&headers(&[("content-length", "-1")])), None);
    let mut twice = headers(&[("content-length", "12")]);
    twice.append(header::CONTENT_LENGTH, HeaderValue::from_static("12"));
    assert_eq!(content_length(&twice), Some(12));
    twice.append(header::CONTENT_LENGTH, HeaderValue::from_static("13"));
    assert_eq!(content_length(&twice), None);
}
