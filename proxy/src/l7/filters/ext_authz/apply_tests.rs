use std::collections::HashMap;

use outrigger_wire::pb::{
    envoy::{
        config::core::v3::{HeaderValue as PbHeader, HeaderValueOption},
        service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse, check_response::HttpResponse},
    },
    google::rpc::Status,
};

use super::*;
use crate::{
    ir::{http::FilterKind, listener::Terminal},
    l7::{
        filters::ext_authz::verdict::of_check,
        forwarded::Origin,
        incoming::Incoming,
        names::Names,
        sanitize::{Sane, Tunnel},
    },
    live::testing::{snapshot, statics},
};

#[test]
fn parameters_are_set_and_removed() {
    let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    let set = [pair("b", "2"), pair("new", "x%20y")];
    assert_eq!(query("/p?z=1&b=1&b=0&a#f", &set, &["z".to_owned()]), "/p?a=&b=2&new=x%20y");
    assert_eq!(query("/p?z=1", &[], &["z".to_owned()]), "/p");
}

#[test]
fn a_header_is_joined_only_where_there_is_one() {
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_static("new");
    join(&mut headers, HeaderName::from_static("x"), &value);
    assert!(headers.is_empty());
    headers.append("x", HeaderValue::from_static("a"));
    headers.append("x", HeaderValue::from_static("b"));
    join(&mut headers, HeaderName::from_static("x"), &value);
    assert_eq!(headers.get_all("x").iter().collect::<Vec<_>>(), ["a,b,new"]);
}

const FRAMING: [&str; 10] = [
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "upgrade",
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Keep-Alive",
    "Upgrade",
];

/// An authorization filter as an operator would write it.
fn config() -> ExtAuthz {
    let kind = "type.googleapis.com/envoy.extensions.filters";
    let listener = format!(
        "\n  - name: l\n    address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}\n    filter_chains:\n    \
         - filters: [{{name: hcm, typed_config: {{'@type': {kind}.network.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: h, route_config: {{}}, http_filters: [{{name: a, typed_config: {{'@type': \
         {kind}.http.ext_authz.v3.ExtAuthz, transport_api_version: V3, grpc_service: {{envoy_grpc: {{cluster_name: \
         c}}}}}}}}, {{name: r, typed_config: {{'@type': {kind}.http.router.v3.Router}}}}]}}}}]\n"
    );
    let snapshot = snapshot(1, &statics(&[listener], &["\n  - {name: c, connect_timeout: 5s}".to_owned()]));
    match &snapshot.listeners["l"].chains[0].terminal {
        Terminal::Http(hcm) => match &hcm.filters[0].kind {
            FilterKind::ExtAuthz(config) => (**config).clone(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn post() -> Inbound {
    let (mut parts, ()) = http::Request::post("/p").body(()).unwrap().into_parts();
    parts.headers.insert(header::HOST, HeaderValue::from_static("x"));
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("4"));
    let origin =
        Origin { remote: ([127, 0, 0, 1], 1).into(), internal: false, scheme: "http", certificate: Default::default() };
    let sane = Sane { origin, tunnel: Tunnel::None, grpc: false, names: Names::of(&parts.headers) };
    Inbound { parts, body: Incoming::None, sane, upgrade: None }
}

#[expect(deprecated, reason = "services still use it")]
fn option(key: &str, append: Option<bool>) -> HeaderValueOption {
    let header = PbHeader { key: key.to_owned(), value: "7".to_owned(), raw_value: Vec::new() };
    let append = append.map(|value| outrigger_wire::pb::google::protobuf::BoolValue { value });
    HeaderValueOption { header: Some(header), append, ..Default::default() }
}

fn answer_of(code: i32, response: HttpResponse) -> Verdict {
    let status = Some(Status { code, ..Status::default() });
    of_check(CheckResponse { status, http_response: Some(response), ..CheckResponse::default() })
}

/// Header fields that are not those of `post`, by name.
fn values(headers: &HeaderMap) -> HashMap<&str, Vec<&[u8]>> {
    let own = ["host", "content-length"];
    let names = headers.keys().map(|n| n.as_str()).filter(|n| !own.contains(n));
    names.map(|name| (name, headers.get_all(name).iter().map(HeaderValue::as_bytes).collect())).collect()
}

#[test]
fn how_a_message_is_framed_is_not_the_services_to_say() {
    let config = config();
    let framing = |append| FRAMING.map(|name| option(name, append)).into_iter().chain([option("X-Own", None)]);
    for append in [None, Some(true), Some(false)] {
        let ok = OkHttpResponse {
            headers: framing(append).collect(),
            response_headers_to_add: framing(append).collect(),
            ..OkHttpResponse::default()
        };
        let allowed = answer_of(0, HttpResponse::OkResponse(ok));
        let mut post = post();
        request(&config, &allowed, (100, 60 << 10), &mut post).unwrap();
        assert_eq!(post.parts.headers[header::CONTENT_LENGTH], "4", "{append:?}");
        assert_eq!(values(&post.parts.headers), HashMap::from([("x-own", vec![&b"7"[..]])]), "{append:?}");
        let mut response = HeaderMap::new();
        all(&response_changes(&allowed).unwrap(), &mut response);
        assert_eq!(values(&response), HashMap::from([("x-own", vec![&b"7"[..]])]), "{append:?}");
        assert!(!response.contains_key(header::CONTENT_LENGTH));

        let denied = DeniedHttpResponse { headers: framing(append).collect(), ..DeniedHttpResponse::default() };
        let denial = denial(&config, &answer_of(7, HttpResponse::DeniedResponse(denied))).unwrap();
        let names: Vec<&str> = denial.headers.iter().map(|h| h.name.as_str()).collect();
        assert_eq!(names, ["x-own"], "{append:?}");
    }
}
