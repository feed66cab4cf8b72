//! The Outrigger data plane. This file is the map; each room's head comment says what it owns.
#![deny(unsafe_code)]

pub mod ir;
pub mod l4;
pub mod l7;
pub mod net;
pub mod policy;
pub mod telemetry;
pub mod tls;
pub mod upstream;
