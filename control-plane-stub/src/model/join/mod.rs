//! Joins the documents: selectors find workloads, names become absolute, duplicates are refused.

mod endpoints;

use std::collections::{BTreeMap, HashMap};

use self::endpoints::Workloads;
use super::{
    Problem,
    document::Object,
    kinds::Kinds,
    names::{self, Visibility},
    pod, service, service_entry,
    settings::Settings,
    workload::{Address, Workload},
    world::{Service, World},
};

pub(super) fn join(kinds: Kinds, settings: Settings, problems: &mut Vec<Problem>) -> World {
    duplicates(&kinds, problems);
    let mut world = World { settings, ..World::default() };
    for (kind, count) in &kinds.ignored {
        world.notes.push(format!("{count} documents of kind {kind} do not concern the mesh and were passed over"));
    }
    let workloads = Workloads::new(workloads(&kinds, problems));
    services(&kinds, &workloads, &mut world, problems);
    world.workloads = workloads.all;
    world.by_address = HashMap::new();
    for (index, workload) in world.workloads.iter().enumerate() {
        for ip in workload.addresses.iter().filter_map(Address::ip) {
            world.by_address.entry(ip).or_default().push(index);
        }
    }
    world.peer_authentications = sorted(kinds.peer_authentications);
    decide_mtls(&mut world);
    routes(kinds.virtual_services, &mut world, problems);
    rules(kinds.destination_rules, &mut world, problems);
    world.index();
    world
}

fn sorted<T>(mut objects: Vec<Object<T>>) -> Vec<Object<T>> {
    objects.sort_by(|a, b| (&a.meta.namespace, &a.meta.name).cmp(&(&b.meta.namespace, &b.meta.name)));
    objects
}

fn workloads(kinds: &Kinds, problems: &mut Vec<Problem>) -> Vec<(Workload, bool)> {
    let mut all = Vec::new();
    for object in &kinds.pods {
        all.extend(pod::workload(object, problems).map(|workload| (workload, true)));
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
            let reason = format!("there is no Service {name} in namespace {}", slice.meta.namespace);
            let path = format!("metadata.labels.{}", endpoints::SERVICE_NAME);
            problems.push(slice.source.problem(path, reason));
        }
    }
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

fn routes(objects: Vec<Object<super::VirtualService>>, world: &mut World, problems: &mut Vec<Problem>) {
    for mut object in sorted(objects) {
        let namespace = object.meta.namespace.clone();
        let absolute = |host: &mut String| *host = names::absolute(host, &namespace, &world.settings);
        let spec = &mut object.spec;
        spec.hosts.iter_mut().for_each(absolute);
        let l4 = spec.tcp.iter_mut().map(|r| &mut r.route).chain(spec.tls.iter_mut().map(|r| &mut r.route));
        l4.flatten().for_each(|r| absolute(&mut r.destination.host));
        spec.http.iter_mut().flat_map(|r| &mut r.route).for_each(|r| absolute(&mut r.destination.host));
        let seen = visibility(Visibility::new(&spec.export_to, &namespace), &object.source, problems);
        if !super::virtual_service::for_mesh(&spec.gateways) {
            let gateways = spec.gateways.join(", ");
            let name = &object.meta.name;
            world
                .notes
                .push(format!("VirtualService {namespace}/{name} is for gateways ({gateways}), not for sidecars"));
        }
        world.virtual_services.push((seen, object));
    }
}

fn rules(objects: Vec<Object<super::DestinationRule>>, world: &mut World, problems: &mut Vec<Problem>) {
    for mut object in sorted(objects) {
        object.spec.host = names::absolute(&object.spec.host, &object.meta.namespace, &world.settings);
        let seen = Visibility::new(&object.spec.export_to, &object.meta.namespace);
        let seen = visibility(seen, &object.source, problems);
        world.destination_rules.push((seen, object));
    }
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
}
