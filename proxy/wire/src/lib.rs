//! The wire: Envoy's xDS v3 messages, their proto3 JSON form, and the services Envoy's packages lack.
//!
//! Owns nothing of the product's meaning. `pb` re-exports the generated types; [`json`] maps YAML and JSON
//! to them and back with `Any` expanded by `@type`; [`scan`] finds the fields of an encoded message, [`packed`] keeps one small;
//! [`ca`] is `istio.v1.auth.IstioCertificateService`, [`workload`] SPIFFE's Workload API, [`otlp`] OpenTelemetry's traces. The descriptors behind [`json`] are a table that is read in place.

pub mod ca;
pub mod json;
pub mod naming;
pub mod otlp;
pub mod packed;
pub mod scan;
pub mod workload;

pub use envoy_types::pb;
pub use envoy_types::util::pack_any;
