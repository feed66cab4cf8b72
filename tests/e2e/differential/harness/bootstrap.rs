//! Writes the bootstrap file of a group: what Envoy's users write, one listener and its clusters for each case.

use std::{collections::HashMap, fmt::Write, path::Path};

use super::{
    case::{Case, Cluster, Fragments},
    reply::Serve,
};

const LOG: &str = "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL% code=%RESPONSE_CODE% \
                   flags=%RESPONSE_FLAGS% details=%RESPONSE_CODE_DETAILS% cluster=%UPSTREAM_CLUSTER% \
                   rx=%BYTES_RECEIVED% tx=%BYTES_SENT% attempts=%UPSTREAM_REQUEST_ATTEMPT_COUNT% \
                   route=%ROUTE_NAME% upstream=%UPSTREAM_HOST% failure=%UPSTREAM_TRANSPORT_FAILURE_REASON%";

const HTTP2: &str = "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}";

const ANYWHERE: &str = "- match: {prefix: /}\n  route: {cluster: $a}";

/// Where the parts of a case listen.
pub(crate) struct Ports {
    pub(crate) listener: u16,
    pub(crate) hosts: HashMap<&'static str, u16>,
}

/// The file of some cases. `ready` is the port of a listener that answers by itself.
pub(crate) fn bootstrap(cases: &[(&Case, &Ports)], ready: u16, admin: Option<u16>, dir: &Path) -> String {
    let mut listeners = String::new();
    let mut clusters = String::new();
    for (case, ports) in cases {
        let (listener, own) = fragments(case, ports, dir);
        listeners += &indent(4, &listener);
        clusters += &indent(4, &own);
    }
    listeners += &indent(4, &ready_listener(ready));
    let mut text = String::from("node: {id: differential, cluster: differential}\n");
    if let Some(port) = admin {
        let _ = writeln!(text, "admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}");
    }
    let _ = write!(text, "static_resources:\n  listeners:\n{listeners}");
    if !clusters.trim().is_empty() {
        let _ = write!(text, "  clusters:\n{clusters}");
    }
    text
}

/// The listener and the clusters of one case.
pub(crate) fn fragments(case: &Case, ports: &Ports, dir: &Path) -> (String, String) {
    let listener = fill(&listener(case), case, ports, dir);
    let clusters: String = clusters(case).iter().map(|c| cluster(case, c)).collect();
    (listener, fill(&clusters, case, ports, dir))
}

/// Last in the file and by name: where it answers, all others listen.
fn ready_listener(port: u16) -> String {
    let fragments =
        Fragments { routes: Some("- match: {prefix: /}\n  direct_response: {status: 204}"), ..Fragments::default() };
    format!(
        "- name: zz-ready\n  address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}\n  filter_chains:\n{}",
        indent(2, &manager(&fragments, "")).replace("$case", "ready")
    )
}

/// Removes the indentation that all lines share: a fragment of several lines begins below its opening quote.
fn dedent(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    let common = lines.iter().map(|l| l.len() - l.trim_start().len()).min().unwrap_or(0);
    lines.iter().map(|l| format!("{}\n", &l[common..])).collect()
}

fn indent(by: usize, text: &str) -> String {
    dedent(text).lines().map(|l| format!("{:by$}{l}\n", "")).collect()
}

fn listener(case: &Case) -> String {
    let log = log(case);
    let mut text = format!(
        "- name: $case\n  address: {{socket_address: {{address: 127.0.0.1, port_value: $port}}}}\n{}  filter_chains:\n",
        indent(2, case.fragments.listener)
    );
    match case.fragments.filter_chains {
        Some(chains) => text += &indent(2, chains).replace("$log", &log),
        None => text += &indent(2, &manager(&case.fragments, &log)),
    }
    text
}

fn log(case: &Case) -> String {
    // One line of flow style: it goes wherever an access log can be.
    let (name, kind) = (case.name, "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog");
    let format = format!("log_format: {{text_format_source: {{inline_string: \"{name}| {LOG}\\n\"}}}}");
    format!("access_log: [{{name: log, typed_config: {{\"@type\": {kind}, path: \"$dir/access.log\", {format}}}}}]")
}

fn manager(fragments: &Fragments, log: &str) -> String {
    let default = format!(
        "- name: $case\n  domains: [\"*\"]\n{}  routes:\n{}",
        indent(2, fragments.virtual_host),
        indent(2, fragments.routes.unwrap_or(ANYWHERE))
    );
    let kind = "type.googleapis.com/envoy.extensions.filters";
    format!(
        "- filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      \"@type\": {kind}.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: $case
      {log}
{}      route_config:
        name: $case
{}        virtual_hosts:
{}      http_filters:
{}      - name: envoy.filters.http.router
        typed_config:
          \"@type\": {kind}.http.router.v3.Router
{}",
        indent(6, fragments.manager),
        indent(8, fragments.route_config),
        indent(8, fragments.virtual_hosts.unwrap_or(&default)),
        indent(6, fragments.filters),
        indent(10, fragments.router),
    )
}

/// Those a case names, and one for each host that none of them mentions.
fn clusters(case: &Case) -> Vec<Cluster> {
    let mut clusters = case.clusters.clone();
    for (host, _) in &case.hosts {
        if !case.clusters.iter().any(|c| c.hosts.contains(host) || c.name == *host) {
            clusters.push(Cluster { name: host, hosts: vec![host], extra: "" });
        }
    }
    clusters
}

fn cluster(case: &Case, cluster: &Cluster) -> String {
    let mut text = format!("- name: ${}\n", cluster.name);
    let mut otherwise = |field: &str, default: &str| {
        if !cluster.extra.contains(field) {
            text += &indent(2, default);
        }
    };
    otherwise("type:", "type: STATIC");
    otherwise("connect_timeout:", "connect_timeout: 3s");
    let http2 = |name: &&str| {
        case.hosts.iter().any(|(host, serve)| host == name && matches!(serve, Serve::Http2(_) | Serve::Bytes(_)))
    };
    if !cluster.hosts.is_empty() && cluster.hosts.iter().all(http2) {
        otherwise("typed_extension_protocol_options:", HTTP2);
    }
    let endpoints: String =
        cluster.hosts.iter().map(|host| format!("  - endpoint: {{address: $socket_{host}}}\n")).collect();
    if !endpoints.is_empty() {
        otherwise(
            "load_assignment:",
            &format!(
                "load_assignment:\n  cluster_name: ${}\n  endpoints:\n  - lb_endpoints:\n{}",
                cluster.name,
                indent(4, &endpoints)
            ),
        );
    }
    text + &indent(2, cluster.extra)
}

/// Fills the placeholders in; longer names first, so that none is taken for the beginning of another.
fn fill(text: &str, case: &Case, ports: &Ports, dir: &Path) -> String {
    let mut values: Vec<(String, String)> = vec![
        ("$case".to_owned(), case.name.to_owned()),
        ("$port".to_owned(), ports.listener.to_string()),
        ("$dir".to_owned(), dir.display().to_string()),
    ];
    for (host, port) in &ports.hosts {
        let socket = format!("{{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}");
        values.push((format!("$socket_{host}"), socket));
        values.push((format!("$port_{host}"), port.to_string()));
    }
    values.extend(clusters(case).iter().map(|c| (format!("${}", c.name), format!("{}-{}", case.name, c.name))));
    values.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let whole = |name: &str| {
            rest.starts_with(name) && !rest[name.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        };
        match values.iter().find(|(name, _)| whole(name)) {
            Some((name, value)) => {
                out.push_str(value);
                rest = &rest[name.len()..];
            }
            None => {
                out.push('$');
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::case::case;

    #[test]
    fn names_are_filled_in_whole() {
        let case = case("c").echoes(&["a", "ab"]);
        let ports = Ports { listener: 1, hosts: HashMap::from([("a", 2), ("ab", 3)]) };
        let text = fill("$a $ab $abc $port_ab $socket_a '^/x$' $port", &case, &ports, Path::new("/d"));
        let socket = "{socket_address: {address: 127.0.0.1, port_value: 2}}";
        assert_eq!(text, format!("c-a c-ab $abc 3 {socket} '^/x$' 1"));
    }

    #[test]
    fn fragments_move_as_a_whole() {
        assert_eq!(indent(2, "\n        a:\n          b: 1\n        c: 2\n    "), "  a:\n    b: 1\n  c: 2\n");
        assert_eq!(indent(4, "a: 1"), "    a: 1\n");
        assert_eq!(indent(4, ""), "");
    }
}
