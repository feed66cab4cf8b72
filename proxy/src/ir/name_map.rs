//! A map by name of which a changed copy shares all but the changed branch with its original.
//!
//! A trie over the hash of the name: a copy costs one reference count, an insertion the nodes on one path, and the
//! difference of two copies only the branches they do not share. The order is that of the hashes, the same for all maps
//! of the process. Invariant: every branch below the root holds at least two names, so equal maps have equal shapes.

mod diff;
mod iter;
mod node;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

pub use self::iter::Iter;
use self::node::{Node, Path};
use super::Name;

/// The map.
#[derive(Clone)]
pub struct NameMap<V> {
    root: Arc<Node<V>>,
    len: usize,
}

impl<V> Default for NameMap<V> {
    fn default() -> Self {
        Self { root: Arc::default(), len: 0 }
    }
}

impl<V> NameMap<V> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn get(&self, name: &str) -> Option<&V> {
        self.root.get(Path::new(name))
    }

    pub fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// In the order of hashes.
    pub fn iter(&self) -> Iter<'_, V> {
        Iter::new(&self.root, self.len)
    }

    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Name> {
        self.iter().map(|(name, _)| name)
    }

    pub fn values(&self) -> impl ExactSizeIterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// In the order of names, where the outcome depends on an order.
    pub fn sorted(&self) -> Vec<(&Name, &V)> {
        let mut all: Vec<_> = self.iter().collect();
        all.sort_unstable_by_key(|(name, _)| *name);
        all
    }

    /// Whether both are copies of one map and neither was changed since.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.root, &other.root)
    }
}

impl<V: Clone> NameMap<V> {
    /// Returns the value that was there.
    pub fn insert(&mut self, name: Name, value: V) -> Option<V> {
        let old = Node::insert(&mut self.root, 0, name, value);
        self.len += usize::from(old.is_none());
        old
    }

    /// Returns the value that was there.
    pub fn remove(&mut self, name: &str) -> Option<V> {
        // Looking first: a path that is copied for nothing is no longer shared.
        self.get(name)?;
        let old = Node::remove(&mut self.root, Path::new(name));
        self.len -= usize::from(old.is_some());
        old
    }
}

impl<V: Clone> FromIterator<(Name, V)> for NameMap<V> {
    fn from_iter<I: IntoIterator<Item = (Name, V)>>(all: I) -> Self {
        let mut map = Self::default();
        map.extend(all);
        map
    }
}

impl<V: Clone> Extend<(Name, V)> for NameMap<V> {
    fn extend<I: IntoIterator<Item = (Name, V)>>(&mut self, all: I) {
        all.into_iter().for_each(|(name, value)| drop(self.insert(name, value)));
    }
}

impl<'a, V> IntoIterator for &'a NameMap<V> {
    type Item = (&'a Name, &'a V);
    type IntoIter = Iter<'a, V>;

    fn into_iter(self) -> Iter<'a, V> {
        self.iter()
    }
}

#[cfg(test)]
impl<V> std::ops::Index<&str> for NameMap<V> {
    type Output = V;

    fn index(&self, name: &str) -> &V {
        self.get(name).unwrap_or_else(|| panic!("no entry `{name}`"))
    }
}

impl<V: PartialEq> PartialEq for NameMap<V> {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other)
            || self.len == other.len && self.iter().all(|(name, value)| other.get(name).is_some_and(|v| v == value))
    }
}

impl<V: Eq> Eq for NameMap<V> {}

impl<V: fmt::Debug> fmt::Debug for NameMap<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.sorted()).finish()
    }
}
