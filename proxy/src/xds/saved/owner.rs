//! For whom a kept configuration is: the node as it introduces itself, whom it asks, and who it is itself.
//!
//! Another answer to any of these is another configuration, however alike the names are. Pure.

use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};

use super::super::{config::StartConfig, decode::metadata::object};
use crate::ir::{
    ConfigSource,
    cluster::Cluster,
    secret::{CommonTls, DataSource, ValidationSource},
};

/// The node a file is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::xds) struct Owner {
    pub(in crate::xds) id: String,
    pub(in crate::xds) cluster: String,
    /// Of all else that tells it apart.
    pub(in crate::xds) digest: Vec<u8>,
}

impl Owner {
    pub(super) fn new(config: &StartConfig) -> Self {
        let node = &config.node;
        let mut text = String::new();
        // A `String` takes everything.
        let mut add = |part: &dyn std::fmt::Debug| {
            let _ = writeln!(text, "{part:?}");
        };
        add(&node.metadata.as_ref().map(object));
        add(&node.locality.as_ref().map(|l| (&l.region, &l.zone, &l.sub_zone)));
        add(&(&config.lds, &config.cds));
        let mut asked = Vec::new();
        if let Some(ads) = &config.ads {
            // The metadata of the stream may be a token that changes.
            add(&(&ads.cluster, &ads.authority));
            asked.push(&ads.cluster);
        }
        for source in config.lds.iter().chain(&config.cds) {
            if let ConfigSource::Grpc { cluster, .. } = source {
                asked.push(cluster);
            }
        }
        if let Some(identity) = &config.identity {
            add(&(&identity.ca_cluster, &identity.token_file, &identity.root_file, &identity.spiffe_id));
            asked.push(&identity.ca_cluster);
        }
        add(&config.workload_api);
        for name in asked {
            let cluster = config.statics.clusters.iter().find(|cluster| cluster.name == *name);
            add(&cluster.map(|cluster| (&cluster.discovery, &cluster.tls, roots(cluster))));
        }
        let digest = digest(&SHA256, text.as_bytes()).as_ref().to_vec();
        Self { id: node.id.clone(), cluster: node.cluster.clone(), digest }
    }
}

/// Trust anchors given as bytes: those are not shown otherwise.
fn roots(cluster: &Cluster) -> Option<&[u8]> {
    let CommonTls { validation, .. } = &cluster.tls.as_ref()?.common;
    let validation = match validation {
        ValidationSource::Static(validation) | ValidationSource::Combined { default: validation, .. } => validation,
        ValidationSource::None | ValidationSource::Sds(_) => return None,
    };
    match validation.trusted_ca.as_ref()? {
        DataSource::Inline(bytes) => Some(bytes),
        DataSource::File(_) => None,
    }
}
