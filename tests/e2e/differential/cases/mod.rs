//! The corpus by subject.

mod domains;
mod redirects;
mod rewrites;
mod routing;

use crate::harness::{Group, group};

pub(crate) fn groups() -> Vec<Group> {
    vec![
        group("routing", routing::cases()),
        group("domains", domains::cases()),
        group("redirects", redirects::cases()),
        group("rewrites", rewrites::cases()),
    ]
}
