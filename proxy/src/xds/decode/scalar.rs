//! Scalars.
use super::{at::At, report::Reject};
use outrigger_wire::pb::google::protobuf::Duration as Pb;
use std::time::Duration;
pub(crate) fn duration(d: &Pb, at: &At<'_>) -> Result<Duration, Reject> {
    let seconds = u64::try_from(d.seconds).map_err(|_| at.reject("must not be negative"))?;
    Ok(Duration::new(seconds, 0))
}
