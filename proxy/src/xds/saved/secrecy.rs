//! Whether a resource holds a secret, which then must not reach the disk.
//!
//! Decided on what was understood of it, and on the bytes besides: what nothing here reads may be a secret too. Errs on
//! the side of secrets.

use outrigger_wire::pb::envoy::{
    config::{core::v3::transport_socket::ConfigType, listener::v3::Listener as PbListener},
    extensions::transport_sockets::tls::v3::{DownstreamTlsContext, downstream_tls_context::SessionTicketKeysType},
};
use prost::Message;
use serde_json::Value;

use super::super::decode::Resource;
use crate::ir::{
    cluster::Cluster,
    http::FilterKind,
    jwt_authn::JwksSource,
    listener::{Listener, Terminal},
    secret::{CertificateSource, CommonTls, DataSource},
};

/// In every private key that is accepted, wherever it stands.
const KEY: &[u8] = b"PRIVATE KEY-----";

/// Headers whose value is a credential.
const CREDENTIALS: [&str; 9] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
    "api-key",
    "apikey",
    "x-auth-token",
    "x-amz-security-token",
    "x-goog-api-key",
];

/// What secret the resource holds, for people.
pub(super) fn secret_in(resource: &Resource, raw: &[u8]) -> Option<&'static str> {
    if raw.windows(KEY.len()).any(|window| window == KEY) {
        return Some("a private key");
    }
    let known = match resource {
        Resource::Listener(listener) => listener_secret(listener, raw),
        Resource::Cluster(cluster) => cluster_secret(cluster),
        Resource::Secret { .. } => Some("a secret"),
        Resource::Endpoints { .. } | Resource::Routes { .. } => None,
    };
    known.or_else(|| added_credential(raw).then_some("a credential in a header that is added"))
}

fn listener_secret(listener: &Listener, raw: &[u8]) -> Option<&'static str> {
    if ticket_keys(raw) {
        return Some("session ticket keys");
    }
    listener.chains.iter().chain(&listener.default_chain).find_map(|chain| {
        if chain.tls.as_ref().is_some_and(|tls| inline_key(&tls.common)) {
            return Some("a private key");
        }
        let Terminal::Http(http) = &chain.terminal else { return None };
        http.filters.iter().find_map(|filter| match &filter.kind {
            FilterKind::JwtAuthn(jwt) => jwt.providers.iter().find_map(|provider| match &provider.keys {
                JwksSource::Local(set) if secret_key(set) => Some("a secret key of a JWKS"),
                JwksSource::Local(_) | JwksSource::Remote(_) => None,
            }),
            _ => None,
        })
    })
}

fn cluster_secret(cluster: &Cluster) -> Option<&'static str> {
    let others = cluster.transport_matches.iter().filter_map(|m| m.tls.as_ref());
    cluster.tls.iter().chain(others).any(|tls| inline_key(&tls.common)).then_some("a private key")
}

fn inline_key(tls: &CommonTls) -> bool {
    tls.certificates.iter().any(|certificate| match certificate {
        CertificateSource::Static(certificate) => matches!(certificate.key, DataSource::Inline(_)),
        CertificateSource::Sds(_) => false,
    })
}

/// Whether a key set has a symmetric key, or the private half of another one.
fn secret_key(set: &[u8]) -> bool {
    let Ok(set) = serde_json::from_slice::<Value>(set) else { return true };
    let keys = set.get("keys").and_then(Value::as_array);
    keys.is_none_or(|keys| keys.iter().any(|key| key.get("k").is_some() || key.get("d").is_some()))
}

fn ticket_keys(raw: &[u8]) -> bool {
    let Ok(listener) = PbListener::decode(raw) else { return true };
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    chains.filter_map(|chain| chain.transport_socket.as_ref()?.config_type.as_ref()).any(|config| {
        let ConfigType::TypedConfig(any) = config;
        any.type_url.ends_with(".DownstreamTlsContext")
            && DownstreamTlsContext::decode(any.value.as_slice()).is_ok_and(|context| {
                matches!(context.session_ticket_keys_type, Some(SessionTicketKeysType::SessionTicketKeys(_)))
            })
    })
}

/// Whether some `HeaderValue` (key is field 1, value 2, raw value 3), however deep it stands, gives a credential.
fn added_credential(raw: &[u8]) -> bool {
    let given = |rest: &[u8]| {
        let (size, rest) = rest.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*size))?;
        let (next, value) = rest.split_first()?;
        let named = CREDENTIALS.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
        Some(named && matches!(next, 0x12 | 0x1a) && is_literal(value))
    };
    let mut keys = raw.iter().enumerate().filter(|(_, byte)| **byte == 0x0a);
    keys.any(|(at, _)| given(&raw[at + 1..]) == Some(true))
}

/// Whether the length-delimited text has more in it than a scheme and what is filled in per request.
fn is_literal(field: &[u8]) -> bool {
    let mut rest = field;
    let Ok(length) = prost::encoding::decode_varint(&mut rest) else { return true };
    let Some(text) = usize::try_from(length).ok().and_then(|length| rest.get(..length)) else { return true };
    let Ok(text) = std::str::from_utf8(text) else { return true };
    // Every other part stands between percent signs; a doubled one is an empty part.
    let literal = text.split('%').step_by(2).collect::<String>();
    let literal = literal.trim();
    !(literal.is_empty() || ["bearer", "basic"].iter().any(|scheme| literal.eq_ignore_ascii_case(scheme)))
}
