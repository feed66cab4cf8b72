//! The corpus by subject.

mod routing;

use crate::harness::{Group, group};

pub(crate) fn groups() -> Vec<Group> {
    vec![group("routing", routing::cases())]
}
