//! Clusters.
use super::{at::At, report::Reject};
use crate::ir::cluster::Cluster;
use outrigger_wire::pb::envoy::config::cluster::v3::Cluster as Pb;
pub(crate) fn cluster(_message: &Pb, at: &At<'_>) -> Result<Cluster, Reject> {
    Err(at.reject("unfinished"))
}
