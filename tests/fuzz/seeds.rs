//! Seeds of the binary targets, from the bootstraps and documents that the tests hold.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use outrigger_control::{
    model,
    resources::{ClientKind, Node, Resources},
    translate,
};
use outrigger_proxy::xds::Kind;
use outrigger_wire::{
    json,
    pb::{
        envoy::{
            config::{bootstrap::v3::Bootstrap, listener::v3::Listener},
            extensions::filters::network::http_connection_manager::v3::{
                HttpConnectionManager, http_connection_manager::RouteSpecifier,
            },
            service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse, Resource},
        },
        google::protobuf::Any,
    },
};
use prost::Message;

const BOOTSTRAPS: &[&str] = &[
    "deploy/static/https-for-legacy.yaml",
    "tests/e2e/files/sound.yaml",
    "tests/e2e/interop/inbound.yaml",
    "tests/e2e/interop/outbound.yaml",
    "tests/e2e/tracing/hop.yaml",
    "tests/fuzz/proxy.yaml",
    "tests/fuzz/tls.yaml",
];
const DOCUMENTS: &[&str] = &["bookinfo", "limits", "mixed", "security", "traffic"];

/// Writes them below `to`, a directory for each target.
pub(super) fn write(to: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut all: Vec<(Kind, String, Vec<u8>)> = Vec::new();
    for file in BOOTSTRAPS {
        let text = fs::read_to_string(root.join(file))?;
        put(to, "bootstrap", text.as_bytes())?;
        let Ok(value) = json::parse(&text) else { continue };
        put(to, "bootstrap", value.to_string().as_bytes())?;
        if let Ok(bootstrap) = json::from_value::<Bootstrap>(value) {
            taken_apart(bootstrap, &mut all);
        }
    }
    for dir in DOCUMENTS {
        let dir = root.join("control-plane-stub/testdata").join(dir);
        for file in fs::read_dir(&dir)? {
            put(to, "documents", &fs::read(file?.path())?)?;
        }
        let world = match model::load(&dir) {
            Ok(world) => world,
            Err(problems) => {
                eprintln!("{}: {}", dir.display(), problems[0]);
                continue;
            }
        };
        for workload in world.workloads.iter().take(2) {
            let node = Node {
                id: format!("sidecar~10.0.0.1~{}.{}~x", workload.name, workload.namespace),
                kind: ClientKind::Outrigger,
                namespace: workload.namespace.clone(),
                service_account: workload.service_account.clone(),
                ips: workload.addresses.iter().filter_map(|a| a.ip()).collect(),
                labels: workload.labels.clone(),
                locality: workload.locality.clone(),
            };
            translated(translate::translate(&world, &node), &mut all);
        }
    }
    resources(to, &all)?;
    streams(to, &all)?;
    saved(to, &all)
}

fn put(to: &Path, target: &str, data: &[u8]) -> std::io::Result<()> {
    let dir: PathBuf = to.join(target);
    fs::create_dir_all(&dir)?;
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, data);
    let name: String = sum.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(dir.join(name), data)
}

fn taken_apart(bootstrap: Bootstrap, all: &mut Vec<(Kind, String, Vec<u8>)>) {
    let statics = bootstrap.static_resources.unwrap_or_default();
    for mut listener in statics.listeners {
        routes(&mut listener, all);
        all.push((Kind::Listener, listener.name.clone(), listener.encode_to_vec()));
    }
    for cluster in statics.clusters {
        if let Some(assignment) = &cluster.load_assignment {
            all.push((Kind::Endpoints, assignment.cluster_name.clone(), assignment.encode_to_vec()));
        }
        all.push((Kind::Cluster, cluster.name.clone(), cluster.encode_to_vec()));
    }
    for secret in statics.secrets {
        all.push((Kind::Secret, secret.name.clone(), secret.encode_to_vec()));
    }
}

/// The route configurations inside of a listener, as resources.
fn routes(listener: &mut Listener, all: &mut Vec<(Kind, String, Vec<u8>)>) {
    use outrigger_wire::pb::envoy::config::listener::v3::filter::ConfigType;
    for filter in listener.filter_chains.iter().flat_map(|chain| &chain.filters) {
        let Some(ConfigType::TypedConfig(any)) = &filter.config_type else { continue };
        let Ok(manager) = HttpConnectionManager::decode(any.value.as_slice()) else { continue };
        if let Some(RouteSpecifier::RouteConfig(mut config)) = manager.route_specifier {
            config.name = "routes".to_owned();
            all.push((Kind::Routes, config.name.clone(), config.encode_to_vec()));
        }
    }
}

fn translated(resources: Resources, all: &mut Vec<(Kind, String, Vec<u8>)>) {
    let Resources { clusters, endpoints, listeners, routes } = resources;
    let sets: [(Kind, BTreeMap<String, Any>); 4] =
        [(Kind::Cluster, clusters), (Kind::Endpoints, endpoints), (Kind::Listener, listeners), (Kind::Routes, routes)];
    for (kind, set) in sets {
        all.extend(set.into_iter().map(|(name, any)| (kind, name, any.value)));
    }
}

fn resources(to: &Path, all: &[(Kind, String, Vec<u8>)]) -> Result<(), Box<dyn std::error::Error>> {
    for (kind, _, value) in all.iter().filter(|(_, _, value)| value.len() < 8 << 10) {
        let place = Kind::ALL.iter().position(|k| k == kind).unwrap_or_default() as u8;
        put(to, "xds", &[&[place], &value[..]].concat())?;
    }
    if let Some((kind, name, value)) = all.first() {
        let inner = Any { type_url: kind.type_url().to_owned(), value: value.clone() };
        let wrapper =
            Resource { name: name.clone(), version: "1".to_owned(), resource: Some(inner), ..Resource::default() };
        let any = outrigger_wire::pack_any(wrapper);
        put(to, "xds", &[&[7], &any.encode_to_vec()[..]].concat())?;
    }
    Ok(())
}

/// Responses in the order in which a control plane sends them, a few resources each.
fn streams(to: &Path, all: &[(Kind, String, Vec<u8>)]) -> Result<(), Box<dyn std::error::Error>> {
    for group in all.chunks(12) {
        let (mut sotw, mut delta) = (vec![0], vec![1]);
        let message = |out: &mut Vec<u8>, encoded: Vec<u8>| {
            if let Ok(length) = u16::try_from(encoded.len()) {
                out.push(1);
                out.extend(length.to_be_bytes());
                out.extend(encoded);
            }
        };
        for kind in Kind::ALL {
            let of_kind = || group.iter().filter(move |(k, _, value)| *k == kind && value.len() < 3000).take(2);
            let any = |value: &[u8]| Any { type_url: kind.type_url().to_owned(), value: value.to_vec() };
            let resources: Vec<Any> = of_kind().map(|(_, _, value)| any(value)).collect();
            if resources.is_empty() {
                continue;
            }
            let response = DiscoveryResponse {
                version_info: "1".to_owned(),
                resources,
                type_url: kind.type_url().to_owned(),
                nonce: "n".to_owned(),
                ..DiscoveryResponse::default()
            };
            message(&mut sotw, response.encode_to_vec());
            let resource = |(_, name, value): &(Kind, String, Vec<u8>)| Resource {
                name: name.clone(),
                version: "1".to_owned(),
                resource: Some(any(value)),
                ..Resource::default()
            };
            let response = DeltaDiscoveryResponse {
                resources: of_kind().map(resource).collect(),
                type_url: kind.type_url().to_owned(),
                removed_resources: vec!["gone".to_owned()],
                nonce: "n".to_owned(),
                ..DeltaDiscoveryResponse::default()
            };
            message(&mut delta, response.encode_to_vec());
        }
        put(to, "xds_stream", &sotw)?;
        put(to, "xds_stream", &delta)?;
    }
    Ok(())
}

#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(string, tag = "1")]
    node: String,
    #[prost(string, tag = "2")]
    cluster: String,
    #[prost(uint64, tag = "3")]
    written: u64,
    #[prost(string, tag = "4")]
    program: String,
    #[prost(uint64, tag = "5")]
    resources: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Kept {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "5")]
    version: String,
    #[prost(bytes = "vec", tag = "6")]
    raw: Vec<u8>,
}

fn saved(to: &Path, all: &[(Kind, String, Vec<u8>)]) -> Result<(), Box<dyn std::error::Error>> {
    let small: Vec<_> = all.iter().filter(|(kind, _, value)| *kind != Kind::Secret && value.len() < 1500).collect();
    for group in small.chunks(4).take(12) {
        let mut body = vec![1];
        let head = Head {
            node: "node".to_owned(),
            cluster: "cluster".to_owned(),
            written: 1_699_999_000,
            program: "0.1.0".to_owned(),
            resources: group.len() as u64,
        };
        body.extend(head.encode_length_delimited_to_vec());
        for (kind, name, value) in group {
            let kept = Kept {
                type_url: kind.type_url().to_owned(),
                name: name.clone(),
                version: "1".to_owned(),
                raw: value.clone(),
            };
            body.extend(kept.encode_length_delimited_to_vec());
        }
        put(to, "saved", &body)?;
    }
    Ok(())
}
