//! Adaptive concurrency: lets requests in or turns them away, and reports how long they took.

use std::time::Instant;

use super::{Call, Stop};
use crate::{
    l7::{flow::Kept, respond::Reply},
    live::Admitted,
};

impl Kept for Admitted {
    fn end(self: Box<Self>, answered: bool) {
        if answered {
            self.answered(Instant::now(), fastrand::u64(..));
        }
    }
}

impl Call<'_> {
    /// Admits the request to what the filter at this place of the chain guards.
    pub(super) fn admit(&self, place: usize) -> Result<(), Stop> {
        let Some(admission) = self.filters.admission(place) else { return Ok(()) };
        match admission.enter(Instant::now()) {
            Some(admitted) => {
                self.flow.keep(Box::new(admitted));
                Ok(())
            }
            None => Err(Stop::Reply(Box::new(
                Reply::new(admission.config.status, "reached_concurrency_limit").body("reached concurrency limit"),
            ))),
        }
    }
}
