use outrigger_wire::pb::{
    envoy::{
        config::{
            core::v3 as core,
            listener::v3 as pb,
            route::v3::{RouteConfiguration, VirtualHost},
        },
        extensions::transport_sockets::tls::v3 as tls,
    },
    google::protobuf::Any,
};
use prost::Message;

use super::secrecy::secret_in;
use crate::xds::{
    decode::{self, Notes},
    testing::{self, endpoints, listener, routes},
};

fn understood(any: &Any) -> decode::Resource {
    testing::decode(any, &mut Notes::default()).unwrap()
}

fn found(any: &Any) -> Option<&'static str> {
    secret_in(&understood(any), &any.value)
}

#[test]
fn keys_are_found_wherever_they_stand() {
    let key = b"xx-----BEGIN EC PRIVATE KEY-----yy";
    assert_eq!(secret_in(&understood(&endpoints("a", 1)), key), Some("a private key"));
    assert_eq!(found(&listener("l", "rds=r")), None);
    let keys =
        tls::downstream_tls_context::SessionTicketKeysType::SessionTicketKeys(tls::TlsSessionTicketKeys::default());
    let context = tls::DownstreamTlsContext { session_ticket_keys_type: Some(keys), ..Default::default() };
    let any = Any {
        type_url: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext".into(),
        value: context.encode_to_vec(),
    };
    let socket = core::TransportSocket {
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(any)),
        ..Default::default()
    };
    let chain = pb::FilterChain { transport_socket: Some(socket), ..Default::default() };
    let message = pb::Listener { default_filter_chain: Some(chain), ..Default::default() };
    let known = understood(&listener("l", ""));
    assert_eq!(secret_in(&known, &message.encode_to_vec()), Some("session ticket keys"));
}

/// A listener with a JWT filter that has this key set inline.
fn with_keys(set: &str) -> Any {
    const NETWORK: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3";
    const HTTP: &str = "type.googleapis.com/envoy.extensions.filters.http";
    let set = serde_json::to_string(set).unwrap();
    let text = format!(
        r#"{{"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "l",
            "address": {{"socket_address": {{"address": "127.0.0.1", "port_value": 1}}}},
            "filter_chains": [{{"filters": [{{"name": "hcm", "typed_config": {{
              "@type": "{NETWORK}.HttpConnectionManager", "stat_prefix": "h",
              "route_config": {{"virtual_hosts": []}},
              "http_filters": [
                {{"name": "jwt", "typed_config": {{"@type": "{HTTP}.jwt_authn.v3.JwtAuthentication",
                  "providers": {{"p": {{"issuer": "i", "local_jwks": {{"inline_string": {set}}}}}}}}}}},
                {{"name": "r", "typed_config": {{"@type": "{HTTP}.router.v3.Router"}}}}]}}}}]}}]}}"#
    );
    let bytes = outrigger_wire::json::bytes_from_value("google.protobuf.Any", serde_json::from_str(&text).unwrap());
    Any::decode(bytes.unwrap().as_slice()).unwrap()
}

#[test]
fn symmetric_and_private_keys_of_a_jwks_are_secrets() {
    for (set, secret) in [
        (r#"{"keys":[{"kty":"RSA","n":"AA","e":"AQAB"}]}"#, false),
        (r#"{"keys":[{"kty":"RSA","n":"AA","e":"AQAB"},{"kty":"oct","k":"AyM1"}]}"#, true),
        // JSON has more than one spelling.
        (r#"{"keys":[{"\u006bty":"o\u0063t","\u006b":"AyM1"}]}"#, true),
        (r#"{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA","d":"AA"}]}"#, true),
    ] {
        let any = with_keys(set);
        let known = decode::resource(&any, &mut Notes::default()).unwrap();
        assert_eq!(secret_in(&known, &any.value), secret.then_some("a secret key of a JWKS"), "{set}");
    }
}

#[test]
fn credentials_in_added_headers_are_secrets() {
    let header = |key: &str, value: &str| core::HeaderValue { key: key.into(), value: value.into(), raw_value: vec![] };
    let with = |header: core::HeaderValue| {
        let option = core::HeaderValueOption { header: Some(header), ..Default::default() };
        let host = VirtualHost { name: "v".into(), request_headers_to_add: vec![option], ..Default::default() };
        let message = RouteConfiguration { name: "r".into(), virtual_hosts: vec![host], ..Default::default() };
        secret_in(&understood(&routes("r", "a")), &message.encode_to_vec())
    };
    let secret = Some("a credential in a header that is added");
    for (key, value, expected) in [
        ("Authorization", "Bearer abc", secret),
        ("authorization", "Basic %REQ(x)%abc", secret),
        ("x-api-key", "abc", secret),
        ("authorization", "Bearer %REQ(x-token)%", None),
        ("authorization", "", None),
        ("x-version", "Bearer abc", None),
    ] {
        assert_eq!(with(header(key, value)), expected, "{key}: {value}");
    }
    let raw = core::HeaderValue { key: "cookie".into(), value: String::new(), raw_value: b"a=b".to_vec() };
    assert_eq!(with(raw), secret);
    // Metadata for a service, deep in a filter of a listener.
    let service = core::GrpcService { initial_metadata: vec![header("authorization", "abc")], ..Default::default() };
    assert_eq!(secret_in(&understood(&endpoints("a", 1)), &service.encode_to_vec()), secret);
}
