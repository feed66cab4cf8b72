//! What differs between two snapshots, found by walking both in order: unchanged resources are the same `Arc`s.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use crate::ir::Name;

/// Calls `each` with every name whose value is not the same object in both maps, and with its value in `after`.
pub fn differences<'a, T>(
    before: &'a BTreeMap<Name, Arc<T>>,
    after: &'a BTreeMap<Name, Arc<T>>,
    mut each: impl FnMut(&'a Name, Option<&'a Arc<T>>),
) {
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (Some((a, _)), Some((b, _))) if Arc::ptr_eq(a, b) => Ordering::Equal,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return,
        };
        let was = if order.is_le() { old.next() } else { None };
        let is = if order.is_ge() { new.next() } else { None };
        match (was, is) {
            (Some((_, was)), Some((_, is))) if Arc::ptr_eq(was, is) => {}
            (_, Some((name, is))) => each(name, Some(is)),
            (Some((name, _)), None) => each(name, None),
            (None, None) => return,
        }
    }
}
