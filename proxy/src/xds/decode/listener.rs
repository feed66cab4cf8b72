//! Listeners.

use std::{sync::Arc, time::Duration};

use outrigger_wire::pb::envoy::config::{
    core::v3::TrafficDirection,
    listener::v3::{AdditionalAddress, Listener as Pb},
};

use super::{
    access_log::access_logs,
    address,
    at::At,
    fields::fields,
    filter_chain,
    listener_filter::{inspectors, needs_tls_inspector},
    report::{NoteKind, Reject},
    scalar::{bool_or, enumeration, keepalive, u32_or, zero_is_off},
};
use crate::ir::listener::{Direction, Inspector, Listener};

/// Envoy's default for `per_connection_buffer_limit_bytes`.
pub(crate) const BUFFER_LIMIT: u32 = 1 << 20;
/// Envoy's default for `listener_filters_timeout`.
const INSPECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// The kernel cuts it to `net.core.somaxconn`, which is Envoy's default.
const BACKLOG: u32 = 65_535;

pub(crate) fn listener(message: &Pb, at: &At<'_>) -> Result<Listener, Reject> {
    fields!(at, message => Pb {
        read: [
            name, address, additional_addresses, stat_prefix, filter_chains, use_original_dst, default_filter_chain,
            per_connection_buffer_limit_bytes, deprecated_v1, listener_filters, listener_filters_timeout,
            continue_on_listener_filters_timeout, transparent, freebind, traffic_direction, access_log,
            tcp_backlog_size, bind_to_port, tcp_keepalive,
        ],
        harmless: [
            stats_matcher, metadata, tcp_fast_open_queue_length, connection_balance_config, reuse_port,
            enable_reuse_port, max_connections_to_accept_per_socket_event, per_connection_buffer_high_watermark_timeout,
        ],
        unsupported: [drain_type, socket_options, enable_mptcp, ignore_global_conn_limit, bypass_overload_manager],
        refuse: [fcds_config, filter_chain_matcher, udp_listener_config, api_listener, listener_specifier],
    });
    let mut addresses = address::listen(at.required("address", &message.address)?, &at.field("address"))?;
    for (i, m) in message.additional_addresses.iter().enumerate() {
        let at = at.index("additional_addresses", i);
        fields!(&at, m => AdditionalAddress { read: [address], unsupported: [socket_options, tcp_keepalive] });
        addresses.extend(address::listen(at.required("address", &m.address)?, &at.field("address"))?);
    }
    let chains = filter_chain::chains(&message.filter_chains, at)?;
    let default_chain = match &message.default_filter_chain {
        Some(m) => Some(Arc::new(filter_chain::default_chain(m, &at.field("default_filter_chain"))?)),
        None => None,
    };
    if chains.is_empty() && default_chain.is_none() {
        return Err(at.field("filter_chains").reject("no filter chains specified"));
    }
    let use_original_dst = bool_or(&message.use_original_dst, false);
    let mut inspectors = inspectors(&message.listener_filters, at)?;
    // Both as Envoy does: the hand-off needs the destination, the match needs the client hello.
    inspectors.original_dst |= use_original_dst;
    if inspectors.tls.is_none() && needs_tls_inspector(chains.iter().map(|c| &**c)) {
        inspectors.tls = Some(Inspector::default());
    }
    let bind_to_port = match message.deprecated_v1.as_ref().and_then(|d| d.bind_to_port.as_ref()) {
        Some(old) if message.bind_to_port.is_none() => {
            at.field("deprecated_v1").note(NoteKind::Deprecated, "use bind_to_port");
            old.value
        }
        _ => bool_or(&message.bind_to_port, true),
    };
    let inspection_timeout = at.duration("listener_filters_timeout", &message.listener_filters_timeout)?;
    let keepalive = match &message.tcp_keepalive {
        Some(m) => Some(keepalive(m, &at.field("tcp_keepalive"))?),
        None => None,
    };
    let first = addresses[0];
    let name = if message.name.is_empty() { first.to_string().into() } else { message.name.as_str().into() };
    let stat_prefix = match message.stat_prefix.as_str() {
        "" => first.to_string().replace(':', "_").into(),
        given => given.into(),
    };
    Ok(Listener {
        name,
        addresses,
        bind_to_port,
        use_original_dst,
        direction: match enumeration(message.traffic_direction, &at.field("traffic_direction"))? {
            TrafficDirection::Unspecified => Direction::Unspecified,
            TrafficDirection::Inbound => Direction::Inbound,
            TrafficDirection::Outbound => Direction::Outbound,
        },
        inspectors,
        inspection_timeout: zero_is_off(Some(inspection_timeout.unwrap_or(INSPECTION_TIMEOUT))),
        continue_on_inspection_timeout: message.continue_on_listener_filters_timeout,
        chains,
        default_chain,
        connection_limit: None,
        stat_prefix,
        buffer_limit: u32_or(&message.per_connection_buffer_limit_bytes, BUFFER_LIMIT),
        backlog: u32_or(&message.tcp_backlog_size, BACKLOG),
        transparent: bool_or(&message.transparent, false),
        freebind: bool_or(&message.freebind, false),
        keepalive,
        access_log: access_logs("access_log", &message.access_log, at)?,
    })
}
