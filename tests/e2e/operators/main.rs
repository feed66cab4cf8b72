//! What people and their tools see of a running proxy: the admin interface beside Envoy's, the page in a real browser,
//! and `outriggerctl`.

#![allow(clippy::unwrap_used)]

mod beside_envoy;
mod rig;
mod tools;
