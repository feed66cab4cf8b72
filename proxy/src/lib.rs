//! The Outrigger data plane. This file is the map; each room's head comment says what it owns.
#![deny(unsafe_code)]

pub mod ir;
pub mod l7;
pub mod telemetry;
pub mod upstream;
