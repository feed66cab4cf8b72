//! `transport_socket_matches`.

use outrigger_wire::pb::envoy::config::cluster::v3::cluster::TransportSocketMatch;

use super::{at::At, metadata, report::Reject, scalar::not_empty, tls};
use crate::ir::cluster::TransportMatch;

pub(crate) fn transport_match(message: &TransportSocketMatch, at: &At<'_>) -> Result<TransportMatch, Reject> {
    at.required("transport_socket", &message.transport_socket)?;
    Ok(TransportMatch {
        name: not_empty(&message.name, &at.field("name"))?.into(),
        // No criteria: matches every endpoint.
        criteria: message.r#match.as_ref().map(metadata::object).unwrap_or_default(),
        tls: tls::upstream(&message.transport_socket, &at.field("transport_socket"))?,
    })
}
