//! Secrets.
use super::{at::At, report::Reject};
use crate::ir::{Name, secret::Secret};
use outrigger_wire::pb::envoy::extensions::transport_sockets::tls::v3::Secret as Pb;
pub(crate) fn secret(_message: &Pb, at: &At<'_>) -> Result<(Name, Secret), Reject> {
    Err(at.reject("unfinished"))
}
