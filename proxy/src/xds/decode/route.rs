//! Route configurations.

use std::sync::Arc;

use outrigger_wire::pb::envoy::config::route::v3::RouteConfiguration as Pb;

use super::{
    at::At,
    fields::fields,
    header_ops::{header_ops, lists},
    mirror::mirrors,
    per_route,
    report::Reject,
    scalar::{bool_or, u32_or},
    virtual_host::{Inherited, virtual_hosts},
};
use crate::ir::route::RouteConfiguration;

/// Envoy's default for `max_direct_response_body_size_bytes`.
const DIRECT_RESPONSE_BODY: u32 = 4096;

/// `hosts` are the virtual hosts, which `message` lacks.
pub(crate) fn route_configuration(message: &Pb, hosts: &[&[u8]], at: &At<'_>) -> Result<RouteConfiguration, Reject> {
    fields!(at, message => Pb {
        read: [
            name, virtual_hosts, response_headers_to_add, response_headers_to_remove, request_headers_to_add,
            request_headers_to_remove, most_specific_header_mutations_wins, validate_clusters,
            max_direct_response_body_size_bytes, ignore_port_in_host_matching, typed_per_filter_config,
            request_mirror_policies,
        ],
        harmless: [metadata],
        refuse: [
            vhds, internal_only_headers, cluster_specifier_plugins, vhost_header,
            ignore_path_parameters_in_path_matching, route_specifiers,
        ],
    });
    if bool_or(&message.validate_clusters, false) {
        let at = at.field("validate_clusters");
        at.unsupported("a route to a cluster that does not exist is accepted; its requests get the configured status");
    }
    let overrides = per_route::overrides(&message.typed_per_filter_config, (None, None), at)?;
    let body = u32_or(&message.max_direct_response_body_size_bytes, DIRECT_RESPONSE_BODY);
    let inherited = Inherited {
        direct_response_body: usize::try_from(body).unwrap_or(usize::MAX),
        mirrors: mirrors(&message.request_mirror_policies, &Arc::default(), at)?,
    };
    Ok(RouteConfiguration {
        name: message.name.as_str().into(),
        virtual_hosts: virtual_hosts(hosts, &inherited, at)?,
        headers: header_ops(&lists!(message), at)?,
        most_specific_wins: message.most_specific_header_mutations_wins,
        ignore_port_in_host: message.ignore_port_in_host_matching,
        unknown_clusters_allowed: !bool_or(&message.validate_clusters, true),
        overrides,
    })
}
