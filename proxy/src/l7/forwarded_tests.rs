use std::sync::Arc;

use super::*;
use crate::{
    ir::{http::ClientCertDetails, matcher::Cidr},
    l7::server::tests_support::{conn_info, hcm},
};

fn conn(remote: &str) -> ConnInfo {
    conn_info(1, remote.parse().unwrap(), SocketAddr::from(([10, 0, 0, 9], 8080)))
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).unwrap())).collect()
}

fn sanitised(config: &ConnectionManager, conn: &ConnInfo, headers: &mut HeaderMap) -> Origin {
    let names = Names::of(headers);
    apply(config, conn, headers, names)
}

fn joined(headers: &HeaderMap, name: &str) -> String {
    headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect()
}

#[test]
fn forwarding_headers_tell_the_truth() {
    let ten = Cidr::new([10, 0, 0, 0].into(), 8).unwrap();
    // edge, hops, peer, x-forwarded-for in; out, remote, internal
    for (edge, hops, peer, given, expected, remote, internal) in [
        (true, 0, "10.1.1.1:9", "", "10.1.1.1", "10.1.1.1", true),
        (true, 0, "8.8.8.8:9", "", "8.8.8.8", "8.8.8.8", false),
        (true, 0, "8.8.8.8:9", "10.9.9.9", "10.9.9.9,8.8.8.8", "8.8.8.8", false),
        (true, 1, "8.8.8.8:9", "1.1.1.1, 2.2.2.2", "1.1.1.1, 2.2.2.2,8.8.8.8", "2.2.2.2", false),
        (true, 2, "8.8.8.8:9", "1.1.1.1, 2.2.2.2", "1.1.1.1, 2.2.2.2,8.8.8.8", "1.1.1.1", false),
        (false, 0, "8.8.8.8:9", "10.3.3.3", "10.3.3.3", "10.3.3.3", true),
        (false, 0, "8.8.8.8:9", "10.3.3.3, 4.4.4.4", "10.3.3.3, 4.4.4.4", "4.4.4.4", false),
        (false, 1, "8.8.8.8:9", "10.3.3.3, 4.4.4.4", "10.3.3.3, 4.4.4.4", "10.3.3.3", false),
        (false, 0, "8.8.8.8:9", "", "", "8.8.8.8", false),
        // However an address is written, it is the same client.
        (true, 1, "8.8.8.8:9", "::ffff:2.2.2.2", "::ffff:2.2.2.2,8.8.8.8", "2.2.2.2", false),
        (false, 0, "8.8.8.8:9", "::ffff:10.3.3.3", "::ffff:10.3.3.3", "10.3.3.3", true),
        (false, 1, "8.8.8.8:9", "::FFFF:0a03:0303, 4.4.4.4", "::FFFF:0a03:0303, 4.4.4.4", "10.3.3.3", false),
    ] {
        let mut config = hcm();
        (config.use_remote_address, config.xff_trusted_hops) = (edge, hops);
        config.internal_networks = vec![ten];
        let mut given_headers = vec![
            ("x-envoy-retry-on", "5xx"),
            ("x-envoy-internal", "true"),
            ("x-envoy-decorator-operation", "o"),
            ("x-forwarded-proto", "https"),
        ];
        if !given.is_empty() {
            given_headers.push(("x-forwarded-for", given));
        }
        let mut request = headers(&given_headers);
        let origin = sanitised(&config, &conn(peer), &mut request);
        let case = format!("edge={edge} hops={hops} peer={peer} xff={given:?}");
        assert_eq!(joined(&request, "x-forwarded-for"), expected, "{case}");
        assert_eq!((origin.remote.ip().to_string(), origin.internal), (remote.into(), internal), "{case}");
        assert_eq!(request.contains_key("x-envoy-retry-on"), internal, "{case}");
        assert_eq!(request.contains_key("x-envoy-internal"), internal, "{case}");
        assert_eq!(request.contains_key("x-envoy-decorator-operation"), internal || !edge, "{case}");
        let external = joined(&request, "x-envoy-external-address");
        assert_eq!(external, if edge && !internal { remote } else { "" }, "{case}");
        // Without trusted hops an edge does not believe the client's scheme.
        let scheme = if edge && hops == 0 { "http" } else { "https" };
        assert_eq!((origin.scheme, joined(&request, "x-forwarded-proto")), (scheme, scheme.into()), "{case}");
    }
}

#[test]
fn client_certificates_are_forwarded_in_five_ways() {
    let peer = PeerInfo {
        certificate: Some(Arc::from(&b"der"[..])),
        verified: true,
        uri_sans: vec!["spiffe://td/ns/a/sa/b".into()],
        dns_sans: vec!["b.a.svc".into(), "b".into()],
        subject: "CN=\"b\",O=x".into(),
        local_uri_sans: vec!["spiffe://td/ns/a/sa/me".into()],
        ..PeerInfo::default()
    };
    let own_tail = ";Subject=\"CN=\\\"b\\\",O=x\";URI=spiffe://td/ns/a/sa/b;DNS=b.a.svc;DNS=b";
    for (mode, tls, expect_given, expect_own) in [
        (ForwardClientCert::Sanitize, true, false, false),
        (ForwardClientCert::ForwardOnly, true, true, false),
        (ForwardClientCert::AppendForward, true, true, true),
        (ForwardClientCert::SanitizeSet, true, false, true),
        (ForwardClientCert::AlwaysForwardOnly, true, true, false),
        (ForwardClientCert::ForwardOnly, false, false, false),
        (ForwardClientCert::AppendForward, false, false, false),
        (ForwardClientCert::AlwaysForwardOnly, false, true, false),
    ] {
        let mut config = hcm();
        config.client_cert = mode;
        config.client_cert_details =
            ClientCertDetails { subject: true, dns: true, uri: true, ..ClientCertDetails::default() };
        let mut info = conn("1.2.3.4:5");
        info.tls = tls.then(|| Arc::new(peer.clone()));
        let mut request = headers(&[("x-forwarded-client-cert", "By=given")]);
        sanitised(&config, &info, &mut request);
        let value = joined(&request, "x-forwarded-client-cert");
        assert_eq!(value.starts_with("By=given"), expect_given, "{mode:?} {value}");
        assert_eq!(value.ends_with(own_tail), expect_own, "{mode:?} {value}");
        if mode == ForwardClientCert::SanitizeSet {
            let hash = value.split(';').nth(1).unwrap().strip_prefix("Hash=").unwrap();
            assert!(hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{hash}");
            assert!(value.starts_with("By=spiffe://td/ns/a/sa/me;Hash="), "{value}");
        }
        if mode == ForwardClientCert::AppendForward && tls {
            assert!(value.starts_with("By=given,By=spiffe://td/ns/a/sa/me;Hash="), "{value}");
        }
    }
}

#[test]
fn no_address_is_internal_by_itself() {
    let mut config = hcm();
    config.use_remote_address = true;
    let mut request = headers(&[("x-envoy-retry-on", "5xx")]);
    assert!(!sanitised(&config, &conn("10.1.1.1:1"), &mut request).internal);
    assert!(!request.contains_key("x-envoy-retry-on"));
}

#[test]
fn lists_grow_by_one_line() {
    let mut config = hcm();
    config.use_remote_address = true;
    config.via = "me".into();
    config.append_forwarded_port = true;
    let mut request = headers(&[("via", "1.1 you"), ("x-forwarded-for", "1.1.1.1")]);
    request.append("x-forwarded-for", HeaderValue::from_static("2.2.2.2"));
    sanitised(&config, &conn("[::ffff:3.3.3.3]:1"), &mut request);
    assert_eq!(request["via"], "1.1 you, me");
    assert_eq!(joined(&request, "x-forwarded-for"), "1.1.1.1,2.2.2.2,3.3.3.3");
    assert_eq!(request["x-forwarded-port"], "8080");
}
