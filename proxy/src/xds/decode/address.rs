//! Addresses and address ranges.

use std::net::{IpAddr, SocketAddr};

use outrigger_wire::pb::envoy::config::core::v3::{
    Address as PbAddress, BindConfig, CidrRange, ExtraSourceAddress, SocketAddress, address,
    socket_address::{PortSpecifier, Protocol},
};

use super::{
    at::At,
    fields::fields,
    report::Reject,
    scalar::{bool_or, enumeration, not_empty, port, u32_or},
};
use crate::ir::{cluster::Bind, endpoint::Address, matcher::Cidr};

/// Longest path of a Unix socket (`sun_path` with its terminator).
const MAX_PIPE: usize = 107;

/// An address to connect to. `names`: whether a host name is allowed (DNS clusters). `None` is an internal listener.
pub(crate) fn upstream(message: &PbAddress, names: bool, at: &At<'_>) -> Result<Option<Address>, Reject> {
    match at.required("address", &message.address)? {
        address::Address::SocketAddress(socket) => {
            let at = at.field("socket_address");
            let port = socket_port(socket, &at)?;
            match socket.address.parse::<IpAddr>() {
                Ok(ip) => Ok(Some(Address::Ip(SocketAddr::new(ip, port)))),
                Err(_) if names => Ok(Some(Address::Host { host: host_name(&socket.address, &at)?.into(), port })),
                Err(_) => Err(at.field("address").reject(format!("malformed IP address: {:?}", socket.address))),
            }
        }
        address::Address::Pipe(pipe) => {
            let at = at.field("pipe");
            let path = not_empty(&pipe.path, &at.field("path"))?;
            if path.len() > MAX_PIPE || path.contains('\0') {
                return Err(at.field("path").reject("is too long or contains NUL"));
            }
            if pipe.mode != 0 {
                at.field("mode").harmless("applies to sockets that are created, not connected to");
            }
            Ok(Some(Address::Pipe(path.into())))
        }
        address::Address::EnvoyInternalAddress(_) => Ok(None),
    }
}

/// An address to listen on or to bind: IP and port, TCP.
pub(crate) fn local(message: &SocketAddress, at: &At<'_>) -> Result<SocketAddr, Reject> {
    let port = socket_port(message, at)?;
    let ip = message.address.parse::<IpAddr>();
    let ip = ip.map_err(|_| at.field("address").reject(format!("malformed IP address: {:?}", message.address)))?;
    Ok(SocketAddr::new(ip, port))
}

/// The addresses of a listener: two for `::` with `ipv4_compat`, as the sockets here are single-family.
pub(crate) fn listen(message: &PbAddress, at: &At<'_>) -> Result<Vec<SocketAddr>, Reject> {
    match at.required("address", &message.address)? {
        address::Address::SocketAddress(socket) => {
            let at = at.field("socket_address");
            let main = local(socket, &at)?;
            let mut all = vec![main];
            if socket.ipv4_compat {
                if !main.ip().is_unspecified() || main.is_ipv4() {
                    return Err(at.field("ipv4_compat").reject("is for the address `::` only"));
                }
                all.push(SocketAddr::new(IpAddr::from([0, 0, 0, 0]), main.port()));
            }
            Ok(all)
        }
        address::Address::Pipe(_) => {
            Err(at.field("pipe").reject("listeners on Unix sockets are not supported by this release"))
        }
        address::Address::EnvoyInternalAddress(_) => {
            Err(at.field("envoy_internal_address").reject("internal listeners are not supported by this release"))
        }
    }
}

fn socket_port(message: &SocketAddress, at: &At<'_>) -> Result<u16, Reject> {
    fields!(at, message => SocketAddress {
        read: [protocol, address, ipv4_compat, port_specifier],
        refuse: [resolver_name, network_namespace_filepath],
    });
    not_empty(&message.address, &at.field("address"))?;
    match enumeration(message.protocol, &at.field("protocol"))? {
        Protocol::Tcp => {}
        Protocol::Udp => return Err(at.field("protocol").reject("UDP is not supported by this release")),
    }
    match &message.port_specifier {
        Some(PortSpecifier::PortValue(value)) => port(*value, &at.field("port_value")),
        Some(PortSpecifier::NamedPort(_)) => Err(at.field("named_port").reject("is not supported, as in Envoy")),
        None => Err(at.field("port_value").reject("is required")),
    }
}

/// A DNS name: its grammar is the resolver's business, only what cannot be one is refused.
fn host_name<'m>(name: &'m str, at: &At<'_>) -> Result<&'m str, Reject> {
    let plausible = name.len() <= 255 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if plausible { Ok(name) } else { Err(at.field("address").reject(format!("{name:?} is not a host name"))) }
}

pub(crate) fn cidr(message: &CidrRange, at: &At<'_>) -> Result<Cidr, Reject> {
    let ip = message.address_prefix.parse::<IpAddr>();
    let ip = ip.map_err(|_| {
        at.field("address_prefix").reject(format!("malformed IP address: {:?}", message.address_prefix))
    })?;
    let length = u8::try_from(u32_or(&message.prefix_len, 0)).ok();
    length.and_then(|l| Cidr::new(ip, l)).ok_or_else(|| at.field("prefix_len").reject("is longer than the address"))
}

/// `upstream_bind_config`.
pub(crate) fn bind(message: &BindConfig, at: &At<'_>) -> Result<Option<Bind>, Reject> {
    fields!(at, message => BindConfig {
        read: [source_address, freebind, extra_source_addresses, additional_source_addresses],
        unsupported: [socket_options],
        refuse: [local_address_selector, validate_network_namespaces],
    });
    let mut extra = at.each("extra_source_addresses", &message.extra_source_addresses, |m, at| {
        fields!(at, m => ExtraSourceAddress { read: [address], unsupported: [socket_options] });
        local(at.required("address", &m.address)?, &at.field("address"))
    })?;
    extra.extend(at.each("additional_source_addresses", &message.additional_source_addresses, local)?);
    let Some(source) = &message.source_address else {
        if !extra.is_empty() {
            return Err(at.field("source_address").reject("is required with extra source addresses"));
        }
        return Ok(None);
    };
    let source = local(source, &at.field("source_address"))?;
    if extra.iter().filter(|e| e.is_ipv4() == source.is_ipv4()).count() > 0 || extra.len() > 1 {
        return Err(at.field("extra_source_addresses").reject("at most one of the other address family is possible"));
    }
    Ok(Some(Bind { source, extra, freebind: bool_or(&message.freebind, false) }))
}
