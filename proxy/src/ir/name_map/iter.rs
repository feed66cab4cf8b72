//! All entries, depth first.

use std::slice;

use super::node::{Node, Slot};
use crate::ir::Name;

/// Entries in the order of hashes.
pub struct Iter<'a, V> {
    stack: Vec<slice::Iter<'a, Slot<V>>>,
    left: usize,
}

impl<'a, V> Iter<'a, V> {
    pub(super) fn new(root: &'a Node<V>, len: usize) -> Self {
        Self { stack: vec![root.slots.iter()], left: len }
    }
}

impl<'a, V> Iterator for Iter<'a, V> {
    type Item = (&'a Name, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.stack.last_mut()?.next() {
                Some(Slot::Leaf(name, value)) => {
                    self.left = self.left.saturating_sub(1);
                    return Some((name, value));
                }
                Some(Slot::Branch(node)) => self.stack.push(node.slots.iter()),
                None => drop(self.stack.pop()),
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<V> ExactSizeIterator for Iter<'_, V> {}
