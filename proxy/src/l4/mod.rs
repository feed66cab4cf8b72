//! Moving bytes between two connections.

pub mod relay;
