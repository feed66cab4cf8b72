//! Istio's standard metrics: who talks to whom, how often, how fast and how well, under Istio's names and labels.
//!
//! [`Mesh`] holds the series of the process, bounded in number; a [`Pair`] is what one worker counts one pair of peers
//! by, its labels written once. Counting a request is a search among the few outcomes a pair has had and six additions.
//! Knows metadata and identities, not connections; what nobody can know honestly is called `unknown`.

mod book;
mod cache;
mod filter;
mod labels;
mod pair;
mod scope;
mod series;
#[cfg(test)]
mod tests;
mod workload;

pub use book::{Bounds, Counts, Mesh};
pub use cache::{Flow, pair, pair_of_host};
pub use labels::{Reporter, escape};
pub use pair::{Pair, TcpConnection};
pub use scope::{Reporting, Scope, only_cluster, principals};
pub use series::{Outcome, Protocol, Sample};
pub use workload::{Service, Workload};
