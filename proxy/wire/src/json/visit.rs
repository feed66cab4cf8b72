//! The parts of the walk that read: one serde visitor for every kind of place, over any format that describes itself.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{
    content, scalar,
    table::{Field, Form, Key, Kind, Message, Shape},
    walk::{Found, Refused, Slot, Step, Walk},
};

/// What is told to serde, which has no place for the complaint itself.
pub(super) fn refused<E: serde::de::Error>(_: Refused) -> E {
    E::custom("refused")
}

/// The methods of a visitor for what is neither a list nor an object, in terms of `self.scalar(found)`.
macro_rules! visit_scalars {
    ($value:ty) => {
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a value that JSON can express")
        }

        fn visit_bool<E: serde::de::Error>(self, v: bool) -> Result<$value, E> {
            self.scalar(Found::Bool(v)).map_err(refused)
        }

        fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<$value, E> {
            self.scalar(Found::Int(v)).map_err(refused)
        }

        fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<$value, E> {
            self.scalar(Found::Uint(v)).map_err(refused)
        }

        fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<$value, E> {
            self.scalar(Found::Float(v)).map_err(refused)
        }

        fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<$value, E> {
            self.scalar(Found::Text(v)).map_err(refused)
        }

        fn visit_unit<E: serde::de::Error>(self) -> Result<$value, E> {
            self.scalar(Found::Null).map_err(refused)
        }

        fn visit_none<E: serde::de::Error>(self) -> Result<$value, E> {
            self.scalar(Found::Null).map_err(refused)
        }
    };
}
pub(super) use visit_scalars;

/// A value that is not the whole of a list or map field.
pub(super) struct Single<'w> {
    pub(super) walk: &'w mut Walk,
    pub(super) slot: Slot,
}

impl Single<'_> {
    fn scalar(self, found: Found<'_>) -> Result<(), Refused> {
        self.walk.scalar(self.slot, found)
    }
}

impl<'de> DeserializeSeed<'de> for Single<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Single<'_> {
    type Value = ();

    visit_scalars!(());

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<(), A::Error> {
        let Self { walk, slot } = self;
        let form = if let Kind::Message(message) = slot.kind { message.form() } else { Form::Plain };
        if !matches!(form, Form::ListValue | Form::Value) {
            return walk.mismatch(slot.kind, Found::List).map_err(refused);
        }
        let start = walk.open(slot.number);
        match form {
            Form::Value => content::Content { walk, left: content::DEEPEST }.visit_seq(access)?,
            _ => content::elements(walk, access, content::DEEPEST)?,
        }
        walk.close(slot.number, start);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<(), A::Error> {
        let Self { walk, slot } = self;
        let Kind::Message(message) = slot.kind else {
            return walk.mismatch(slot.kind, Found::Object).map_err(refused);
        };
        let start = walk.open(slot.number);
        match message.form() {
            Form::Plain | Form::Reserved => fields(walk, access, message)?,
            Form::Any => super::any::any(walk, access)?,
            Form::Struct => content::members(walk, access, content::DEEPEST)?,
            Form::Value => content::Content { walk, left: content::DEEPEST }.visit_map(access)?,
            _ => return walk.mismatch(slot.kind, Found::Object).map_err(refused),
        }
        walk.close(slot.number, start);
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// An element of a list or map: a [`Single`] one level down.
struct Element<'w>(Single<'w>);

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Single { walk, slot } = self.0;
        walk.enter().map_err(refused)?;
        Single { walk, slot }.deserialize(deserializer)?;
        walk.leave();
        Ok(())
    }
}

/// The fields of a message.
pub(super) fn fields<'de, A: MapAccess<'de>>(walk: &mut Walk, mut access: A, message: Message) -> Result<(), A::Error> {
    let mut seen = [0_u64; 4];
    let mut oneofs: Vec<(u8, Key)> = Vec::new();
    while let Some(found) = access.next_key_seed(KeyOf(message))? {
        let (key, field) = match found {
            Ok(known) => known,
            Err(key) => {
                let refusal = walk.enter().and_then(|()| walk.refuse("unknown field"));
                walk.at(Step::Unknown(key));
                return refusal.map_err(refused);
            }
        };
        let (word, bit) = (usize::from(field.place / 64), 1 << (field.place % 64));
        if seen[word] & bit != 0 {
            let refusal = walk.enter().and_then(|()| walk.refuse("is given twice, in both spellings"));
            walk.at(Step::Field(field.name()));
            return refusal.map_err(refused);
        }
        seen[word] |= bit;
        let oneof = field.oneof();
        let other = oneofs.iter().find(|(index, _)| oneof != 0 && *index == oneof).map(|(_, key)| *key);
        match access.next_value_seed(Value { walk: &mut *walk, field, other }) {
            Ok(present) if present && oneof != 0 => oneofs.push((oneof, key)),
            Ok(_) => {}
            Err(e) => {
                walk.at(if other.is_some() { Step::Key(key) } else { Step::Field(field.name()) });
                return Err(e);
            }
        }
    }
    Ok(())
}

/// Looks a field up by its spelling; a spelling that is none comes back.
struct KeyOf(Message);

impl<'de> DeserializeSeed<'de> for KeyOf {
    type Value = Result<(Key, Field), String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyOf {
    type Value = Result<(Key, Field), String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.key(key.as_bytes()).ok_or_else(|| key.to_owned()))
    }
}

/// The value of a field; gives whether there was one, for null is none.
struct Value<'w> {
    walk: &'w mut Walk,
    field: Field,
    /// Another member of the same oneof that has a value already.
    other: Option<Key>,
}

impl Value<'_> {
    fn slot(&self) -> Slot {
        Slot { number: self.field.number(), kind: self.field.kind(), explicit: self.field.shape() != Shape::Implicit }
    }

    /// Before a value that counts.
    fn begin(&mut self) -> Result<(), Refused> {
        self.walk.enter()?;
        match self.other {
            Some(other) => self.walk.refuse(format!("excludes {:?}, which is given too", other.text())),
            None => Ok(()),
        }
    }

    fn scalar(mut self, found: Found<'_>) -> Result<bool, Refused> {
        // null is "not set", but for `google.protobuf.Value`, where it is a value.
        let is_value = matches!(self.field.kind(), Kind::Message(m) if m.form() == Form::Value);
        if matches!(found, Found::Null) && !is_value {
            return Ok(false);
        }
        self.begin()?;
        match self.field.shape() {
            Shape::List => return self.walk.refuse(format!("must be a list, not {}", found.kind())),
            Shape::Map => return self.walk.refuse(format!("must be an object, not {}", found.kind())),
            Shape::Single | Shape::Implicit => self.walk.scalar(self.slot(), found)?,
        }
        self.walk.leave();
        Ok(true)
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = bool;

    visit_scalars!(bool);

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut access: A) -> Result<bool, A::Error> {
        self.begin().map_err(refused)?;
        let slot = self.slot();
        let walk = self.walk;
        match self.field.shape() {
            Shape::Map => return walk.refuse("must be an object, not a list").map_err(refused),
            Shape::Single | Shape::Implicit => Single { walk: &mut *walk, slot }.visit_seq(access)?,
            Shape::List => {
                for index in 0.. {
                    match access.next_element_seed(Element(Single { walk: &mut *walk, slot })) {
                        Ok(Some(())) => {}
                        Ok(None) => break,
                        Err(e) => {
                            walk.at(Step::Index(index));
                            return Err(e);
                        }
                    }
                }
            }
        }
        walk.leave();
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, access: A) -> Result<bool, A::Error> {
        self.begin().map_err(refused)?;
        let slot = self.slot();
        let walk = self.walk;
        match self.field.shape() {
            Shape::List => return walk.refuse("must be a list, not an object").map_err(refused),
            Shape::Single | Shape::Implicit => Single { walk: &mut *walk, slot }.visit_map(access)?,
            Shape::Map => entries(walk, access, slot)?,
        }
        walk.leave();
        Ok(true)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// The entries of a map field.
fn entries<'de, A: MapAccess<'de>>(walk: &mut Walk, mut access: A, slot: Slot) -> Result<(), A::Error> {
    let part = |number| if let Kind::Message(entry) = slot.kind { entry.field(number) } else { None };
    let (Some(key_field), Some(value_field)) = (part(1), part(2)) else {
        return Err(A::Error::custom("a map has entries"));
    };
    let key_slot = Slot { number: 1, kind: key_field.kind(), explicit: true };
    let value_slot = Slot { number: 2, kind: value_field.kind(), explicit: true };
    let mut names = content::Names::default();
    while let Some(name) = access.next_key::<String>()? {
        let start = walk.open(slot.number);
        let found = match &*name {
            "true" if key_slot.kind == Kind::Bool => Found::Bool(true),
            "false" if key_slot.kind == Kind::Bool => Found::Bool(false),
            name => Found::Text(name),
        };
        let known = match scalar::write(walk, key_slot, found) {
            Some(()) => names.once(walk, &name),
            None => walk.refuse("is not of the type of the map's keys"),
        };
        if let Err(e) = known {
            walk.at(Step::Entry(name));
            return Err(refused(e));
        }
        if let Err(e) = access.next_value_seed(Element(Single { walk: &mut *walk, slot: value_slot })) {
            walk.at(Step::Entry(name));
            return Err(e);
        }
        walk.close(slot.number, start);
        names.put(name);
    }
    Ok(())
}
