//! Joins the documents: selectors find workloads, names become absolute, duplicates are refused.

mod endpoints;
mod mesh;
mod zones;

use std::collections::{BTreeMap, HashMap};

use self::{endpoints::Workloads, zones::Zones};
use super::{
    Problem,
    destination_rule::{self, DestinationRule},
    document::Object,
    kinds::Kinds,
    names::{self, Visibility},
    pod, service, service_entry,
    settings::Settings,
    virtual_service::{self, VirtualService},
    workload::{Address, Locality, Workload},
    world::{Service, World},
};

/// VirtualServices and DestinationRules as their documents have them, with absolute names. Oldest first.
pub(super) struct Declared {
    pub virtual_services: Vec<(Visibility, Object<VirtualService>)>,
    pub destination_rules: Vec<(Visibility, Object<DestinationRule>)>,
}

pub(super) fn join(mut kinds: Kinds, settings: Settings, problems: &mut Vec<Problem>) -> (World, Declared) {
    duplicates(&kinds, problems);
    let mut world = World { settings, ..World::default() };
    for (kind, count) in &kinds.ignored {
        world.notes.push(format!("{count} documents of kind {kind} do not concern the mesh and were passed over"));
    }
    if kinds.gateways > 0 {
        let count = kinds.gateways;
        world.notes.push(format!("{count} Gateways are for gateway proxies, which are not configured from here"));
    }
    let zones = Zones::new(std::mem::take(&mut kinds.nodes));
    let workloads = Workloads::new(workloads(&kinds, &zones, problems), zones);
    services(&kinds, &workloads, &mut world, problems);
    world.workloads = workloads.all;
    world.by_address = HashMap::new();
    for (index, workload) in world.workloads.iter().enumerate() {
        for ip in workload.addresses.iter().filter_map(Address::ip) {
            world.by_address.entry(ip).or_default().push(index);
        }
    }
    shared_addresses(&mut world);
    world.peer_authentications = oldest_first(kinds.peer_authentications);
    decide_mtls(&mut world);
    world.authorization_policies = oldest_first(kinds.authorization_policies);
    world.request_authentications = oldest_first(kinds.request_authentications);
    world.mesh = mesh::config(kinds.mesh_configs, kinds.istio_configs, &mut world, problems);
    let declared = Declared {
        virtual_services: routes(kinds.virtual_services, &mut world, problems),
        destination_rules: rules(kinds.destination_rules, &world, problems),
    };
    world.virtual_services = virtual_service::resolve(&declared.virtual_services, &mut world.notes, problems);
    world.destination_rules = destination_rule::merge(&declared.destination_rules, &mut world.notes);
    world.rate_limits = by_name(kinds.rate_limits);
    world.sidecars = oldest_first(kinds.sidecars);
    world.index();
    (world, declared)
}

/// Istio's order wherever one of several counts: the oldest, then by name.
fn oldest_first<T>(mut objects: Vec<Object<T>>) -> Vec<Object<T>> {
    let key = |o: &Object<T>| (o.meta.creation_timestamp.clone(), o.meta.name.clone(), o.meta.namespace.clone());
    objects.sort_by_cached_key(key);
    objects
}

fn by_name<T>(mut objects: Vec<Object<T>>) -> Vec<Object<T>> {
    objects.sort_by_cached_key(|o| (o.meta.namespace.clone(), o.meta.name.clone()));
    objects
}

fn workloads(kinds: &Kinds, zones: &Zones, problems: &mut Vec<Problem>) -> Vec<(Workload, bool)> {
    let mut all = Vec::new();
    for object in &kinds.pods {
        let workload = pod::workload(object, problems).map(|mut workload| {
            if workload.locality == Locality::default() {
                workload.locality = zones.of_node(object.spec.spec.node_name.as_deref());
            }
            (workload, true)
        });
        all.extend(workload);
    }
    for object in &kinds.workload_entries {
        let names = (object.meta.name.as_str(), object.meta.namespace.as_str());
        let workload = object.spec.workload(names, (&object.source, "spec"), problems);
        // Istio's rule: labels of the document count as those of the workload, which come first.
        all.extend(workload.map(|mut workload| {
            for (key, value) in &object.meta.labels {
                workload.labels.entry(key.clone()).or_insert_with(|| value.clone());
            }
            (workload, false)
        }));
    }
    all.sort_by(|(a, _), (b, _)| (&a.namespace, &a.name, &a.addresses).cmp(&(&b.namespace, &b.name, &b.addresses)));
    all
}

fn services(kinds: &Kinds, workloads: &Workloads, world: &mut World, problems: &mut Vec<Problem>) {
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    let mut add = |service: Service, field: &str, world: &mut World, problems: &mut Vec<Problem>| {
        let place = format!("{} document {}", service.source.file.display(), service.source.document);
        if let Some(other) = owners.get(&service.host) {
            let reason = format!("the host {} is declared already in {other}: remove one of the two", service.host);
            return problems.push(service.source.problem(field, reason));
        }
        owners.insert(service.host.clone(), place);
        world.services.insert(service.host.clone(), service);
    };
    for object in &kinds.services {
        if let Some(mut service) = service::service(object, &world.settings, problems) {
            let slices = kinds.slices.iter().filter(|slice| endpoints::belongs(slice, &object.meta));
            let slices: Vec<_> = slices.collect();
            workloads.of_service(&mut service, (&object.spec, &slices), &mut world.notes, problems);
            if service.addresses.is_empty() && !service.headless && !service.ports.is_empty() {
                let note = format!(
                    "Service {}/{} has no clusterIP: HTTP reaches it by host name, other protocols only by the \
                     addresses of its endpoints",
                    service.namespace, service.name
                );
                world.notes.push(note);
            }
            add(service, "metadata.name", world, problems);
        }
    }
    for object in &kinds.service_entries {
        for (index, mut service) in service_entry::services(object, problems).into_iter().enumerate() {
            workloads.of_entry(&mut service, object, &mut world.notes, problems);
            add(service, &format!("spec.hosts[{index}]"), world, problems);
        }
    }
    for slice in &kinds.slices {
        let Some(name) = slice.meta.labels.get(endpoints::SERVICE_NAME) else {
            let reason = format!("needs the label {}: it says whose endpoints these are", endpoints::SERVICE_NAME);
            problems.push(slice.source.problem("metadata.labels", reason));
            continue;
        };
        if !kinds.services.iter().any(|s| s.meta.name == *name && s.meta.namespace == slice.meta.namespace) {
            // Kubernetes removes slices a moment after their Service.
            world.notes.push(format!(
                "EndpointSlice {}/{} is passed over: there is no Service {name} in its namespace",
                slice.meta.namespace, slice.meta.name
            ));
        }
    }
}

/// Who is meant by an address that two of one namespace have, the address does not tell. Pods on their host's network
/// share its address by right; what else does was forgotten, or is a mistake.
fn shared_addresses(world: &mut World) {
    let mut notes = Vec::new();
    for (ip, places) in &world.by_address {
        let here = || places.iter().map(|index| &world.workloads[*index]).filter(|workload| workload.ready);
        for one in here() {
            let Some(other) = here().find(|w| w.namespace == one.namespace && w.name > one.name) else { continue };
            if one.meshed || other.meshed {
                notes.push(format!(
                    "the workloads {} and {} of namespace {} are both at {ip}: which of them a proxy there is \
                     follows from its service account and its name; a proxy that says neither is taken for the first",
                    one.name, other.name, one.namespace
                ));
            }
        }
    }
    notes.sort();
    world.notes.append(&mut notes);
}

/// A client uses mutual TLS where a sidecar is and its policy does not switch it off.
fn decide_mtls(world: &mut World) {
    let mut services = std::mem::take(&mut world.services);
    for endpoint in services.values_mut().flat_map(|s| &mut s.endpoints) {
        if endpoint.ports.values().any(|port| port.mtls) {
            let policy = world.peer_policy(&endpoint.namespace, &endpoint.labels);
            for port in endpoint.ports.values_mut() {
                port.mtls &= policy.of(port.number) != super::Mode::Disable;
            }
        }
    }
    world.services = services;
}

fn visibility(result: Result<Visibility, String>, source: &super::Source, problems: &mut Vec<Problem>) -> Visibility {
    result.unwrap_or_else(|reason| {
        problems.push(source.problem("spec.exportTo", reason));
        Visibility::All
    })
}

fn routes(
    objects: Vec<Object<VirtualService>>,
    world: &mut World,
    problems: &mut Vec<Problem>,
) -> Vec<(Visibility, Object<VirtualService>)> {
    let mut all = Vec::new();
    for mut object in oldest_first(objects) {
        let namespace = object.meta.namespace.clone();
        let absolute = |host: &mut String| *host = names::absolute(host, &namespace, &world.settings);
        let spec = &mut object.spec;
        spec.hosts.iter_mut().for_each(absolute);
        spec.destinations().for_each(|destination| absolute(&mut destination.host));
        let seen = visibility(Visibility::new(&spec.export_to, &namespace), &object.source, problems);
        if !virtual_service::for_mesh(&spec.gateways) {
            let gateways = spec.gateways.join(", ");
            let name = &object.meta.name;
            world
                .notes
                .push(format!("VirtualService {namespace}/{name} is for gateways ({gateways}), not for sidecars"));
        }
        all.push((seen, object));
    }
    all
}

fn rules(
    objects: Vec<Object<DestinationRule>>,
    world: &World,
    problems: &mut Vec<Problem>,
) -> Vec<(Visibility, Object<DestinationRule>)> {
    let mut all = Vec::new();
    for mut object in oldest_first(objects) {
        object.spec.host = names::absolute(&object.spec.host, &object.meta.namespace, &world.settings);
        let mut seen = Visibility::new(&object.spec.export_to, &object.meta.namespace);
        if object.spec.callers().is_some() {
            // Callers are selected in the rule's own namespace only.
            seen = seen.map(|_| Visibility::Namespaces([object.meta.namespace.clone()].into()));
        }
        let seen = visibility(seen, &object.source, problems);
        all.push((seen, object));
    }
    all
}

/// The same kind, namespace and name twice: one of the two would silently win.
fn duplicates(kinds: &Kinds, problems: &mut Vec<Problem>) {
    fn check<T>(kind: &str, objects: &[Object<T>], problems: &mut Vec<Problem>) {
        let mut seen = HashMap::new();
        for object in objects {
            let place = format!("{} document {}", object.source.file.display(), object.source.document);
            if let Some(other) = seen.insert((&object.meta.namespace, &object.meta.name), place) {
                let Object { meta, source, .. } = object;
                let reason =
                    format!("{kind} {}/{} is also in {other}: remove one of the two", meta.namespace, meta.name);
                problems.push(source.problem("metadata.name", reason));
            }
        }
    }
    check("Service", &kinds.services, problems);
    check("Pod", &kinds.pods, problems);
    check("EndpointSlice", &kinds.slices, problems);
    check("WorkloadEntry", &kinds.workload_entries, problems);
    check("ServiceEntry", &kinds.service_entries, problems);
    check("VirtualService", &kinds.virtual_services, problems);
    check("DestinationRule", &kinds.destination_rules, problems);
    check("PeerAuthentication", &kinds.peer_authentications, problems);
    check("AuthorizationPolicy", &kinds.authorization_policies, problems);
    check("RequestAuthentication", &kinds.request_authentications, problems);
    check("MeshConfig", &kinds.mesh_configs, problems);
    check("Sidecar", &kinds.sidecars, problems);
    check("RateLimit", &kinds.rate_limits, problems);
}
