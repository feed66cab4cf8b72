//! Listeners.
use super::{at::At, report::Reject};
use crate::ir::listener::Listener;
use outrigger_wire::pb::envoy::config::listener::v3::Listener as Pb;
pub(crate) fn listener(_message: &Pb, at: &At<'_>) -> Result<Listener, Reject> {
    Err(at.reject("unfinished"))
}
