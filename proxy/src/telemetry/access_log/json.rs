//! A line of JSON, written as it is evaluated: no tree of it is ever built.
//!
//! Invariant: the text is what serialising that tree would give, byte for byte.

use std::{fmt::Write, net::SocketAddr};

use crate::{
    ir::format::{JsonField, Operator, Segment, Template},
    telemetry::{
        format::{self, Facts, Value},
        format_time,
    },
};

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;

/// Appends an object.
pub(super) fn object(fields: &[(Box<str>, JsonField)], facts: &Facts<'_>, out: &mut String) {
    out.push('{');
    for (index, (key, field)) in fields.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        string(key, out);
        out.push(':');
        match field {
            JsonField::Object(fields) => object(fields, facts, out),
            JsonField::Value(template) => value(template, facts, out),
        }
    }
    out.push('}');
}

/// A lone operator keeps its type, as Envoy's `json_format` does.
fn value(template: &Template, facts: &Facts<'_>, out: &mut String) {
    let [Segment::Op { op, max_len }] = template.segments.as_slice() else {
        let mut text = String::new();
        format::render(template, facts, "-", &mut text);
        return string(&text, out);
    };
    if max_len.is_none() && written(op, facts, out) {
        return;
    }
    match format::value(op, facts) {
        Value::Absent => out.push_str("null"),
        Value::Number(n) => out.push_str(itoa::Buffer::new().format(n)),
        Value::Text(text) => string(format::truncate(&text, *max_len), out),
        Value::Json(json) => drop(write!(out, "{json}")),
    }
}

/// Writes what would otherwise be made into a text of its own first; whether it is of that kind.
fn written(op: &Operator, facts: &Facts<'_>, out: &mut String) -> bool {
    let address = match op {
        Operator::DownstreamRemoteAddress => facts.remote,
        Operator::DownstreamDirectRemoteAddress => facts.conn.remote,
        Operator::DownstreamLocalAddress => facts.conn.local,
        Operator::UpstreamLocalAddress => match facts.upstream.local {
            Some(address) => address,
            None => return false,
        },
        Operator::StartTime(None) => {
            out.push('"');
            format_time::push_default(facts.start, out);
            out.push('"');
            return true;
        }
        _ => return false,
    };
    out.push('"');
    push_address(address, out);
    out.push('"');
    true
}

fn push_address(address: SocketAddr, out: &mut String) {
    let SocketAddr::V4(v4) = address else {
        let _ = write!(out, "{address}");
        return;
    };
    let mut digits = itoa::Buffer::new();
    for (index, octet) in v4.ip().octets().into_iter().enumerate() {
        if index > 0 {
            out.push('.');
        }
        out.push_str(digits.format(octet));
    }
    out.push(':');
    out.push_str(digits.format(v4.port()));
}

/// Appends a string in its quotes.
fn string(text: &str, out: &mut String) {
    out.push('"');
    if has_special(text.as_bytes()) {
        escaped(text, out)
    } else {
        out.push_str(text)
    }
    out.push('"');
}

fn escaped(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.bytes().position(is_special) {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        // A single byte that is a character of its own.
        match special.as_bytes()[0] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            8 => out.push_str("\\b"),
            12 => out.push_str("\\f"),
            byte => drop(write!(out, "\\u{byte:04x}")),
        }
        rest = &special[1..];
    }
    out.push_str(rest);
}

fn is_special(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

/// Whether any byte is special, eight at a time: nearly no text has any.
fn has_special(bytes: &[u8]) -> bool {
    let (words, _) = bytes.as_chunks::<8>();
    match bytes.last_chunk::<8>() {
        // The last word overlaps the one before.
        Some(last) => words.iter().chain([last]).any(|word| word_has_special(u64::from_le_bytes(*word))),
        None => bytes.iter().any(|byte| is_special(*byte)),
    }
}

fn word_has_special(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let has_zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let has_control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
    (has_control | has_zero(word ^ (ONES * 0x22)) | has_zero(word ^ (ONES * 0x5c))) != 0
}
