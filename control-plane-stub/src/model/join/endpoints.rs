//! Finds the endpoints of a service: by slices, by selector, or as its ServiceEntry lists them.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::zones::Zones;
use crate::model::{
    Problem,
    document::{Meta, Object},
    endpoint_slice::{AddressType, EndpointSlice, SliceEndpoint},
    peer_authentication::subset,
    service::{ServiceSpec, TargetPort, Transport},
    service_entry::ServiceEntry,
    workload::{Address, Locality, Workload},
    world::{Endpoint, EndpointPort, Resolution, Service},
};

pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Whether `slice` holds endpoints of the Service with `meta`.
pub(super) fn belongs(slice: &Object<EndpointSlice>, meta: &Meta) -> bool {
    slice.meta.namespace == meta.namespace && slice.meta.labels.get(SERVICE_NAME) == Some(&meta.name)
}

pub(super) struct Workloads {
    pub all: Vec<Workload>,
    /// Whether the workload at that place is a Pod (else a WorkloadEntry).
    pods: Vec<bool>,
    by_namespace: HashMap<String, Vec<usize>>,
    zones: Zones,
}

impl Workloads {
    pub(super) fn new(workloads: Vec<(Workload, bool)>, zones: Zones) -> Self {
        let mut by_namespace: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, (workload, _)) in workloads.iter().enumerate() {
            by_namespace.entry(workload.namespace.clone()).or_default().push(index);
        }
        let (all, pods) = workloads.into_iter().unzip();
        Self { all, pods, by_namespace, zones }
    }

    fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = (&Workload, bool)> {
        let indexes = self.by_namespace.get(namespace).into_iter().flatten();
        indexes.map(|index| (&self.all[*index], self.pods[*index]))
    }

    /// The workload behind an address of a slice: the Pod that the slice names, else some Pod, as slices list Pods, else a
    /// WorkloadEntry; of equals one that takes traffic.
    fn at(&self, namespace: &str, address: &Address, target: Option<&str>) -> Option<&Workload> {
        let here = self.of_namespace(namespace).filter(|(w, _)| w.addresses.contains(address));
        here.min_by_key(|(w, pod)| (!pod || target != Some(w.name.as_str()), !pod, !w.ready)).map(|(w, _)| w)
    }

    /// Slices, where there are any, say which Pods are ready; WorkloadEntries are in no slice.
    pub(super) fn of_service(
        &self,
        service: &mut Service,
        (spec, slices): (&ServiceSpec, &[&Object<EndpointSlice>]),
        notes: &mut Vec<String>,
        problems: &mut Vec<Problem>,
    ) {
        let endpoints = slices.iter().flat_map(|slice| &slice.spec.endpoints);
        let listed: HashSet<&str> = endpoints.flat_map(|e| &e.addresses).map(String::as_str).collect();
        for slice in slices {
            self.of_slice(service, slice, (spec, &listed), problems);
        }
        if !spec.selector.is_empty() {
            for (workload, pod) in self.of_namespace(&service.namespace) {
                if !subset(&spec.selector, &workload.labels) {
                    continue;
                }
                let ports = spec.ports.iter().filter(|p| service.port(p.port).is_some());
                let target = |p: &crate::model::service::ServicePort| {
                    let number = match (&p.target_port, workload.ports.get(&p.name)) {
                        (_, Some(number)) => *number,
                        (None, None) => p.port,
                        (Some(TargetPort::Number(number)), None) => *number,
                        (Some(TargetPort::Name(name)), None) => {
                            *workload.named_ports.get(name).or_else(|| workload.ports.get(name))?
                        }
                    };
                    Some((p.port, number))
                };
                let ports: BTreeMap<u16, u16> = ports.filter_map(target).collect();
                let numbers: Vec<u16> = ports.values().copied().collect();
                service.behind.extend(workload.addresses.iter().map(|address| (address.clone(), numbers.clone())));
                let ready = workload.ready || spec.publish_not_ready_addresses;
                if !ready || (pod && !slices.is_empty()) {
                    continue;
                }
                let mut workload = workload.clone();
                if pod {
                    workload.addresses = spec.homes(service, &workload.addresses).into_iter().cloned().collect();
                }
                add(&mut service.endpoints, &workload, ports);
            }
        }
        finish(service, notes);
    }

    fn of_slice(
        &self,
        service: &mut Service,
        slice: &Object<EndpointSlice>,
        (spec, listed): (&ServiceSpec, &HashSet<&str>),
        problems: &mut Vec<Problem>,
    ) {
        if slice.spec.address_type == AddressType::Fqdn {
            let reason = "endpoints by name are not supported for a Service: use a ServiceEntry with resolution DNS";
            return problems.push(slice.source.problem("addressType", reason));
        }
        let ports = slice.spec.ports.iter().filter(|p| p.protocol.is_none_or(|t| t == Transport::Tcp));
        let find = |name: &str| service.ports.iter().find(|p| p.name == name || service.ports.len() == 1);
        let ports: Vec<_> = ports.filter_map(|p| Some((find(&p.name)?.number, p.port.filter(|n| *n != 0)?))).collect();
        let numbers: Vec<u16> = ports.iter().map(|(_, number)| *number).collect();
        for (index, endpoint) in slice.spec.endpoints.iter().enumerate() {
            let homes = endpoint.addresses.iter().filter_map(|text| text.parse().ok());
            service.behind.extend(homes.map(|ip| (Address::Ip(ip), numbers.clone())));
            if !(spec.publish_not_ready_addresses || endpoint.conditions.ready.unwrap_or(true)) {
                continue;
            }
            for (place, text) in endpoint.addresses.iter().enumerate() {
                let Ok(ip) = text.parse() else {
                    let path = format!("endpoints[{index}].addresses[{place}]");
                    problems.push(slice.source.problem(path, format!("`{text}` is not an IP address")));
                    continue;
                };
                let address = Address::Ip(ip);
                let target = endpoint.target_ref.as_ref().filter(|t| t.kind == "Pod").map(|t| t.name.as_str());
                let known = self.at(&service.namespace, &address, target).cloned();
                let homes = known.as_ref().map(|pod| spec.homes(service, &pod.addresses)).unwrap_or_default();
                let is_listed = |home: &&Address| home.ip().is_some_and(|ip| listed.contains(&*ip.to_string()));
                if !homes.contains(&&address) && homes.iter().any(is_listed) {
                    // Its other address stands for the Pod.
                    continue;
                }
                let mut workload = known.unwrap_or_else(|| stranger(&service.namespace, endpoint));
                workload.addresses = vec![address];
                workload.hostname = endpoint.hostname.clone().or(workload.hostname);
                if workload.locality == Locality::default() {
                    workload.locality = self.zones.of_node(endpoint.node_name.as_deref());
                }
                if let Some(zone) = &endpoint.zone
                    && *zone != workload.locality.zone
                {
                    workload.locality = self.zones.named(zone);
                }
                add(&mut service.endpoints, &workload, ports.iter().copied().collect());
            }
        }
    }

    /// As the ServiceEntry lists or selects them; a DNS service without any is its own endpoint.
    pub(super) fn of_entry(
        &self,
        service: &mut Service,
        object: &Object<ServiceEntry>,
        notes: &mut Vec<String>,
        problems: &mut Vec<Problem>,
    ) {
        let spec = &object.spec;
        let targets = |workload: &Workload| -> BTreeMap<u16, u16> {
            let target = |p: &crate::model::service::EntryPort| {
                let own = workload.ports.get(&p.name).copied();
                (p.number, own.or(p.target_port).unwrap_or(p.number))
            };
            spec.ports.iter().map(target).collect()
        };
        for (index, entry) in spec.endpoints.iter().enumerate() {
            let path = format!("spec.endpoints[{index}]");
            let names = (object.meta.name.as_str(), object.meta.namespace.as_str());
            if let Some(workload) = entry.workload(names, (&object.source, &path), problems) {
                add(&mut service.endpoints, &workload, targets(&workload));
            }
        }
        if let Some(selector) = &spec.workload_selector {
            for (workload, _) in self.of_namespace(&service.namespace) {
                if workload.ready && subset(&selector.labels, &workload.labels) {
                    add(&mut service.endpoints, workload, targets(workload));
                }
            }
        }
        let by_name = matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
        if by_name && spec.endpoints.is_empty() && spec.workload_selector.is_none() && !service.host.starts_with('*') {
            let ports = spec.ports.iter().map(|p| (p.number, plain(p.target_port.unwrap_or(p.number))));
            service.endpoints.push(Endpoint {
                address: Address::Name(service.host.clone()),
                ports: ports.collect(),
                namespace: service.namespace.clone(),
                service_account: String::new(),
                labels: BTreeMap::new(),
                weight: 1,
                locality: Locality::default(),
                hostname: None,
                workload: String::new(),
            });
        }
        if service.external {
            // Whatever its labels say: an outside service takes no mutual TLS of ours.
            service.endpoints.iter_mut().flat_map(|e| e.ports.values_mut()).for_each(|p| p.mtls = false);
        }
        finish(service, notes);
    }
}

fn plain(number: u16) -> EndpointPort {
    EndpointPort { number, mtls: false }
}

/// A slice may name an address of which no Pod is known: then nothing says that a sidecar is there.
fn stranger(namespace: &str, endpoint: &SliceEndpoint) -> Workload {
    Workload {
        name: String::new(),
        namespace: namespace.to_owned(),
        labels: BTreeMap::new(),
        service_account: String::new(),
        addresses: Vec::new(),
        named_ports: BTreeMap::new(),
        ports: BTreeMap::new(),
        meshed: false,
        ready: true,
        weight: 1,
        locality: Locality::default(),
        hostname: endpoint.hostname.clone(),
    }
}

fn add(endpoints: &mut Vec<Endpoint>, workload: &Workload, ports: BTreeMap<u16, u16>) {
    if ports.is_empty() {
        return;
    }
    let label = |key: &str| workload.labels.get(key).map(String::as_str);
    for address in &workload.addresses {
        let port = |(own, number): (&u16, &u16)| (*own, EndpointPort { number: *number, mtls: workload.meshed });
        endpoints.push(Endpoint {
            address: address.clone(),
            ports: ports.iter().map(port).collect(),
            namespace: workload.namespace.clone(),
            service_account: workload.service_account.clone(),
            labels: workload.labels.clone(),
            weight: workload.weight,
            locality: workload.locality.clone(),
            hostname: workload.hostname.clone(),
            workload: outrigger_wire::naming::workload(&workload.name, &label),
        });
    }
}

fn finish(service: &mut Service, notes: &mut Vec<String>) {
    service.endpoints.sort_by(|a, b| a.address.cmp(&b.address));
    // The same address twice (two slices, a Pod and a WorkloadEntry) would get twice the traffic, and gRPC refuses it.
    service.endpoints.dedup_by(|a, b| a.address == b.address && a.ports == b.ports);
    if service.resolution == Resolution::Endpoints {
        let host = &service.host;
        service.endpoints.retain(|endpoint| match &endpoint.address {
            Address::Ip(_) => true,
            Address::Name(name) => {
                notes.push(format!(
                    "{host}: the endpoint {name} is left out: only a ServiceEntry with resolution DNS resolves names"
                ));
                false
            }
        });
    }
}
