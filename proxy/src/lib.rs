//! The Outrigger data plane. This file is the map; each room's head comment says what it owns.
#![deny(unsafe_code)]

pub mod bootstrap;
pub mod ir;
pub mod telemetry;
pub mod xds;
