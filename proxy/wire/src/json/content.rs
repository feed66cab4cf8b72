//! `google.protobuf.Struct`, `ListValue` and `Value`: JSON inside JSON.

use std::{collections::HashSet, fmt};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{
    visit::{refused, visit_scalars},
    walk::{Found, Refused, Walk},
};

/// Messages inside one another that a decoder accepts: an object or a list in another takes two.
pub(super) const DEEPEST: usize = 100;

/// The keys of an object so far.
#[derive(Default)]
pub(super) struct Names(HashSet<String>);

impl Names {
    /// Refuses a key that was there before.
    pub(super) fn once(&self, walk: &mut Walk, name: &str) -> Result<(), Refused> {
        if self.0.contains(name) { walk.refuse(format!("duplicate key {name:?}")) } else { Ok(()) }
    }

    pub(super) fn put(&mut self, name: String) {
        self.0.insert(name);
    }
}

/// The fields of a `Struct`.
pub(super) fn members<'de, A: MapAccess<'de>>(walk: &mut Walk, mut access: A, left: usize) -> Result<(), A::Error> {
    let mut names = Names::default();
    while let Some(name) = access.next_key::<String>()? {
        names.once(walk, &name).map_err(refused)?;
        let start = walk.open(1);
        walk.bytes(1, name.as_bytes());
        access.next_value_seed(Inner { walk: &mut *walk, number: 2, left })?;
        walk.close(1, start);
        names.put(name);
    }
    Ok(())
}

/// The fields of a `ListValue`.
pub(super) fn elements<'de, A: SeqAccess<'de>>(walk: &mut Walk, mut access: A, left: usize) -> Result<(), A::Error> {
    while access.next_element_seed(Inner { walk: &mut *walk, number: 1, left })?.is_some() {}
    Ok(())
}

/// One level down, or a complaint.
fn down(walk: &mut Walk, left: usize) -> Result<usize, Refused> {
    match left.checked_sub(1) {
        Some(left) => Ok(left),
        None => walk.refuse("is nested too deeply"),
    }
}

/// A `Value` in a field of its own.
struct Inner<'w> {
    walk: &'w mut Walk,
    number: u32,
    left: usize,
}

impl<'de> DeserializeSeed<'de> for Inner<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Self { walk, number, left } = self;
        let left = down(walk, left).map_err(refused)?;
        let start = walk.open(number);
        deserializer.deserialize_any(Content { walk: &mut *walk, left })?;
        walk.close(number, start);
        Ok(())
    }
}

/// What a `Value` consists of.
pub(super) struct Content<'w> {
    pub(super) walk: &'w mut Walk,
    pub(super) left: usize,
}

impl Content<'_> {
    fn scalar(self, found: Found<'_>) -> Result<(), Refused> {
        self.walk.value(found)
    }
}

impl<'de> Visitor<'de> for Content<'_> {
    type Value = ();

    visit_scalars!(());

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<(), A::Error> {
        let left = down(self.walk, self.left).map_err(refused)?;
        let start = self.walk.open(6);
        elements(self.walk, access, left)?;
        self.walk.close(6, start);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<(), A::Error> {
        let left = down(self.walk, self.left).map_err(refused)?;
        let start = self.walk.open(5);
        members(self.walk, access, left)?;
        self.walk.close(5, start);
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}
