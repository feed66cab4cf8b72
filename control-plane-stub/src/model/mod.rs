//! The operator's documents, read and validated.
//!
//! [`load`] turns a directory into one immutable [`World`] or into every [`Problem`] it found: a world with a problem
//! is never served. Knows Kubernetes' and Istio's documents; knows nothing of xDS. Whatever translation could choke on
//! is refused here, so that `translate` cannot fail.

mod access_log;
mod attachment;
mod authorization;
mod check;
mod decode;
mod destination_rule;
mod document;
mod endpoint_slice;
mod files;
mod join;
mod kinds;
mod mesh_config;
mod names;
mod peer_authentication;
mod pod;
mod protocol;
mod rate_limit;
mod re2;
mod request_authentication;
mod scalars;
mod service;
mod service_entry;
mod settings;
mod sidecar;
mod telemetry;
mod virtual_service;
mod workload;
mod world;

use std::{fmt, path::PathBuf};

pub use access_log::{AccessLogEncoding, AccessLogFormat};
pub use attachment::{Attached, Place, TargetRef};
pub use authorization::*;
pub use destination_rule::*;
pub use document::{Meta, Object, Source};
pub use mesh_config::*;
pub(crate) use names::covers;
pub use names::{Host, Visibility};
pub use peer_authentication::{Mode, MutualTls, PeerAuthentication, Policy, Selector};
pub use protocol::{Class, Protocol};
pub use rate_limit::*;
pub use request_authentication::*;
pub use scalars::{HumanDuration, RegexText};
pub use settings::Settings;
pub use sidecar::{EgressHost, EgressListener, EgressPort, IngressEndpoint, IngressListener, OutboundMode, Sidecar};
pub use telemetry::*;
pub use virtual_service::*;
pub use workload::{Address, Locality, Workload};
pub(crate) use workload::{REGION, SUB_ZONE, ZONE};
pub use world::{Cidr, Endpoint, EndpointPort, Port, Resolution, Service, World};

/// Why a load was refused: file, document (counted from 1), path inside the document, reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub file: PathBuf,
    pub document: usize,
    pub path: String,
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: document {}: {}: {}", self.file.display(), self.document, self.path, self.reason)
    }
}

/// Reads every `*.yaml`, `*.yml` and `*.json` below `dir`. All problems are returned, not only the first.
pub fn load(dir: &std::path::Path) -> Result<World, Vec<Problem>> {
    load_with(dir, Settings::default())
}

/// As [`load`], with mesh-wide settings other than the defaults.
pub fn load_with(dir: &std::path::Path, settings: Settings) -> Result<World, Vec<Problem>> {
    let mut problems = Vec::new();
    let documents = files::read(dir, &mut problems);
    let count = documents.len();
    let mut kinds = kinds::Kinds::default();
    for document in documents {
        kinds.add(document, &mut problems);
    }
    let (mut world, declared) = join::join(kinds, settings, &mut problems);
    check::check(&mut world, &declared, &mut problems);
    world.documents = count;
    if problems.is_empty() {
        return Ok(world);
    }
    problems.sort();
    problems.dedup();
    Err(problems)
}

#[cfg(test)]
mod tests;
