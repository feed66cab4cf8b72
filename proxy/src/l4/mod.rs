//! Moving bytes between two connections.

mod half;
pub mod idle;
pub mod relay;
mod splice;
