//! The Outrigger data plane. This file is the map; each room's head comment says what it owns.
#![deny(unsafe_code)]

pub mod admin;
pub mod app;
pub mod bootstrap;
pub mod conn;
pub mod drain;
pub mod ir;
pub mod l4;
pub mod l7;
pub mod live;
pub mod net;
pub mod policy;
pub mod settings;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod worker;
pub mod xds;
