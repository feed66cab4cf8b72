//! Everything wrong that files, certificates and the network can hold: clear errors or closed connections, no panic,
//! and everybody else served as before.

#![allow(clippy::unwrap_used)]

mod bootstrap;
mod bystander;
mod certificates;
mod connections;
mod garbage;
mod http2;
mod smuggling;
