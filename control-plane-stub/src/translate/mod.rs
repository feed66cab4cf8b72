//! From the world to the xDS of one client. Pure: no I/O, no clock; whatever can fail was refused by `model::load`.

use crate::{
    model::World,
    resources::{Node, Resources},
};

/// Generates all resources for `node`.
pub fn translate(_world: &World, _node: &Node) -> Resources {
    Resources::default()
}
