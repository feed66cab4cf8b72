//! The operator's documents: what is accepted can be translated for every workload, and the data plane accepts all of that.

use std::{cell::RefCell, collections::BTreeMap, fs};

use outrigger_control::{
    model::{self, Settings, Workload, World},
    resources::{ClientKind, Node, Resources},
    translate,
};
use outrigger_proxy::xds::decode::{Notes, resource};
use outrigger_wire::pb::google::protobuf::Any;
use tempfile::TempDir;

thread_local! {
    static DIRECTORY: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

pub(super) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let loaded = DIRECTORY.with_borrow_mut(|dir| {
        let dir = dir.get_or_insert_with(|| directory().expect("a directory"));
        fs::write(dir.path().join("all.yaml"), text).expect("a file");
        model::load_with(dir.path(), Settings::default())
    });
    match loaded {
        Err(problems) => assert!(!problems.is_empty(), "refused without a reason"),
        Ok(world) => translated(&world),
    }
}

fn translated(world: &World) {
    let nobody = node(None);
    let nodes = world.workloads.iter().take(3).map(|workload| node(Some(workload)));
    for mut node in nodes.chain([nobody]) {
        let ours = translate::translate(world, &node);
        assert_eq!(ours, translate::translate(world, &node), "another translation of the same");
        accepted(&ours);
        for kind in [ClientKind::Envoy, ClientKind::Grpc] {
            node.kind = kind;
            translate::translate(world, &node);
        }
    }
}

fn accepted(resources: &Resources) {
    let Resources { clusters, endpoints, listeners, routes } = resources;
    let all: [&BTreeMap<String, Any>; 4] = [clusters, endpoints, listeners, routes];
    for (name, any) in all.into_iter().flatten() {
        if let Err(reject) = resource(any, &mut Notes::default()) {
            panic!("the data plane refuses {name}: {reject}");
        }
    }
}

fn node(workload: Option<&Workload>) -> Node {
    let name = workload.map_or("nobody", |w| &w.name);
    let namespace = workload.map_or("default", |w| &w.namespace);
    Node {
        id: format!("sidecar~10.0.0.1~{name}.{namespace}~{namespace}.svc.cluster.local"),
        kind: ClientKind::Outrigger,
        namespace: namespace.to_owned(),
        service_account: workload.map_or_else(|| "default".to_owned(), |w| w.service_account.clone()),
        ips: workload.iter().flat_map(|w| w.addresses.iter().filter_map(|a| a.ip())).collect(),
        labels: workload.map(|w| w.labels.clone()).unwrap_or_default(),
        locality: workload.map(|w| w.locality.clone()).unwrap_or_default(),
    }
}

/// In memory, where there is such a place.
fn directory() -> std::io::Result<TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
}
