//! One node: up to 64 slots, those in use packed and told by a bitmap.

use std::{
    hash::{BuildHasher, RandomState},
    mem,
    sync::{Arc, LazyLock},
};

use crate::ir::Name;

const BITS: u32 = 6;
/// Levels that one 64-bit hash decides.
const LEVELS: u32 = 64 / BITS;

/// Fast for the levels that are ever reached, and keyed for names that were made to collide there.
static HASHERS: LazyLock<(foldhash::fast::RandomState, RandomState)> = LazyLock::new(Default::default);

/// The way to a name, from the root down.
#[derive(Clone, Copy)]
pub(super) struct Path<'a> {
    pub(super) name: &'a str,
    hash: u64,
    level: u32,
}

impl<'a> Path<'a> {
    pub(super) fn new(name: &'a str) -> Self {
        Self { name, hash: HASHERS.0.hash_one(name), level: 0 }
    }

    fn at(name: &'a str, level: u32) -> Self {
        let hash = match level / LEVELS {
            0 => HASHERS.0.hash_one(name),
            block => HASHERS.1.hash_one((block, name)),
        };
        Self { name, hash, level }
    }

    fn deeper(self) -> Self {
        let level = self.level + 1;
        if level.is_multiple_of(LEVELS) { Self::at(self.name, level) } else { Self { level, ..self } }
    }

    fn bit(self) -> u64 {
        1 << ((self.hash >> (self.level % LEVELS * BITS)) & 63)
    }
}

#[derive(Clone)]
pub(super) enum Slot<V> {
    Leaf(Name, V),
    Branch(Arc<Node<V>>),
}

#[derive(Clone)]
pub(super) struct Node<V> {
    pub(super) used: u64,
    pub(super) slots: Vec<Slot<V>>,
}

impl<V> Default for Node<V> {
    fn default() -> Self {
        Self { used: 0, slots: Vec::new() }
    }
}

impl<V> Node<V> {
    fn place(&self, bit: u64) -> usize {
        (self.used & (bit - 1)).count_ones() as usize
    }

    pub(super) fn slot(&self, bit: u64) -> Option<&Slot<V>> {
        (self.used & bit != 0).then(|| &self.slots[self.place(bit)])
    }

    pub(super) fn get(&self, mut path: Path<'_>) -> Option<&V> {
        let mut node = self;
        loop {
            match node.slot(path.bit())? {
                Slot::Leaf(name, value) => return (**name == *path.name).then_some(value),
                Slot::Branch(next) => (node, path) = (next, path.deeper()),
            }
        }
    }
}

impl<V: Clone> Node<V> {
    pub(super) fn insert(this: &mut Arc<Self>, level: u32, name: Name, value: V) -> Option<V> {
        let key = Arc::clone(&name);
        Self::put(this, Path::at(&key, level), name, value)
    }

    fn put(this: &mut Arc<Self>, path: Path<'_>, name: Name, value: V) -> Option<V> {
        let node = Arc::make_mut(this);
        let bit = path.bit();
        let place = node.place(bit);
        if node.used & bit == 0 {
            node.slots.reserve_exact(1);
            node.slots.insert(place, Slot::Leaf(name, value));
            node.used |= bit;
            return None;
        }
        let slot = &mut node.slots[place];
        match slot {
            Slot::Branch(next) => Self::put(next, path.deeper(), name, value),
            Slot::Leaf(held, old) if **held == *name => Some(mem::replace(old, value)),
            Slot::Leaf(..) => {
                if let Slot::Leaf(held, old) = mem::replace(slot, Slot::Branch(Arc::default()))
                    && let Slot::Branch(branch) = slot
                {
                    let next = path.deeper();
                    Self::insert(branch, next.level, held, old);
                    Self::put(branch, next, name, value);
                }
                None
            }
        }
    }

    pub(super) fn remove(this: &mut Arc<Self>, path: Path<'_>) -> Option<V> {
        let node = Arc::make_mut(this);
        let bit = path.bit();
        if node.used & bit == 0 {
            return None;
        }
        let place = node.place(bit);
        match &mut node.slots[place] {
            Slot::Leaf(name, _) if **name != *path.name => None,
            Slot::Leaf(..) => {
                node.used &= !bit;
                match node.slots.remove(place) {
                    Slot::Leaf(_, value) => Some(value),
                    Slot::Branch(_) => None,
                }
            }
            Slot::Branch(next) => {
                let old = Self::remove(next, path.deeper());
                if let [Slot::Leaf(name, value)] = &next.slots[..] {
                    node.slots[place] = Slot::Leaf(Arc::clone(name), value.clone());
                }
                old
            }
        }
    }
}
