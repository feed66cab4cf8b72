//! Whether a resource holds a secret, which then must not reach the disk.

use outrigger_wire::pb::envoy::{
    config::{core::v3::transport_socket::ConfigType, listener::v3::Listener},
    extensions::transport_sockets::tls::v3::{DownstreamTlsContext, downstream_tls_context::SessionTicketKeysType},
};
use prost::Message;

use super::super::kind::Kind;

/// In every private key that is accepted, wherever it stands.
const KEY: &[u8] = b"PRIVATE KEY-----";

/// What secret the resource holds, for people.
pub(super) fn secret_in(kind: Kind, raw: &[u8]) -> Option<&'static str> {
    if raw.windows(KEY.len()).any(|window| window == KEY) {
        return Some("a private key");
    }
    (kind == Kind::Listener && ticket_keys(raw)).then_some("session ticket keys")
}

fn ticket_keys(raw: &[u8]) -> bool {
    let Ok(listener) = Listener::decode(raw) else { return true };
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    chains.filter_map(|chain| chain.transport_socket.as_ref()?.config_type.as_ref()).any(|config| {
        let ConfigType::TypedConfig(any) = config;
        any.type_url.ends_with(".DownstreamTlsContext")
            && DownstreamTlsContext::decode(any.value.as_slice()).is_ok_and(|context| {
                matches!(context.session_ticket_keys_type, Some(SessionTicketKeysType::SessionTicketKeys(_)))
            })
    })
}
