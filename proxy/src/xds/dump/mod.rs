//! `/config_dump`: what is shown of every resource, in Envoy's shape.
//!
//! Taking a [`Dump`] copies only reference counts; rendering happens on another thread. Bytes that the control plane
//! sent are shown as sent, except that private keys and the like are blanked.

mod mask;
mod redact;
mod render;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use outrigger_wire::packed::Packed;

use super::{
    kind::Kind,
    status::Status,
    store::{Store, Table},
};

/// The query parameters of `/config_dump`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DumpQuery {
    /// `include_eds`.
    pub include_eds: bool,
    /// `resource`: one repeated field, such as `dynamic_active_clusters`, whose elements become the configs.
    pub resource: Option<String>,
    /// `name_regex`.
    pub name_regex: Option<String>,
    /// `mask`: a field mask for every config, or for every element of `resource`.
    pub mask: Option<String>,
}

/// Why a query has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DumpError {
    #[error("{0} not found in config dump")]
    NotFound(String),
    #[error("{0}")]
    Bad(String),
}

/// A moment's picture of the store.
#[derive(Clone, Debug)]
pub struct Dump {
    tables: BTreeMap<Kind, Table>,
    /// Last version per type.
    versions: BTreeMap<Kind, Box<str>>,
    /// Encoded.
    bootstrap: Option<Packed>,
}

impl Dump {
    pub(super) fn of(store: &Store, bootstrap: Option<Packed>, status: &Status) -> Self {
        let tables = Kind::ALL.into_iter().map(|kind| (kind, store.table(kind).clone())).collect();
        let versions = status.kinds.iter().map(|(kind, s)| (*kind, s.version.clone())).collect();
        Self { tables, versions, bootstrap }
    }
}
