//! Network filters before the terminal one of a filter chain.

use std::sync::Arc;

use super::{Name, rbac::NetworkRbac};

/// One network filter. Those that do nothing on the data path are not here: the decoder warns about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkFilter {
    pub name: Name,
    pub kind: NetworkFilterKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkFilterKind {
    Rbac(Arc<NetworkRbac>),
}
