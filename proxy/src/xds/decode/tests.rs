//! Resources as YAML, as a control plane would send them, through the public entry point.

mod actions;
mod authz;
mod balancing;
mod clusters;
mod filters;
mod health;
mod hostile;
mod istio;
mod limits;
mod listeners;
mod managers;
mod rbac;
mod retries;
mod routes;
mod secrets;
mod tls;
mod tracing;

use outrigger_wire::json;

use super::*;

/// One resource from YAML with an `@type`.
fn any(yaml: &str) -> Any {
    let value = json::parse(yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
    json::from_value(value).unwrap_or_else(|e| panic!("{e}\n{yaml}"))
}

fn decode(yaml: &str) -> Result<(Resource, Notes), Reject> {
    let mut notes = Notes::default();
    resource(&any(yaml), &mut notes).map(|r| (r, notes))
}

fn accepted(yaml: &str) -> (Resource, Notes) {
    decode(yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"))
}

/// Decodes each YAML and compares where and (by a part of the text) why it is refused.
fn refused(cases: &[(String, &str, &str)]) {
    for (yaml, path, reason) in cases {
        match decode(yaml) {
            Ok(_) => panic!("accepted, but should be refused at {path}\n{yaml}"),
            Err(e) => {
                assert_eq!(e.path, *path, "{e}\n{yaml}");
                assert!(e.reason.contains(reason), "{e}: expected {reason:?}\n{yaml}");
            }
        }
    }
}

/// Decodes each YAML and looks for the note.
fn noted(cases: &[(String, &str, NoteKind)]) {
    for (yaml, path, kind) in cases {
        let (_, notes) = accepted(yaml);
        let all: Vec<_> = notes.iter().map(ToString::to_string).collect();
        assert!(notes.contains(path, *kind), "no {kind:?} note at {path}: {all:#?}\n{yaml}");
    }
}

const T: &str = "type.googleapis.com";

/// A listener with one chain of these filters and these other fields (flow style, each ends with a comma).
fn listener_of(filters: &str, fields: &str) -> String {
    format!(
        "{{\"@type\": {T}/{LISTENER}, name: l, {fields} address: {{socket_address: {{address: 10.0.0.1, port_value: 80}}}}, \
         filter_chains: [{{filters: [{filters}]}}]}}"
    )
}

fn tcp(fields: &str) -> String {
    format!(
        "{{name: any-name, typed_config: {{\"@type\": {T}/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, \
         stat_prefix: s, {fields}}}}}"
    )
}

const ROUTER: &str = "{name: r, typed_config: {\"@type\": \
                      type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";

/// A listener with a connection manager: these HTTP filters before the router, and these other fields.
fn hcm(filters: &str, fields: &str) -> String {
    hcm_routes(filters, fields, "virtual_hosts: [{name: v, domains: ['*'], routes: []}]")
}

fn hcm_routes(filters: &str, fields: &str, routes: &str) -> String {
    let kind = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let filter = format!(
        "{{name: h, typed_config: {{\"@type\": {T}/{kind}, stat_prefix: s, {fields} http_filters: [{filters} {ROUTER}], \
         route_config: {{{routes}}}}}}}"
    );
    listener_of(&filter, "")
}

/// Where the connection manager of [`hcm`] is.
const HCM: &str = "filter_chains[0].filters[0].typed_config";

fn cluster_of(fields: &str) -> String {
    format!("{{\"@type\": {T}/{CLUSTER}, name: c, {fields}}}")
}

/// A route configuration with one route of these fields.
fn route_of(fields: &str) -> String {
    routes_of(&format!("{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, {fields}}}]}}"))
}

fn routes_of(virtual_hosts: &str) -> String {
    format!("{{\"@type\": {T}/{ROUTES}, name: r, virtual_hosts: [{virtual_hosts}]}}")
}

/// Where the route of [`route_of`] is.
const ROUTE: &str = "virtual_hosts[0].routes[0]";

fn at_route(rest: &str) -> String {
    format!("{ROUTE}.{rest}")
}

fn the_listener(yaml: &str) -> Arc<Listener> {
    match accepted(yaml).0 {
        Resource::Listener(l) => l,
        other => panic!("{other:?}"),
    }
}

fn the_cluster(yaml: &str) -> Arc<Cluster> {
    match accepted(yaml).0 {
        Resource::Cluster(c) => c,
        other => panic!("{other:?}"),
    }
}

fn the_routes(yaml: &str) -> Arc<RouteConfiguration> {
    match accepted(yaml).0 {
        Resource::Routes { routes, .. } => routes,
        other => panic!("{other:?}"),
    }
}
