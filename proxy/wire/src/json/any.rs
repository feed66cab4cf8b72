//! `google.protobuf.Any`: the fields of the message that `@type` names, beside it.
//!
//! A type that is not in the table becomes a TypedStruct. Whether such an extension may be ignored or has to be refused
//! is for those to say who read the message, with the same table as for extensions from the wire.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapDeserializer,
};
use serde_json::{Map, Value};

use super::{
    content,
    strict::Strict,
    table::{Form, Kind, Message},
    visit::{Single, fields, refused, visit_scalars},
    walk::{Found, Refused, Slot, Step, Walk},
};

const TYPED_STRUCT: &str = "type.googleapis.com/xds.type.v3.TypedStruct";

const NO_TYPE: &str = "\"@type\" is required";

/// The type of the content, its URL being written.
enum Type {
    Known(Message),
    Unknown(String),
}

/// The fields of an `Any`.
pub(super) fn any<'de, A: MapAccess<'de>>(walk: &mut Walk, mut access: A) -> Result<(), A::Error> {
    let first: Option<String> = match access.next_key_seed(IsType)? {
        None => return walk.refuse(NO_TYPE).map_err(refused),
        Some(key) => key,
    };
    let Some(first) = first else {
        let kind = access.next_value_seed(TypeUrl(&mut *walk))?;
        return message(walk, access, kind);
    };
    // `@type` comes later: what is before it has to wait.
    let mut rest = Map::new();
    let Strict(value) = access.next_value()?;
    rest.insert(first, value);
    collect(&mut rest, access)?;
    let Some(url) = rest.shift_remove("@type") else { return walk.refuse(NO_TYPE).map_err(refused) };
    let kind = TypeUrl(&mut *walk).deserialize(url).map_err(A::Error::custom)?;
    message(walk, MapDeserializer::new(rest.into_iter()), kind).map_err(A::Error::custom)
}

fn collect<'de, A: MapAccess<'de>>(map: &mut Map<String, Value>, mut access: A) -> Result<(), A::Error> {
    while let Some(key) = access.next_key::<String>()? {
        let Strict(value) = access.next_value()?;
        if map.insert(key, value).is_some() {
            return Err(A::Error::custom("duplicate key"));
        }
    }
    Ok(())
}

/// The content, from what is beside `@type`.
fn message<'de, A: MapAccess<'de>>(walk: &mut Walk, access: A, kind: Type) -> Result<(), A::Error> {
    let before = walk.position();
    let start = walk.open(2);
    match kind {
        Type::Unknown(url) => {
            walk.bytes(1, url.as_bytes());
            let inner = walk.open(2);
            content::members(walk, access, content::DEEPEST)?;
            walk.close(2, inner);
        }
        Type::Known(message) if message.form() == Form::Plain => fields(walk, access, message)?,
        Type::Known(message) => special(walk, access, message)?,
    }
    walk.close_unless_empty(2, before, start);
    Ok(())
}

/// Types with a JSON form of their own are in the field `value`.
fn special<'de, A: MapAccess<'de>>(walk: &mut Walk, access: A, message: Message) -> Result<(), A::Error> {
    let mut rest = Map::new();
    collect(&mut rest, access)?;
    if message.form() == Form::Reserved {
        let name = message.full_name();
        return walk.refuse(format!("cannot be {name}, which describes messages")).map_err(refused);
    }
    let Some(value) = rest.shift_remove("value").filter(|_| rest.is_empty()) else {
        let name = message.full_name();
        return walk.refuse(format!("must have \"@type\" and \"value\" only, as {name}")).map_err(refused);
    };
    let slot = Slot { number: 0, kind: Kind::Message(message), explicit: true };
    let read = walk.enter().map_err(refused).and_then(|()| Single { walk: &mut *walk, slot }.deserialize(value));
    if let Err(e) = read {
        walk.at(Step::Field("value"));
        return Err(A::Error::custom(e));
    }
    walk.leave();
    Ok(())
}

/// A key that is `@type`, or the one that is not.
struct IsType;

impl<'de> DeserializeSeed<'de> for IsType {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<String>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsType {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Option<String>, E> {
        Ok((key != "@type").then(|| key.to_owned()))
    }
}

/// Writes the type URL.
struct TypeUrl<'w>(&'w mut Walk);

impl TypeUrl<'_> {
    fn scalar(self, found: Found<'_>) -> Result<Type, Refused> {
        let Found::Text(url) = found else { return self.0.refuse(NO_TYPE) };
        let (host, name) = url.rsplit_once('/').map_or((None, url), |(host, name)| (Some(host), name));
        if name.is_empty() {
            return self.0.refuse("\"@type\" is empty");
        }
        let Some(message) = Message::find(name) else {
            self.0.bytes(1, TYPED_STRUCT.as_bytes());
            return Ok(Type::Unknown(url.to_owned()));
        };
        if host.is_none() {
            return self.0.refuse(format!("\"@type\" {url:?} lacks a host: type.googleapis.com/{url}"));
        }
        self.0.bytes(1, url.as_bytes());
        Ok(Type::Known(message))
    }
}

impl<'de> DeserializeSeed<'de> for TypeUrl<'_> {
    type Value = Type;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Type, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TypeUrl<'_> {
    type Value = Type;

    visit_scalars!(Type);

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Type, A::Error> {
        while access.next_element::<IgnoredAny>()?.is_some() {}
        self.scalar(Found::List).map_err(refused)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Type, A::Error> {
        while access.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        self.scalar(Found::Object).map_err(refused)
    }
}
