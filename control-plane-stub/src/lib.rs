//! Outrigger's control plane: the operator's YAML in, Envoy's xDS v3 out, identities signed on the way.
//!
//! `model` reads and validates documents into one immutable [`model::World`]; `translate` is a pure function from
//! (world, node) to [`resources::Resources`]; `server` serves them over ADS; `ca` signs; `status` reports.

pub mod model;
pub mod resources;
pub mod translate;
