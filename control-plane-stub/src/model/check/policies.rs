//! DestinationRules: hosts that exist, settings that make sense.

use super::balancing;
use crate::model::{
    Balance, Class, ClientTls, ConnectionPool, DestinationRule, LoadBalancer, Object, OutlierDetection, Problem,
    TlsMode,
    destination_rule::LATENCY_AWARE,
    join::Declared,
    names::{covers, is_host},
    world::World,
};

pub(super) fn check(world: &World, declared: &Declared, problems: &mut Vec<Problem>) {
    for (_, object) in &declared.destination_rules {
        rule(world, object, problems);
    }
}

fn rule(world: &World, object: &Object<DestinationRule>, problems: &mut Vec<Problem>) {
    let (spec, source) = (&object.spec, &object.source);
    let host = &spec.host;
    let known = world.services.keys().any(|service| covers(host, service));
    if !is_host(host) && host != "*" {
        problems.push(source.problem("spec.host", format!("`{host}` is not a DNS name")));
    } else if !known && !host.starts_with('*') {
        let namespace = &object.meta.namespace;
        let reason = format!(
            "no Service or ServiceEntry declares {host}: correct the name (a short name means namespace {namespace}), or declare it"
        );
        problems.push(source.problem("spec.host", reason));
    }
    latency(object, problems);
    nameless_tls(world, object, problems);
    let mut names = std::collections::HashSet::new();
    let policies = std::iter::once(("spec.trafficPolicy".to_owned(), &spec.traffic_policy));
    let subsets = spec.subsets.iter().enumerate();
    let subsets = subsets.map(|(i, s)| (format!("spec.subsets[{i}].trafficPolicy"), &s.traffic_policy));
    for (path, policy) in policies.chain(subsets) {
        client_tls(&format!("{path}.tls"), policy.tls.as_ref(), object, problems);
        let parts = (&policy.load_balancer, &policy.connection_pool, &policy.outlier_detection);
        settings(&path, parts, object, problems);
        for (index, port) in policy.port_level_settings.iter().enumerate() {
            let path = format!("{path}.portLevelSettings[{index}]");
            client_tls(&format!("{path}.tls"), port.tls.as_ref(), object, problems);
            settings(&path, (&port.load_balancer, &port.connection_pool, &port.outlier_detection), object, problems);
            if policy.port_level_settings[..index].iter().any(|other| other.port == port.port) {
                let reason = format!("port {} is listed twice", port.port.number);
                problems.push(source.problem(format!("{path}.port.number"), reason));
            }
            let service = world.services.get(host);
            if service.is_some_and(|s| s.port(port.port.number).is_none()) {
                let reason = format!("{host} has no port {}", port.port.number);
                problems.push(source.problem(format!("{path}.port.number"), reason));
            }
        }
    }
    for (index, subset) in spec.subsets.iter().enumerate() {
        let path = format!("spec.subsets[{index}].name");
        if !names.insert(&subset.name) {
            problems.push(source.problem(path, format!("the subset {} is there twice", subset.name)));
        } else if subset.name.is_empty() || subset.name.contains('|') {
            problems.push(source.problem(path, "must not be empty nor hold `|`"));
        }
    }
}

/// The annotation is an upgrade of one balancer.
fn latency(object: &Object<DestinationRule>, problems: &mut Vec<Problem>) {
    let path = format!("metadata.annotations.{LATENCY_AWARE}");
    let other = object.spec.traffic_policy.load_balancer.as_ref().is_some_and(|balancer| {
        balancer.consistent_hash.is_some() || balancer.simple.is_some_and(|simple| simple != Balance::LeastRequest)
    });
    match object.meta.annotations.get(LATENCY_AWARE).map(String::as_str) {
        Some("true") if other => {
            problems.push(object.source.problem(path, "is an upgrade of LEAST_REQUEST: remove the other loadBalancer"));
        }
        None | Some("true" | "false") => {}
        Some(other) => problems.push(object.source.problem(path, format!("`{other}` is neither true nor false"))),
    }
}

/// To a host with a wildcard only a request of HTTP can say which server is meant. Of any other bytes nobody knows, and
/// TLS without a name takes the certificate of whoever answers.
fn nameless_tls(world: &World, object: &Object<DestinationRule>, problems: &mut Vec<Problem>) {
    let spec = &object.spec;
    let wild = world.services.values().filter(|s| s.host.starts_with('*') && covers(&spec.host, &s.host));
    for service in wild.filter(|s| s.subject_alt_names.is_empty()) {
        for port in service.ports.iter().filter(|port| port.protocol.class() != Class::Http) {
            let subsets = spec.subsets.iter().map(|subset| Some(subset.name.as_str()));
            let nameless = std::iter::once(None).chain(subsets).any(|subset| {
                spec.policy(subset, port.number).tls.is_some_and(|tls| {
                    matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual)
                        && tls.sni.as_ref().is_none_or(String::is_empty)
                        && tls.subject_alt_names.is_empty()
                        && !tls.insecure_skip_verify
                })
            });
            if nameless {
                let reason = format!(
                    "needs sni or subjectAltNames: nothing says which server is meant by {} at port {}, which is not HTTP",
                    service.host, port.number
                );
                problems.push(object.source.problem("spec.trafficPolicy.tls", reason));
            }
        }
    }
}

fn client_tls(path: &str, tls: Option<&ClientTls>, object: &Object<DestinationRule>, problems: &mut Vec<Problem>) {
    let Some(tls) = tls else { return };
    let mut problem = |field: &str, reason: &str| {
        problems.push(object.source.problem(format!("{path}.{field}"), reason));
    };
    if tls.mode == TlsMode::Mutual {
        for (field, file) in [("clientCertificate", &tls.client_certificate), ("privateKey", &tls.private_key)] {
            if file.as_ref().is_none_or(String::is_empty) {
                problem(field, "mode MUTUAL needs the path of a PEM file");
            }
        }
    }
    let files = tls.client_certificate.is_some() || tls.private_key.is_some();
    if files && tls.mode != TlsMode::Mutual {
        problem("clientCertificate", "a client certificate is for mode MUTUAL only");
    }
    if tls.ca_certificates.is_some() && !matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual) {
        problem("caCertificates", "is for modes SIMPLE and MUTUAL only");
    }
    if tls.insecure_skip_verify && (tls.ca_certificates.is_some() || !tls.subject_alt_names.is_empty()) {
        problem("insecureSkipVerify", "contradicts caCertificates and subjectAltNames: remove one side");
    }
    if tls.insecure_skip_verify && tls.mode == TlsMode::IstioMutual {
        problem("insecureSkipVerify", "mesh identities are always verified: remove it, or use mode SIMPLE");
    }
}

type Parts<'a> = (&'a Option<LoadBalancer>, &'a Option<ConnectionPool>, &'a Option<OutlierDetection>);

fn settings(
    path: &str,
    (balancer, pool, outlier): Parts<'_>,
    object: &Object<DestinationRule>,
    problems: &mut Vec<Problem>,
) {
    let found = [
        ("loadBalancer", balancer.as_ref().map(balancing::balancer)),
        ("connectionPool", pool.as_ref().map(balancing::pool)),
        ("outlierDetection", outlier.as_ref().map(balancing::outlier)),
    ];
    for (part, findings) in found {
        for (field, reason) in findings.into_iter().flatten() {
            problems.push(object.source.problem(format!("{path}.{part}.{field}"), reason));
        }
    }
}
