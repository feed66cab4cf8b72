//! Moving bytes between two connections.

mod buffers;
mod half;
pub mod relay;
mod splice;
