//! The way back: from a message's bytes to JSON with original (snake case) field names.
//!
//! Fields come in the order of their numbers. What an `Any` holds must be in the table: content that nobody knows could
//! not be searched for secrets.

use base64::{Engine, engine::general_purpose::STANDARD};
use prost::encoding::decode_varint;
use serde_json::{Map, Value};

use super::{
    special,
    table::{Enum, Field, Form, Kind, Message, Shape},
};
use crate::scan::{Content, fields};

/// Deepest nesting of messages, as in decoders.
const MAX_DEPTH: usize = 100;

/// Why bytes have no JSON form.
pub(super) type Unprintable = String;

/// A message as JSON.
pub(super) fn message(message: Message, bytes: &[u8], depth: usize) -> Result<Value, Unprintable> {
    let depth = deeper(depth)?;
    match message.form() {
        Form::Plain | Form::Reserved => object(message, bytes, depth).map(Value::Object),
        Form::Any => any(bytes, depth),
        Form::Wrapper => {
            let field = message.field(1).ok_or("a wrapper without a field")?;
            let mut value = None;
            for found in fields(bytes) {
                let found = found.map_err(text)?;
                if found.number == 1 {
                    value = Some(scalar(field.kind(), found.content)?);
                }
            }
            let absent = || scalar(field.kind(), zero(field.kind()));
            value.map_or_else(absent, Ok)
        }
        // Bounded by itself, as where a document is read.
        form => special::print(form, bytes, 0),
    }
}

/// One level more, if it is not one too many.
pub(super) fn deeper(depth: usize) -> Result<usize, Unprintable> {
    if depth <= MAX_DEPTH { Ok(depth + 1) } else { Err("nested too deeply".to_owned()) }
}

fn text(error: prost::DecodeError) -> Unprintable {
    error.to_string()
}

/// A field as often as it occurs.
struct Found<'a> {
    field: Field,
    content: Content<'a>,
}

fn object(message: Message, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, Unprintable> {
    let mut found: Vec<Found<'_>> = Vec::new();
    // Of each oneof: its member, and where its occurrences begin; those before are overwritten.
    let mut oneofs: Vec<(u8, Field, usize)> = Vec::new();
    for field in fields(bytes) {
        let part = field.map_err(text)?;
        let Some(field) = message.field(part.number) else { continue };
        if field.oneof() != 0 {
            match oneofs.iter_mut().find(|(oneof, ..)| *oneof == field.oneof()) {
                Some((_, member, _)) if member.place == field.place => {}
                Some(entry) => *entry = (field.oneof(), field, found.len()),
                None => oneofs.push((field.oneof(), field, found.len())),
            }
        }
        found.push(Found { field, content: part.content });
    }
    let mut index = 0;
    found.retain(|f| {
        index += 1;
        let overwritten = |(oneof, member, start): &(u8, Field, usize)| {
            *oneof == f.field.oneof() && (member.place != f.field.place || index <= *start)
        };
        f.field.oneof() == 0 || !oneofs.iter().any(overwritten)
    });
    found.sort_by_key(|f| f.field.place);
    let mut out = Map::new();
    for group in found.chunk_by(|a, b| a.field.place == b.field.place) {
        if let Some(value) = occurrences(group, depth)? {
            out.insert(group[0].field.name().to_owned(), value);
        }
    }
    Ok(out)
}

/// All occurrences of one field; `None` for a default that is the same as absence.
fn occurrences(group: &[Found<'_>], depth: usize) -> Result<Option<Value>, Unprintable> {
    let (Some(first), Some(last)) = (group.first(), group.last()) else { return Ok(None) };
    let kind = first.field.kind();
    match (first.field.shape(), kind) {
        (Shape::Map, Kind::Message(entry)) => entries(entry, group, depth).map(Some),
        (Shape::Map | Shape::List, _) => {
            let mut list = Vec::with_capacity(group.len());
            for found in group {
                match found.content {
                    Content::Bytes(packed) if !matches!(kind, Kind::Message(_) | Kind::String | Kind::Bytes) => {
                        unpack(kind, packed, &mut list)?;
                    }
                    content => list.push(single(kind, content, depth)?),
                }
            }
            Ok((!list.is_empty()).then_some(Value::Array(list)))
        }
        // A message that occurs again is merged into what came before.
        (_, Kind::Message(of)) if group.len() > 1 => {
            let parts: Result<Vec<_>, _> = group.iter().map(|found| delimited(found.content)).collect();
            message(of, &parts?.concat(), depth).map(Some)
        }
        (Shape::Implicit, _) if is_default(last.content) => scalar(kind, last.content).map(|_| None),
        _ => single(kind, last.content, depth).map(Some),
    }
}

fn entries(entry: Message, group: &[Found<'_>], depth: usize) -> Result<Value, Unprintable> {
    let part = |number| entry.field(number).map(Field::kind).ok_or("a map without entries");
    let (key_kind, value_kind) = (part(1)?, part(2)?);
    let mut out = Map::new();
    for found in group {
        let (mut key, mut value) = (zero(key_kind), zero(value_kind));
        for field in fields(delimited(found.content)?) {
            let field = field.map_err(text)?;
            match field.number {
                1 => key = field.content,
                2 => value = field.content,
                _ => {}
            }
        }
        let key = match scalar(key_kind, key)? {
            Value::String(key) => key,
            other => other.to_string(),
        };
        out.insert(key, single(value_kind, value, depth)?);
    }
    Ok(Value::Object(out))
}

fn unpack(kind: Kind, mut packed: &[u8], list: &mut Vec<Value>) -> Result<(), Unprintable> {
    const SHORT: &str = "packed numbers are cut short";
    while !packed.is_empty() {
        let content = match zero(kind) {
            Content::Fixed64(_) => {
                let (bytes, rest) = packed.split_first_chunk().ok_or(SHORT)?;
                packed = rest;
                Content::Fixed64(*bytes)
            }
            Content::Fixed32(_) => {
                let (bytes, rest) = packed.split_first_chunk().ok_or(SHORT)?;
                packed = rest;
                Content::Fixed32(*bytes)
            }
            _ => Content::Varint(decode_varint(&mut packed).map_err(text)?),
        };
        list.push(scalar(kind, content)?);
    }
    Ok(())
}

fn single(kind: Kind, content: Content<'_>, depth: usize) -> Result<Value, Unprintable> {
    match kind {
        Kind::Message(of) => message(of, delimited(content)?, depth),
        kind => scalar(kind, content),
    }
}

fn delimited(content: Content<'_>) -> Result<&[u8], Unprintable> {
    if let Content::Bytes(bytes) = content { Ok(bytes) } else { Err("a message of another wire type".to_owned()) }
}

/// What stands for a value that is not there.
fn zero(kind: Kind) -> Content<'static> {
    match kind {
        Kind::Message(_) | Kind::String | Kind::Bytes => Content::Bytes(&[]),
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Content::Fixed64([0; 8]),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Content::Fixed32([0; 4]),
        _ => Content::Varint(0),
    }
}

fn is_default(content: Content<'_>) -> bool {
    match content {
        Content::Varint(v) => v == 0,
        Content::Bytes(v) => v.is_empty(),
        // Zero with a sign is a zero, and no integer of this form is in use.
        Content::Fixed64(v) => f64::from_le_bytes(v) == 0.0 && v[..7] == [0; 7],
        Content::Fixed32(v) => f32::from_le_bytes(v) == 0.0 && v[..3] == [0; 3],
        Content::Group => false,
    }
}

/// Integers of 64 bits are text, for JSON's numbers are not exact.
fn scalar(kind: Kind, content: Content<'_>) -> Result<Value, Unprintable> {
    Ok(match (kind, content) {
        (Kind::Double, Content::Fixed64(v)) => real(f64::from_le_bytes(v), f64::from_le_bytes(v).into()),
        (Kind::Float, Content::Fixed32(v)) => {
            let v = f32::from_le_bytes(v);
            real(v.into(), v.into())
        }
        (Kind::Int64, Content::Varint(v)) => (v as i64).to_string().into(),
        (Kind::Uint64, Content::Varint(v)) => v.to_string().into(),
        (Kind::Sint64, Content::Varint(v)) => zigzag(v).to_string().into(),
        (Kind::Int32, Content::Varint(v)) => (v as i32).into(),
        (Kind::Uint32, Content::Varint(v)) => (v as u32).into(),
        (Kind::Sint32, Content::Varint(v)) => (zigzag(u64::from(v as u32)) as i32).into(),
        (Kind::Fixed64, Content::Fixed64(v)) => u64::from_le_bytes(v).to_string().into(),
        (Kind::Sfixed64, Content::Fixed64(v)) => i64::from_le_bytes(v).to_string().into(),
        (Kind::Fixed32, Content::Fixed32(v)) => u32::from_le_bytes(v).into(),
        (Kind::Sfixed32, Content::Fixed32(v)) => i32::from_le_bytes(v).into(),
        (Kind::Bool, Content::Varint(v)) => (v != 0).into(),
        (Kind::Enum(of), Content::Varint(v)) => value(of, v as i32),
        (Kind::String, Content::Bytes(v)) => utf8(v)?.into(),
        (Kind::Bytes, Content::Bytes(v)) => STANDARD.encode(v).into(),
        _ => return Err("a field of another wire type".to_owned()),
    })
}

pub(super) fn utf8(bytes: &[u8]) -> Result<&str, Unprintable> {
    std::str::from_utf8(bytes).map_err(|_| "text that is not UTF-8".to_owned())
}

fn zigzag(v: u64) -> i64 {
    ((v >> 1) as i64) ^ -((v & 1) as i64)
}

fn real(wide: f64, finite: Value) -> Value {
    match wide {
        _ if wide.is_finite() => finite,
        _ if wide.is_nan() => "NaN".into(),
        _ if wide > 0.0 => "Infinity".into(),
        _ => "-Infinity".into(),
    }
}

fn value(of: Enum, number: i32) -> Value {
    match of.name(number) {
        _ if of.is_null() => Value::Null,
        Some(name) => name.into(),
        None => number.into(),
    }
}

fn any(bytes: &[u8], depth: usize) -> Result<Value, Unprintable> {
    let (mut url, mut content): (&str, &[u8]) = ("", &[]);
    for field in fields(bytes) {
        let field = field.map_err(text)?;
        match (field.number, field.content) {
            (1, Content::Bytes(v)) => url = utf8(v)?,
            (2, Content::Bytes(v)) => content = v,
            (1 | 2, _) => return Err("a field of another wire type".to_owned()),
            _ => {}
        }
    }
    let (_, name) = url.rsplit_once('/').ok_or_else(|| format!("type URL {url:?} lacks a host"))?;
    let of = Message::find(name).ok_or_else(|| format!("message '{name}' not found"))?;
    let mut out = Map::from_iter([("@type".to_owned(), Value::from(url))]);
    match of.form() {
        Form::Plain | Form::Reserved => out.append(&mut object(of, content, deeper(depth)?)?),
        _ => drop(out.insert("value".to_owned(), message(of, content, depth)?)),
    }
    Ok(Value::Object(out))
}
