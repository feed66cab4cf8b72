use std::{net::IpAddr, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    model::{World, load},
    resources::{ClientKind, Node, Resources},
    translate::translate,
};

mod access_log;
mod chains;
mod entries;
mod envoy;
mod limits;
mod outbound;
mod proxy;
mod routes;
mod scoping;
mod security;
mod soundness;
mod tasks;
mod telemetry;
mod tracing;
mod traffic;

fn world(name: &str) -> World {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    load(&dir).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn world_of(yaml: &str) -> World {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.yaml"), yaml).unwrap();
    load(dir.path()).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn node(kind: ClientKind, namespace: &str, ip: &str) -> Node {
    Node {
        id: format!("sidecar~{ip}~pod.{namespace}~{namespace}.svc.cluster.local"),
        kind,
        namespace: namespace.to_owned(),
        service_account: "default".to_owned(),
        ips: ip.parse::<IpAddr>().into_iter().collect(),
        labels: Default::default(),
        locality: Default::default(),
    }
}

fn sidecar(world: &World, namespace: &str, ip: &str) -> Resources {
    translate(world, &node(ClientKind::Envoy, namespace, ip))
}

fn json_of(any: &outrigger_wire::pb::google::protobuf::Any) -> Value {
    let name = any.type_url.rsplit('/').next().unwrap();
    outrigger_wire::json::bytes_to_value(name, &any.value).unwrap()
}

fn get(map: &std::collections::BTreeMap<String, outrigger_wire::pb::google::protobuf::Any>, name: &str) -> Value {
    json_of(map.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", map.keys())))
}

/// The text at a JSON pointer, for short assertions.
fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {value:#}"))
}
