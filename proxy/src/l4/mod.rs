//! Moving bytes between two connections.

mod half;
pub mod relay;
mod splice;
