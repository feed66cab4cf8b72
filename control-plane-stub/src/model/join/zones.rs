//! Where Nodes are, and which region a zone is in.

use std::collections::HashMap;

use crate::model::{document::Object, pod::Node, workload::Locality};

/// Localities by Node and by zone.
pub(super) struct Zones {
    nodes: HashMap<String, Locality>,
    regions: HashMap<String, String>,
}

impl Zones {
    pub(super) fn new(nodes: Vec<Object<Node>>) -> Self {
        let nodes: HashMap<String, Locality> =
            nodes.into_iter().map(|node| (node.meta.name, Locality::of_labels(&node.meta.labels))).collect();
        let known = nodes.values().filter(|locality| !locality.zone.is_empty());
        let regions = known.map(|locality| (locality.zone.clone(), locality.region.clone())).collect();
        Self { nodes, regions }
    }

    pub(super) fn of_node(&self, name: Option<&str>) -> Locality {
        name.and_then(|name| self.nodes.get(name)).cloned().unwrap_or_default()
    }

    /// The zone by its name, in the region where some Node of that zone is.
    pub(super) fn named(&self, zone: &str) -> Locality {
        let region = self.regions.get(zone).cloned().unwrap_or_default();
        Locality { region, zone: zone.to_owned(), sub_zone: String::new() }
    }
}
