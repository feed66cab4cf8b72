//! Bad input from everywhere it can come: files, the control plane, peers. The proxy refuses it by name, everybody else
//! goes on, and memory stays bounded.

#![allow(clippy::unwrap_used)]

mod ads;
mod attacks;
mod bootstraps;
mod certificates;
mod frames;
mod garbage;
mod headers;
mod http2;
mod smuggling;
mod target;
mod xds;
