//! The Outrigger data plane. This file is the map; each room's head comment says what it owns.
#![deny(unsafe_code)]

pub mod drain;
pub mod ir;
pub mod policy;
pub mod settings;
pub mod telemetry;
