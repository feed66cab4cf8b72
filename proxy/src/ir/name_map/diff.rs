//! What differs between two maps, looking only at branches that are not the same object.

use std::sync::Arc;

use super::{
    NameMap,
    node::{Node, Slot},
};
use crate::ir::Name;

/// Called with a name and what stands under it now.
type Each<'a, 'e, T> = dyn FnMut(&'a Name, Option<&'a Arc<T>>) + 'e;

impl<T> NameMap<Arc<T>> {
    /// Calls `each` with every name whose value is not the same object in `after`, and with its value there.
    pub fn differences<'a>(&'a self, after: &'a Self, mut each: impl FnMut(&'a Name, Option<&'a Arc<T>>)) {
        nodes(&self.root, &after.root, &mut each);
    }
}

fn nodes<'a, T>(before: &'a Arc<Node<Arc<T>>>, after: &'a Arc<Node<Arc<T>>>, each: &mut Each<'a, '_, T>) {
    if Arc::ptr_eq(before, after) {
        return;
    }
    let mut left = before.used | after.used;
    while left != 0 {
        let bit = left & left.wrapping_neg();
        left ^= bit;
        slots(before.slot(bit), after.slot(bit), each);
    }
}

fn slots<'a, T>(before: Option<&'a Slot<Arc<T>>>, after: Option<&'a Slot<Arc<T>>>, each: &mut Each<'a, '_, T>) {
    match (before, after) {
        (Some(Slot::Branch(before)), Some(Slot::Branch(after))) => nodes(before, after, each),
        (Some(Slot::Leaf(name, old)), Some(now)) => {
            let mut kept = false;
            leaves(now, &mut |other, value| {
                let same = same(name, other);
                kept |= same;
                if !same || !Arc::ptr_eq(old, value) {
                    each(other, Some(value));
                }
            });
            if !kept {
                each(name, None);
            }
        }
        (Some(was), Some(Slot::Leaf(name, value))) => {
            let mut known = false;
            leaves(was, &mut |other, old| {
                if !same(name, other) {
                    each(other, None);
                } else {
                    known = Arc::ptr_eq(old, value);
                }
            });
            if !known {
                each(name, Some(value));
            }
        }
        (Some(was), None) => leaves(was, &mut |name, _| each(name, None)),
        (None, Some(now)) => leaves(now, &mut |name, value| each(name, Some(value))),
        (None, None) => {}
    }
}

fn same(a: &Name, b: &Name) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

fn leaves<'a, T>(slot: &'a Slot<Arc<T>>, each: &mut dyn FnMut(&'a Name, &'a Arc<T>)) {
    match slot {
        Slot::Leaf(name, value) => each(name, value),
        Slot::Branch(node) => node.slots.iter().for_each(|slot| leaves(slot, each)),
    }
}
