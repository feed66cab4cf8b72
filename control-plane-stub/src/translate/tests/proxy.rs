//! Our own proxy must take what we generate.

use outrigger_proxy::xds::decode::{Notes, resource};

use super::*;

fn accepts(resources: &Resources, what: &str) {
    let sets = [&resources.clusters, &resources.endpoints, &resources.listeners, &resources.routes];
    for (name, any) in sets.into_iter().flatten() {
        resource(any, &mut Notes::default()).unwrap_or_else(|reject| panic!("{what}: {name}: {reject}"));
    }
}

#[test]
fn the_proxy_takes_bookinfo_and_everything_else() {
    for (name, namespace, ips) in [
        ("bookinfo", "default", ["10.244.0.10", "10.244.0.13", "10.9.9.9"]),
        ("mixed", "apps", ["fd00:10:244::20", "10.244.1.1", "192.0.2.10"]),
    ] {
        let world = world(name);
        for ip in ips {
            accepts(&translate(&world, &node(ClientKind::Outrigger, namespace, ip)), ip);
        }
    }
}

#[test]
fn the_proxy_takes_limits() {
    let world = world("limits");
    for (namespace, ip) in [("shop", "10.244.9.1"), ("infra", "10.244.9.9")] {
        accepts(&translate(&world, &node(ClientKind::Outrigger, namespace, ip)), ip);
    }
}

#[test]
fn the_proxy_takes_all_traffic_policy() {
    let world = world("traffic");
    for ip in ["10.244.2.1", "10.244.2.3", "10.244.2.9", "10.9.9.9"] {
        accepts(&translate(&world, &node(ClientKind::Outrigger, "default", ip)), ip);
    }
}

#[test]
fn the_proxy_takes_security_policy() {
    for name in ["allow-nothing", "tcp-allow", "tcp-allow-get", "tcp-deny-get", "deny", "dry-run", "peers"] {
        let world = security::task(&["security/workloads.yaml", &format!("security/{name}.yaml")]);
        for ip in ["10.244.1.20", "10.244.1.30", "10.244.1.50"] {
            accepts(&translate(&world, &node(ClientKind::Outrigger, "foo", ip)), name);
        }
    }
}
