use super::*;

#[test]
fn grpc_replies_carry_status_and_message_in_headers() {
    // The line end that a JSON format leaves is not the message's.
    let response = grpc_response(14, "no healthy upstream:\n50% \u{e9}\n");
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert_eq!(response.headers()["grpc-status"], "14");
    assert_eq!(response.headers()["grpc-message"], "no healthy upstream:%0A50%25 %C3%A9");
    assert!(matches!(response.body(), Body::Empty));
}

#[test]
fn statuses_map_as_grpc_says() {
    for (http, grpc) in
        [(400, 13), (401, 16), (403, 7), (404, 12), (429, 14), (500, 2), (502, 14), (503, 14), (504, 14)]
    {
        assert_eq!(grpc_status(StatusCode::from_u16(http).unwrap()), grpc, "{http}");
    }
}

#[test]
fn grpc_is_told_by_its_content_type() {
    for (value, expected) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc-web", false),
        ("application/json", false),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
        assert_eq!(is_grpc(&headers), expected, "{value}");
    }
    assert!(!is_grpc(&HeaderMap::new()));
}
