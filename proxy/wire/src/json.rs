//! proto3 JSON mapping (<https://protobuf.dev/programming-guides/json/>) for the messages of `descriptors/`.
//!
//! Unknown fields are refused: an option that is silently dropped is worse than an error. An `Any` of a type that is not
//! in the table becomes an `xds.type.v3.TypedStruct` of that type, for the reader of the message to judge.

mod any;
mod content;
#[cfg(test)]
mod oracle;
mod print;
mod scalar;
mod special;
mod strict;
mod table;
#[cfg(test)]
mod tests;
mod visit;
mod walk;

use prost::Message;
use serde::de::{DeserializeSeed, Deserializer};
use serde_json::Value;

/// Largest YAML or JSON document accepted, in bytes.
pub const MAX_DOCUMENT: usize = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("document of {0} bytes is larger than {MAX_DOCUMENT}")]
    TooLarge(usize),
    #[error("not YAML or JSON: {0}")]
    Syntax(String),
    #[error("type `{0}` is not known here")]
    UnknownType(String),
    /// `path` as field names and indexes from the message down.
    #[error("{path}: {reason}")]
    Field { path: String, reason: String },
    #[error("not a valid {message}: {reason}")]
    Invalid { message: String, reason: String },
}

/// Parses one YAML (or JSON, its subset) document to a JSON value.
pub fn parse(text: &str) -> Result<Value, Error> {
    if text.len() > MAX_DOCUMENT {
        return Err(Error::TooLarge(text.len()));
    }
    // JSON first: it is the stricter and much faster grammar, and every JSON control plane file is JSON.
    if text.trim_start().starts_with('{') {
        match serde_json::from_str(text) {
            Ok(strict::Strict(value)) => return Ok(value),
            // It is JSON, but not of a kind that could be YAML's flow style.
            Err(e) if e.is_data() => return Err(Error::Syntax(e.to_string())),
            Err(_) => {}
        }
    }
    let strict::Strict(value) = serde_saphyr::from_str(text).map_err(|e| Error::Syntax(e.to_string()))?;
    Ok(value)
}

/// Reads one YAML or JSON document as the message `M`, refusing unknown fields.
pub fn read<M: Message + prost::Name + Default>(text: &str) -> Result<M, Error> {
    decode(&read_bytes(&M::full_name(), text)?)
}

/// As [`read`], to the encoding of a message known by its full name.
pub fn read_bytes(full_name: &str, text: &str) -> Result<Vec<u8>, Error> {
    if text.len() > MAX_DOCUMENT {
        return Err(Error::TooLarge(text.len()));
    }
    let message = find(full_name)?;
    if text.trim_start().starts_with('{') {
        let mut document = serde_json::Deserializer::from_str(text);
        if let (Ok(bytes), Ok(())) = (transcode(message, &mut document), document.end()) {
            return Ok(bytes);
        }
    }
    // Also for what is wrong with a JSON document: its grammar is complained about before its content.
    bytes_from_value(full_name, parse(text)?)
}

/// Converts a JSON value to the message `M`, refusing unknown fields.
pub fn from_value<M: Message + prost::Name + Default>(value: Value) -> Result<M, Error> {
    decode(&bytes_from_value(&M::full_name(), value)?)
}

/// As [`from_value`], to the encoding of a message known by its full name.
pub fn bytes_from_value(full_name: &str, value: Value) -> Result<Vec<u8>, Error> {
    transcode(find(full_name)?, value)
}

fn find(full_name: &str) -> Result<table::Message, Error> {
    table::Message::find(full_name).ok_or_else(|| Error::UnknownType(full_name.to_owned()))
}

fn decode<M: Message + prost::Name + Default>(bytes: &[u8]) -> Result<M, Error> {
    M::decode(bytes).map_err(|e| Error::Invalid { message: M::full_name(), reason: e.to_string() })
}

fn transcode<'de, D: Deserializer<'de>>(message: table::Message, document: D) -> Result<Vec<u8>, Error> {
    let mut walk = walk::Walk::default();
    let slot = walk::Slot { number: 0, kind: table::Kind::Message(message), explicit: true };
    match (visit::Single { walk: &mut walk, slot }).deserialize(document) {
        Ok(()) => Ok(walk.finish()),
        Err(e) => Err(walk.error(Error::Invalid { message: message.full_name().to_owned(), reason: e.to_string() })),
    }
}

/// Converts a message to its JSON form with original (snake case) field names, as Envoy's admin interface prints them.
pub fn to_value<M: Message + prost::Name>(message: &M) -> Result<Value, Error> {
    bytes_to_value(&M::full_name(), &message.encode_to_vec())
}

/// As [`to_value`], for encoded bytes of a message known only by its full name (what an `Any` holds).
pub fn bytes_to_value(full_name: &str, bytes: &[u8]) -> Result<Value, Error> {
    print::message(find(full_name)?, bytes, 0)
        .map_err(|reason| Error::Invalid { message: full_name.to_owned(), reason })
}

/// What a field of a message holds, for those who look for a path in its JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// A single message of this type; `google.protobuf.Any` for one of any type.
    Message(&'static str),
    /// Several messages of this type.
    Messages(&'static str),
    /// Scalars, maps.
    Other,
}

/// The field of this name, as the `.proto` file spells it.
pub fn member(message: &str, field: &str) -> Option<Member> {
    let (_, found) = table::Message::find(message)?.key(field.as_bytes())?;
    if found.name() != field {
        return None;
    }
    Some(match (found.kind(), found.shape()) {
        (table::Kind::Message(of), table::Shape::Single | table::Shape::Implicit) => Member::Message(of.full_name()),
        (table::Kind::Message(of), table::Shape::List) => Member::Messages(of.full_name()),
        _ => Member::Other,
    })
}
