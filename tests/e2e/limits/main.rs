//! Rate limits in a mesh: the control plane's service behind real Envoys and our own proxies, in memory and in Redis.

#![allow(clippy::unwrap_used)]

mod counts;
mod held;
mod load;
mod shared;
