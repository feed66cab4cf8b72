//! Short constructors for the values that xDS messages are made of. Knows nothing of the mesh.

use std::net::IpAddr;

pub(super) use outrigger_wire::{
    pack_any as any,
    pb::{
        envoy::{
            config::{
                cluster::v3 as cluster, core::v3 as core, endpoint::v3 as endpoint, listener::v3 as listener,
                route::v3 as route,
            },
            extensions::{
                filters::{listener as listener_filters, network::http_connection_manager::v3 as hcm},
                transport_sockets::tls::v3 as tls,
                upstreams::http::v3 as upstream_http,
            },
            r#type::{matcher::v3 as matcher, v3 as types},
        },
        google::protobuf::{Any, BoolValue, Duration, ListValue, Struct, UInt32Value, UInt64Value, Value, value::Kind},
    },
};

use prost::encoding::{WireType, encode_key, encode_varint};

use self::matcher::string_matcher::MatchPattern;

pub(super) fn duration(value: std::time::Duration) -> Option<Duration> {
    Some(Duration { seconds: value.as_secs() as i64, nanos: value.subsec_nanos() as i32 })
}

pub(super) fn zero() -> Option<Duration> {
    duration(std::time::Duration::ZERO)
}

pub(super) fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

pub(super) fn yes() -> Option<BoolValue> {
    Some(BoolValue { value: true })
}

pub(super) fn no() -> Option<BoolValue> {
    Some(BoolValue { value: false })
}

pub(super) fn strings<S: AsRef<str>>(values: impl IntoIterator<Item = S>) -> Vec<String> {
    values.into_iter().map(|value| value.as_ref().to_owned()).collect()
}

pub(super) fn socket_address(host: impl ToString, port: u16) -> core::SocketAddress {
    core::SocketAddress {
        address: host.to_string(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port.into())),
        ..Default::default()
    }
}

pub(super) fn address(host: impl ToString, port: u16) -> Option<core::Address> {
    let socket = socket_address(host, port);
    Some(core::Address { address: Some(core::address::Address::SocketAddress(socket)) })
}

pub(super) fn cidr(prefix: crate::model::Cidr) -> core::CidrRange {
    core::CidrRange { address_prefix: prefix.address.to_string(), prefix_len: number(prefix.length.into()) }
}

/// How an address is written in a URL or `Host` header.
pub(super) fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// Resources over the ADS stream, waited for without limit of Envoy's.
pub(super) fn ads() -> Option<core::ConfigSource> {
    Some(core::ConfigSource {
        initial_fetch_timeout: zero(),
        resource_api_version: core::ApiVersion::V3 as i32,
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(Default::default())),
        ..Default::default()
    })
}

pub(super) fn transport_socket(name: &str, config: Any) -> core::TransportSocket {
    let config = core::transport_socket::ConfigType::TypedConfig(config);
    core::TransportSocket { name: name.to_owned(), config_type: Some(config) }
}

pub(super) fn exact(text: &str) -> matcher::StringMatcher {
    string(MatchPattern::Exact(text.to_owned()))
}

pub(super) fn prefix(text: &str) -> matcher::StringMatcher {
    string(MatchPattern::Prefix(text.to_owned()))
}

pub(super) fn regex(text: &str) -> matcher::RegexMatcher {
    matcher::RegexMatcher { regex: text.to_owned(), ..Default::default() }
}

pub(super) fn string(pattern: MatchPattern) -> matcher::StringMatcher {
    matcher::StringMatcher { match_pattern: Some(pattern), ..Default::default() }
}

/// A map that is encoded in the order of its keys. Maps are encoded as they iterate, which is random, and a resource's
/// version is a hash of its bytes: one of few entries is made anew until it iterates in order.
pub(super) fn ordered<V: Clone>(
    entries: std::collections::BTreeMap<String, V>,
) -> std::collections::HashMap<String, V> {
    loop {
        let map: std::collections::HashMap<String, V> = entries.clone().into_iter().collect();
        if map.keys().is_sorted() {
            return map;
        }
    }
}

/// Metadata of one field that is true.
pub(super) fn flag(namespace: &str, field: &str) -> core::Metadata {
    let fields = [(field.to_owned(), Value { kind: Some(Kind::BoolValue(true)) })].into_iter().collect();
    core::Metadata { filter_metadata: [(namespace.to_owned(), Struct { fields })].into(), ..Default::default() }
}

/// A `Struct` of one text field. One only: a map of several would be encoded in random order.
pub(super) fn single(field: &str, text: &str) -> Struct {
    let value = Value { kind: Some(Kind::StringValue(text.to_owned())) };
    Struct { fields: [(field.to_owned(), value)].into_iter().collect() }
}

/// A message that is written field by field, where the generated type would write its maps in random order.
#[derive(Clone, Debug, Default)]
pub(super) struct Message(pub Vec<u8>);

impl Message {
    pub(super) fn number(&mut self, field: u32, value: u64) {
        if value > 0 {
            encode_key(field, WireType::Varint, &mut self.0);
            encode_varint(value, &mut self.0);
        }
    }

    pub(super) fn text(&mut self, field: u32, text: &str) {
        if !text.is_empty() {
            self.bytes(field, text.as_bytes());
        }
    }

    /// Bytes or an encoded message, even if empty.
    pub(super) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        encode_key(field, WireType::LengthDelimited, &mut self.0);
        encode_varint(bytes.len() as u64, &mut self.0);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn optional(&mut self, field: u32, message: Option<Vec<u8>>) {
        if let Some(message) = message {
            self.bytes(field, &message);
        }
    }

    /// The whole, of the type with that full name.
    pub(super) fn any(self, name: &str) -> Any {
        Any { type_url: format!("type.googleapis.com/{name}"), value: self.0 }
    }
}
