//! Endpoints.
use super::{at::At, report::Reject};
use crate::ir::endpoint::Assignment;
use outrigger_wire::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
#[derive(Clone, Copy)]
pub(crate) enum Hosts {
    Addresses,
}
pub(crate) fn assignment(_message: &ClusterLoadAssignment, at: &At<'_>, _hosts: Hosts) -> Result<Assignment, Reject> {
    Err(at.reject("unfinished"))
}
