//! Scalars and the well-known types that are written as text: from their JSON forms to bytes.

use std::str::FromStr;

use base64::{
    DecodeError, Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::{
    special::{MAX_DURATION, TIMESTAMPS},
    table::{Form, Kind},
    walk::{Found, Refused, Slot, Walk},
};

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Writes the field, or nothing if `found` is not of its type.
pub(super) fn write(walk: &mut Walk, slot: Slot, found: Found<'_>) -> Option<()> {
    let (number, explicit) = (slot.number, slot.explicit);
    let mut varint = |value: u64| {
        if explicit || value != 0 {
            walk.head(number, 0);
            walk.varint(value);
        }
    };
    match slot.kind {
        Kind::Bool => match found {
            Found::Bool(v) => varint(v.into()),
            _ => return None,
        },
        Kind::Enum(values) => varint(i64::from(match found {
            Found::Text(name) => values.number(name)?,
            Found::Int(v) if !values.is_null() => i32::try_from(v).ok()?,
            Found::Uint(v) if !values.is_null() => i32::try_from(v).ok()?,
            _ => return None,
        }) as u64),
        Kind::Int32 => varint(i64::from(integer::<i32>(found)?) as u64),
        Kind::Int64 => varint(integer::<i64>(found)? as u64),
        Kind::Uint32 => varint(integer::<u32>(found)?.into()),
        Kind::Uint64 => varint(integer(found)?),
        Kind::Sint32 => {
            let v = integer::<i32>(found)?;
            varint(u64::from(((v << 1) ^ (v >> 31)) as u32));
        }
        Kind::Sint64 => {
            let v = integer::<i64>(found)?;
            varint(((v << 1) ^ (v >> 63)) as u64);
        }
        Kind::Fixed32 => fixed(walk, slot, integer::<u32>(found)?.to_le_bytes()),
        Kind::Sfixed32 => fixed(walk, slot, integer::<i32>(found)?.to_le_bytes()),
        Kind::Fixed64 => fixed(walk, slot, integer::<u64>(found)?.to_le_bytes()),
        Kind::Sfixed64 => fixed(walk, slot, integer::<i64>(found)?.to_le_bytes()),
        Kind::Double => {
            let v: f64 = match found {
                Found::Int(v) => v as f64,
                Found::Uint(v) => v as f64,
                Found::Float(v) => v,
                Found::Text(v) => v.parse().ok()?,
                _ => return None,
            };
            if slot.explicit || v != 0.0 {
                fixed(walk, Slot { explicit: true, ..slot }, v.to_le_bytes());
            }
        }
        Kind::Float => {
            let v: f32 = match found {
                Found::Int(v) => v as f32,
                Found::Uint(v) => v as f32,
                Found::Float(v) if v >= f64::from(f32::MIN) && v <= f64::from(f32::MAX) => v as f32,
                Found::Text(v) => v.parse().ok()?,
                _ => return None,
            };
            if slot.explicit || v != 0.0 {
                fixed(walk, Slot { explicit: true, ..slot }, v.to_le_bytes());
            }
        }
        Kind::String => match found {
            Found::Text("") if !explicit => {}
            Found::Text(v) => walk.bytes(number, v.as_bytes()),
            _ => return None,
        },
        Kind::Bytes => {
            let Found::Text(text) = found else { return None };
            let bytes = decode(text)?;
            if explicit || !bytes.is_empty() {
                walk.bytes(number, &bytes);
            }
        }
        Kind::Message(_) => return None,
    }
    Some(())
}

fn fixed<const N: usize>(walk: &mut Walk, slot: Slot, bytes: [u8; N]) {
    if slot.explicit || bytes != [0; N] {
        walk.head(slot.number, if N == 4 { 5 } else { 1 });
        walk.raw(&bytes);
    }
}

/// A whole number: as such, with an exponent or a fraction of zeros, or quoted.
fn integer<T: FromStr + TryFrom<i64> + TryFrom<u64>>(found: Found<'_>) -> Option<T> {
    match found {
        Found::Int(v) => T::try_from(v).ok(),
        Found::Uint(v) => T::try_from(v).ok(),
        Found::Float(v) if v.fract() == 0.0 => format!("{v:.0}").parse().ok(),
        Found::Text(v) => v.parse().ok(),
        _ => None,
    }
}

/// Either alphabet, with or without padding.
fn decode(text: &str) -> Option<Vec<u8>> {
    match STANDARD.decode(text) {
        Ok(bytes) => Some(bytes),
        Err(DecodeError::InvalidByte(_, b'-' | b'_')) => URL_SAFE.decode(text).ok(),
        Err(_) => None,
    }
}

/// The content of a message whose JSON is text.
pub(super) fn well_known(walk: &mut Walk, form: Form, text: &str) -> Result<(), Refused> {
    match form {
        Form::Duration => match duration(text) {
            Some((seconds, nanos)) => time(walk, seconds, nanos),
            None => {
                let shown = Found::Text(text).shown();
                return walk.refuse(format!("must be a duration in seconds such as \"1.5s\", not {shown}"));
            }
        },
        Form::Timestamp => match timestamp(text) {
            Some((seconds, nanos)) => time(walk, seconds, nanos),
            None => {
                let shown = Found::Text(text).shown();
                return walk.refuse(format!("must be a time such as \"2025-01-31T12:00:00Z\", not {shown}"));
            }
        },
        _ => {
            for path in text.split(',').filter(|path| !path.is_empty()) {
                let Some(path) = snake_case(path) else {
                    return walk.refuse(format!("{} is not a list of field names", Found::Text(text).shown()));
                };
                walk.bytes(1, path.as_bytes());
            }
        }
    }
    Ok(())
}

/// Seconds and nanoseconds, the fields 1 and 2 of both types of time.
fn time(walk: &mut Walk, seconds: i64, nanos: i32) {
    for (number, value) in [(1, seconds), (2, i64::from(nanos))] {
        if value != 0 {
            walk.head(number, 0);
            walk.varint(value as u64);
        }
    }
}

/// protobuf's JSON form: seconds with up to nine decimals and an `s`.
fn duration(text: &str) -> Option<(i64, i32)> {
    let number = text.strip_suffix('s')?;
    let (negative, number) = number.strip_prefix('-').map_or((false, number), |n| (true, n));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |s: &str, most| (1..=most).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole, 12) || !digits(fraction, 9) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let nanos = fraction.parse::<i32>().ok()? * 10_i32.pow(9 - u32::try_from(fraction.len()).ok()?);
    if seconds.unsigned_abs() > MAX_DURATION {
        return None;
    }
    Some(if negative { (-seconds, -nanos) } else { (seconds, nanos) })
}

/// RFC 3339, with upper-case `T` and `Z`.
fn timestamp(text: &str) -> Option<(i64, i32)> {
    let shape = |pattern: &str, text: &[u8]| {
        let fits = |(p, b): (u8, &u8)| if p == b'0' { b.is_ascii_digit() } else { p == *b };
        text.len() == pattern.len() && pattern.bytes().zip(text).all(fits)
    };
    let (date, rest) = text.as_bytes().split_at_checked("0000-00-00T00:00:00".len())?;
    let fraction = match rest.strip_prefix(b".") {
        Some(fraction) => 1 + fraction.iter().take_while(|b| b.is_ascii_digit()).count(),
        None => 0,
    };
    let zone = &rest[fraction..];
    let zoned = zone == b"Z" || shape("+00:00", zone) || shape("-00:00", zone);
    if !shape("0000-00-00T00:00:00", date) || fraction == 1 || !zoned {
        return None;
    }
    let time: prost_types::Timestamp = text.parse().ok()?;
    TIMESTAMPS.contains(&time.seconds).then_some((time.seconds, time.nanos))
}

fn snake_case(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len() + 4);
    for c in path.chars() {
        match c {
            '_' => return None,
            'A'..='Z' => out.extend(['_', c.to_ascii_lowercase()]),
            c => out.push(c),
        }
    }
    Some(out)
}
