//! Makes the table from the descriptor pool, and proves that the one in use is what the pool says.

use std::collections::HashMap;

use prost_reflect::{Cardinality, EnumDescriptor, Kind, MessageDescriptor};

use crate::json::oracle::pool;

/// Set to write the table instead of comparing it, as `descriptors/rebuild` does.
const WRITE: &str = "OUTRIGGER_WRITE_TABLE";

#[derive(Default)]
struct Names {
    pool: Vec<u8>,
    places: HashMap<String, u32>,
}

impl Names {
    /// Place and length of a name.
    fn put(&mut self, out: &mut Vec<u8>, name: &str) {
        let place = *self.places.entry(name.to_owned()).or_insert_with(|| {
            let place = u32::try_from(self.pool.len()).unwrap();
            self.pool.extend_from_slice(name.as_bytes());
            place
        });
        out.extend_from_slice(&place.to_le_bytes());
        out.push(name.len().try_into().expect("names are short"));
    }
}

fn half(value: usize) -> [u8; 2] {
    u16::try_from(value).expect("the sections are small").to_le_bytes()
}

fn form(name: &str) -> u8 {
    match name {
        "google.protobuf.Empty" => 0,
        "google.protobuf.Any" => 1,
        "google.protobuf.Struct" => 2,
        "google.protobuf.ListValue" => 3,
        "google.protobuf.Value" => 4,
        "google.protobuf.Duration" => 5,
        "google.protobuf.Timestamp" => 6,
        "google.protobuf.FieldMask" => 7,
        name if name.strip_prefix("google.protobuf.").is_some_and(|n| n.ends_with("Value")) => 8,
        name if name.starts_with("google.protobuf.") => 9,
        _ => 0,
    }
}

fn kind(kind: &Kind, messages: &[MessageDescriptor], enums: &[EnumDescriptor]) -> (u8, usize) {
    let index_of = |m: &MessageDescriptor| messages.iter().position(|other| other == m).unwrap();
    match kind {
        Kind::Double => (1, 0),
        Kind::Float => (2, 0),
        Kind::Int64 => (3, 0),
        Kind::Uint64 => (4, 0),
        Kind::Int32 => (5, 0),
        Kind::Fixed64 => (6, 0),
        Kind::Fixed32 => (7, 0),
        Kind::Bool => (8, 0),
        Kind::String => (9, 0),
        Kind::Message(m) => (11, index_of(m)),
        Kind::Bytes => (12, 0),
        Kind::Uint32 => (13, 0),
        Kind::Enum(e) => (14, enums.iter().position(|other| other == e).unwrap()),
        Kind::Sfixed32 => (15, 0),
        Kind::Sfixed64 => (16, 0),
        Kind::Sint32 => (17, 0),
        Kind::Sint64 => (18, 0),
    }
}

fn packed() -> Vec<u8> {
    let pool = pool();
    let mut messages: Vec<_> = pool.all_messages().collect();
    messages.sort_by(|a, b| a.full_name().as_bytes().cmp(b.full_name().as_bytes()));
    let enums: Vec<_> = pool.all_enums().collect();
    let mut sections: [Vec<u8>; 5] = Default::default();
    let mut names = Names::default();
    for message in &messages {
        let mut fields: Vec<_> = message.fields().collect();
        fields.sort_by_key(prost_reflect::FieldDescriptor::number);
        let mut keys: Vec<(String, usize)> = Vec::new();
        let (first_field, first_key) = (sections[2].len() / 14, sections[1].len() / 6);
        for (place, field) in fields.iter().enumerate() {
            assert!(!field.is_group(), "groups have no place in the table");
            keys.push((field.name().to_owned(), place));
            keys.push((field.json_name().to_owned(), place));
            let (kind, of) = kind(&field.kind(), &messages, &enums);
            let oneof = field
                .containing_oneof()
                .map_or(0, |oneof| 1 + message.oneofs().position(|other| other == oneof).unwrap());
            let out = &mut sections[2];
            names.put(out, field.name());
            out.push(kind);
            out.extend_from_slice(&field.number().to_le_bytes());
            out.extend_from_slice(&half(of));
            out.push(oneof.try_into().unwrap());
            out.push(match field.cardinality() {
                _ if field.is_map() => 3,
                Cardinality::Repeated => 2,
                _ => u8::from(!field.supports_presence()),
            });
        }
        keys.sort();
        keys.dedup();
        assert!(
            keys.windows(2).all(|pair| pair[0].0 != pair[1].0),
            "{}: one spelling, two fields",
            message.full_name()
        );
        for (spelling, place) in &keys {
            names.put(&mut sections[1], spelling);
            sections[1].push((*place).try_into().unwrap());
        }
        let out = &mut sections[0];
        names.put(out, message.full_name());
        out.push(form(message.full_name()));
        out.extend_from_slice(&half(first_field));
        out.push(fields.len().try_into().unwrap());
        out.push(keys.len().try_into().unwrap());
        out.extend_from_slice(&half(first_key));
    }
    for descriptor in &enums {
        let first = sections[4].len() / 9;
        for value in descriptor.values() {
            names.put(&mut sections[4], value.name());
            sections[4].extend_from_slice(&value.number().to_le_bytes());
        }
        let out = &mut sections[3];
        out.extend_from_slice(&half(first));
        out.extend_from_slice(&half(descriptor.values().len()));
        out.push(u8::from(descriptor.full_name() == "google.protobuf.NullValue"));
    }
    let mut out = Vec::new();
    let sections = sections.into_iter().chain([names.pool]);
    let sections: Vec<_> = sections.zip(super::RECORDS).collect();
    for (section, size) in &sections {
        out.extend_from_slice(&u32::try_from(section.len() / size).unwrap().to_le_bytes());
    }
    sections.into_iter().for_each(|(section, _)| out.extend(section));
    out
}

#[test]
fn the_table_is_made_from_the_descriptors() {
    let packed = packed();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/descriptors/envoy.table"), packed).unwrap();
    } else {
        assert!(packed == super::BYTES, "stale: run descriptors/rebuild");
    }
}
