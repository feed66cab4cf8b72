//! Top-level dispatch.
use super::*;
use outrigger_wire::pb::google::protobuf::Any;
pub(crate) fn envelope(any: &Any) -> Result<Envelope<'_>, Reject> {
    Ok(Envelope { name: String::new(), version: String::new(), ttl: None, resource: Some(Cow::Borrowed(any)) })
}
pub(crate) fn resource(_any: &Any, notes: &mut Notes) -> Result<Resource, Reject> {
    at::rooted("", "", notes, |at| Err(at.reject("unfinished")))
}
