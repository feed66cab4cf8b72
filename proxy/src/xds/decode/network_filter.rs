//! Network filters: the terminal one, those before it, and the refusal of all that is not known.

use std::sync::Arc;

use outrigger_wire::pb::envoy::{
    config::listener::v3::{Filter, filter::ConfigType},
    extensions::filters::network::{
        http_connection_manager::v3::HttpConnectionManager, local_ratelimit::v3::LocalRateLimit as PbLocalRateLimit,
        ratelimit::v3::RateLimit as PbRateLimit, rbac::v3::Rbac as PbRbac, tcp_proxy::v3::TcpProxy as PbTcp,
    },
};

use super::{
    at::At,
    extension::{self, Extension},
    global_rate_limit, hcm,
    hosts::Apart,
    istio_stats, local_rate_limit, rbac,
    report::Reject,
    tcp_proxy,
};
use crate::ir::{
    listener::{TcpProxy, Terminal},
    network::{NetworkFilter, NetworkFilterKind},
};

/// The filters of a chain, the terminal one apart.
pub(crate) fn filters(messages: &[Filter], at: &At<'_>) -> Result<(Vec<NetworkFilter>, Terminal), Reject> {
    let mut filters = Vec::new();
    let mut terminal = None;
    let mut counted = None;
    for (i, filter) in messages.iter().enumerate() {
        let at = at.index("filters", i);
        let any = match &filter.config_type {
            Some(ConfigType::TypedConfig(any)) => any,
            Some(ConfigType::ConfigDiscovery(_)) => {
                return Err(at.field("config_discovery").reject("is not supported by this release"));
            }
            None => return Err(at.field("typed_config").reject("is required")),
        };
        if terminal.is_some() {
            return Err(at.reject("follows a terminal filter, which must be the last one"));
        }
        let inner = at.field("typed_config");
        let extension = extension::open(any, &inner)?;
        if extension.is::<PbTcp>() {
            let proxy = tcp_proxy::tcp_proxy(&extension.message(&inner)?, &inner)?;
            terminal = Some(Terminal::Tcp(Arc::new(TcpProxy { istio_stats: counted, ..proxy })));
        } else if istio_stats::is_one(&extension) {
            counted = Some(istio_stats::istio_stats(&extension, &inner)?);
        } else if extension.is::<HttpConnectionManager>() {
            let encoded = extension.encoded::<HttpConnectionManager>(&inner)?;
            let manager = Apart::manager(&encoded).map_err(|e| extension.malformed(&e, &inner))?;
            terminal = Some(Terminal::Http(Arc::new(hcm::manager(&manager, &inner)?)));
        } else if let Some(kind) = one(&extension, &inner)? {
            filters.push(NetworkFilter { name: filter.name.as_str().into(), kind });
        }
    }
    match terminal {
        Some(terminal) => Ok((filters, terminal)),
        None => Err(at.field("filters").reject("a chain needs a terminal filter (tcp_proxy or HTTP) at its end")),
    }
}

/// A filter before the terminal one; `None` for one that may be ignored.
fn one(extension: &Extension<'_>, at: &At<'_>) -> Result<Option<NetworkFilterKind>, Reject> {
    if extension.is::<PbRbac>() {
        return Ok(Some(NetworkFilterKind::Rbac(Arc::new(rbac::network(&extension.message(at)?, at)?))));
    }
    if extension.is::<PbLocalRateLimit>() {
        let limit = local_rate_limit::connections(&extension.message(at)?, at)?;
        return Ok(Some(NetworkFilterKind::LocalRateLimit(Arc::new(limit))));
    }
    if extension.is::<PbRateLimit>() {
        let limit = global_rate_limit::connections(&extension.message(at)?, at)?;
        return Ok(Some(NetworkFilterKind::RateLimit(Arc::new(limit))));
    }
    extension.ignore("network filter", at).map(|()| None)
}
