//! Printing the well-known types that are not objects of their fields.

use prost::Message as _;
use serde_json::{Map, Value};

use super::{
    print::{Unprintable, deeper, utf8},
    table::Form,
};
use crate::scan::{Content, fields};

/// Seconds of 10,000 years, protobuf's bound.
pub(super) const MAX_DURATION: u64 = 315_576_000_000;
/// 0001-01-01 and 9999-12-31.
pub(super) const TIMESTAMPS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

pub(super) fn print(form: Form, bytes: &[u8], depth: usize) -> Result<Value, Unprintable> {
    match form {
        Form::Struct => object(bytes, depth),
        Form::ListValue => list(bytes, depth),
        Form::Duration => {
            let time = prost_types::Duration::decode(bytes).map_err(|e| e.to_string())?;
            if time.seconds.unsigned_abs() > MAX_DURATION || time.nanos.unsigned_abs() >= 1_000_000_000 {
                return Err("duration out of range".to_owned());
            }
            Ok(time.to_string().into())
        }
        Form::Timestamp => {
            let time = prost_types::Timestamp::decode(bytes).map_err(|e| e.to_string())?;
            if !TIMESTAMPS.contains(&time.seconds) {
                return Err("timestamp out of range".to_owned());
            }
            Ok(time.to_string().into())
        }
        Form::FieldMask => {
            let mask = prost_types::FieldMask::decode(bytes).map_err(|e| e.to_string())?;
            let paths: Option<Vec<_>> = mask.paths.iter().map(|path| camel_case(path)).collect();
            Ok(paths.ok_or("a field mask that JSON cannot express")?.join(",").into())
        }
        _ => value(bytes, depth),
    }
}

fn object(bytes: &[u8], depth: usize) -> Result<Value, Unprintable> {
    let mut out = Map::new();
    for entry in messages(bytes, 1) {
        let (mut name, mut content): (&str, &[u8]) = ("", &[]);
        for part in fields(entry?) {
            let part = part.map_err(|e| e.to_string())?;
            match (part.number, part.content) {
                (1, Content::Bytes(v)) => name = utf8(v)?,
                (2, Content::Bytes(v)) => content = v,
                (1 | 2, _) => return Err("an entry of another wire type".to_owned()),
                _ => {}
            }
        }
        out.insert(name.to_owned(), value(content, deeper(depth)?)?);
    }
    Ok(out.into())
}

fn list(bytes: &[u8], depth: usize) -> Result<Value, Unprintable> {
    let depth = deeper(depth)?;
    messages(bytes, 1).map(|element| value(element?, depth)).collect::<Result<_, _>>().map(Value::Array)
}

/// The content of a `Value`, which is its last field.
fn value(bytes: &[u8], depth: usize) -> Result<Value, Unprintable> {
    let mut out = Value::Null;
    for field in fields(bytes) {
        let field = field.map_err(|e| e.to_string())?;
        out = match (field.number, field.content) {
            (1, Content::Varint(_)) => Value::Null,
            (2, Content::Fixed64(v)) => match f64::from_le_bytes(v) {
                v if v.is_finite() => v.into(),
                _ => return Err("a number that JSON cannot express".to_owned()),
            },
            (3, Content::Bytes(v)) => utf8(v)?.into(),
            (4, Content::Varint(v)) => (v != 0).into(),
            (5, Content::Bytes(v)) => object(v, deeper(depth)?)?,
            (6, Content::Bytes(v)) => list(v, deeper(depth)?)?,
            (1..=6, _) => return Err("a value of another wire type".to_owned()),
            _ => out,
        };
    }
    Ok(out)
}

fn messages(bytes: &[u8], number: u32) -> impl Iterator<Item = Result<&[u8], Unprintable>> {
    fields(bytes).filter_map(move |field| match field {
        Err(e) => Some(Err(e.to_string())),
        Ok(field) if field.number != number => None,
        Ok(field) => match field.content {
            Content::Bytes(bytes) => Some(Ok(bytes)),
            _ => Some(Err("a message of another wire type".to_owned())),
        },
    })
}

fn camel_case(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            'A'..='Z' => return None,
            '_' => out.push(chars.next().filter(char::is_ascii_lowercase)?.to_ascii_uppercase()),
            c => out.push(c),
        }
    }
    Some(out)
}
