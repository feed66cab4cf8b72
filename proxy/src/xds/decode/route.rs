//! Routes.
use super::{at::At, report::Reject};
use crate::ir::route::RouteConfiguration;
use outrigger_wire::pb::envoy::config::route::v3::RouteConfiguration as Pb;
pub(crate) fn route_configuration(_message: &Pb, at: &At<'_>) -> Result<RouteConfiguration, Reject> {
    Err(at.reject("unfinished"))
}
