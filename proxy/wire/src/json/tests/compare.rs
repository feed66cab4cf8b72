//! The mapping against `prost-reflect`'s, over documents made from the descriptors: right ones, and spoilt ones.

use prost::Message;
use prost_reflect::{Cardinality, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Number, Value, json};

use super::super::{Error, bytes_from_value, bytes_to_value, oracle, parse, read_bytes, transcode};

/// xorshift: the same documents in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % sides
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len())].clone()
    }
}

/// What an author of hostile documents would put anywhere.
fn odd(dice: &mut Dice) -> Value {
    let numbers = ["0", "-0", "-1", "1.0", "1.5", "1e3", "1e300", "4294967296", "2147483648", "-2147483649", "-0.0"];
    let large = ["9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616", "3e9"];
    let texts = [
        "",
        "x",
        "0",
        "-1",
        "+5",
        "1.5",
        "1e3",
        "nan",
        "Infinity",
        "-inf",
        "18446744073709551615",
        "1s",
        "-1.5s",
        ".5s",
        "1.s",
        "315576000001s",
        "999999999999s",
        "NULL_VALUE",
        "ROUND_ROBIN",
        "eyJ9",
        "YQ==",
        "YQ=",
        "Y-_/",
        "-_8",
        "a.bC,d_e",
        "fooBar",
        "1972-06-30T23:59:60Z",
        "2019-03-26T14:00:00.4999+10:00",
        "2019-03-26t14:00:00z",
        "9999-12-31T23:59:59.9Z",
        "2019-02-30T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "2019-03-26T14:00:00.Z",
        "true",
        "\u{0}\u{1F600}",
    ];
    match dice.roll(9) {
        0 => Value::Null,
        1 => json!(dice.roll(2) == 0),
        2 => serde_json::from_str(dice.pick(&numbers)).unwrap(),
        3 => serde_json::from_str(dice.pick(&large)).unwrap(),
        4..=6 => dice.pick(&texts).into(),
        7 => json!([null, {"a": [1, "b", {}]}]),
        _ => json!({"value": dice.pick(&texts), "@type": "a.b/google.protobuf.Duration"}),
    }
}

fn document(dice: &mut Dice, message: &MessageDescriptor, depth: usize) -> Value {
    match message.full_name() {
        "google.protobuf.Any" => return any(dice, message, depth),
        "google.protobuf.Struct" => return json!({"a": odd(dice), "b": {"c": [odd(dice)]}}),
        "google.protobuf.ListValue" => return json!([odd(dice), [odd(dice)]]),
        "google.protobuf.Value" => return odd(dice),
        "google.protobuf.Duration" => return dice.pick(&["0s", "1.5s", "-0.000000001s", "315576000000s"]).into(),
        "google.protobuf.Timestamp" => return "2019-03-26T14:00:00.4999+10:00".into(),
        "google.protobuf.FieldMask" => return dice.pick(&["", "a.bC,d", "fooBar"]).into(),
        name if name.starts_with("google.protobuf.") && name.ends_with("Value") => {
            return single(dice, &message.get_field(1).unwrap().kind(), depth);
        }
        _ => {}
    }
    let mut out = Map::new();
    let mut taken: Vec<String> = Vec::new();
    for field in message.fields() {
        if dice.roll(6) < 4 || (depth == 0 && matches!(field.kind(), Kind::Message(_))) {
            continue;
        }
        // Mostly one member of a oneof.
        if let Some(oneof) = field.containing_oneof()
            && dice.roll(40) != 0
        {
            if taken.iter().any(|t| t == oneof.name()) {
                continue;
            }
            taken.push(oneof.name().to_owned());
        }
        let name = if dice.roll(2) == 0 { field.name() } else { field.json_name() };
        let content = content(dice, &field, depth.saturating_sub(1));
        out.insert(name.to_owned(), content);
    }
    out.into()
}

fn content(dice: &mut Dice, field: &FieldDescriptor, depth: usize) -> Value {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else { unreachable!() };
        let key = match entry.map_entry_key_field().kind() {
            Kind::String => dice.pick(&["", "a", "a\"b.c"]),
            Kind::Bool => dice.pick(&["true", "false", "1"]),
            _ => dice.pick(&["7", "-7", "x"]),
        };
        return json!({key: single(dice, &entry.map_entry_value_field().kind(), depth)});
    }
    if field.cardinality() == Cardinality::Repeated {
        let count = dice.roll(3);
        return (0..count).map(|_| single(dice, &field.kind(), depth)).collect();
    }
    single(dice, &field.kind(), depth)
}

fn single(dice: &mut Dice, kind: &Kind, depth: usize) -> Value {
    match kind {
        Kind::Message(message) => document(dice, message, depth),
        Kind::Enum(values) => {
            let values: Vec<_> = values.values().collect();
            let value = dice.pick(&values);
            if dice.roll(4) == 0 { value.number().into() } else { value.name().into() }
        }
        Kind::Bool => json!(dice.roll(2) == 0),
        Kind::String => dice.pick(&["", "text", "\u{e9}\n\""]).into(),
        Kind::Bytes => dice.pick(&["", "eyJ9", "YQ", "-_8="]).into(),
        Kind::Double | Kind::Float => dice.pick(&[json!(0), json!(-1.25), json!("1e3"), json!(1e39), json!(-0.0)]),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            dice.pick(&[json!(0), json!(-5), json!(i64::MIN), json!("-9"), json!(9_007_199_254_740_993_i64)])
        }
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => dice.pick(&[json!(0), json!(-5), json!("-9"), json!(2e9)]),
        _ => dice.pick(&[json!(0), json!(5), json!("9"), json!(4_294_967_295_u32), json!(7.0)]),
    }
}

fn any(dice: &mut Dice, like: &MessageDescriptor, depth: usize) -> Value {
    let messages: Vec<_> = like.parent_pool().all_messages().collect();
    let message = dice.pick(&messages);
    let content = document(dice, &message, depth.saturating_sub(1));
    let host = dice.pick(&["type.googleapis.com/", "type.googleapis.com/", "a/b/", "/", ""]);
    let unknown = if dice.roll(8) == 0 { ".Unknown" } else { "" };
    let url = json!(format!("{host}{}{unknown}", message.full_name()));
    let special = message.full_name().starts_with("google.protobuf.");
    let fields = match content {
        Value::Object(fields) if !special => fields,
        content => Map::from_iter([("value".to_owned(), content)]),
    };
    let mut out: Vec<_> = fields.into_iter().collect();
    out.insert(dice.roll(3).min(out.len()), ("@type".to_owned(), url));
    Value::Object(out.into_iter().collect())
}

/// Spoils one place.
fn spoil(dice: &mut Dice, value: &mut Value) {
    match value {
        Value::Object(fields) if !fields.is_empty() && dice.roll(6) != 0 => {
            let keys: Vec<_> = fields.keys().cloned().collect();
            let key = dice.pick(&keys);
            match dice.roll(12) {
                0 => drop(fields.insert(dice.pick(&["nope", "", "[0]", "@type", "value"]).into(), odd(dice))),
                1 => drop(fields.shift_remove(&key)),
                2 => {
                    let value = fields.shift_remove(&key).unwrap();
                    fields.insert(key.to_uppercase(), value);
                }
                _ => spoil(dice, &mut fields[&key]),
            }
        }
        Value::Array(list) if !list.is_empty() && dice.roll(6) != 0 => {
            let index = dice.roll(list.len());
            spoil(dice, &mut list[index]);
        }
        other => *other = odd(dice),
    }
}

/// In one order of fields, whatever the bytes have: `Any`s are opened.
fn canonical(message: &DynamicMessage) -> Result<String, String> {
    oracle::to_value(message).map(sorted).map_err(|e| e.to_string())
}

fn sorted(mut value: Value) -> String {
    value.sort_all_objects();
    value.to_string()
}

const LATE: [&str; 9] = [
    "none of NULL_VALUE",
    "map's keys",
    "lacks a host",
    "base64",
    "must be a duration",
    "must be a time",
    "list of field names",
    "must be a number",
    "which describes messages",
];

fn compare(message: &MessageDescriptor, text: &str) -> bool {
    let name = message.full_name();
    let expected = parse(text).and_then(|value| oracle::from_value(name, value));
    let found = read_bytes(name, text);
    let again = parse(text).and_then(|value| bytes_from_value(name, value));
    match (&found, &again) {
        (Ok(found), Ok(again)) => assert_eq!(found, again, "{name}: {text}"),
        (Err(found), Err(again)) => assert_eq!(found.to_string(), again.to_string(), "{name}: {text}"),
        _ => panic!("{name}: {text}: {found:?} or {again:?}"),
    }
    match (expected, found) {
        (Ok(expected), Ok(found)) => {
            match DynamicMessage::decode(message.clone(), found.as_slice()) {
                Ok(again) => {
                    assert_eq!(canonical(&again), canonical(&expected), "{name}: {text}");
                    // Content nested deeply is printed here, though not there.
                    let Ok(canonical) = canonical(&expected) else { return true };
                    for bytes in [found, expected.encode_to_vec()] {
                        assert_eq!(sorted(bytes_to_value(name, &bytes).unwrap()), canonical, "{name}: {text}");
                    }
                }
                // Nested deeper than a decoder of the whole accepts.
                Err(e) => {
                    let again = DynamicMessage::decode(message.clone(), expected.encode_to_vec().as_slice());
                    assert_eq!(e.to_string(), again.unwrap_err().to_string(), "{name}: {text}");
                }
            }
            true
        }
        // Complaints of prost-reflect have no place.
        (Err(Error::Invalid { .. }), Err(Error::Field { .. } | Error::Invalid { .. })) => false,
        // The oracle has two passes; what only its second one refuses is refused in its place here.
        (Err(_), Err(Error::Field { reason, .. })) if LATE.iter().any(|late| reason.contains(late)) => false,
        (Err(expected), Err(found)) => {
            assert_eq!(found.to_string(), expected.to_string(), "{name}: {text}");
            false
        }
        (expected, found) => panic!("{name}: {text}: {found:?} instead of {expected:?}"),
    }
}

fn run(rounds: u64, spoilt: usize) -> (usize, usize) {
    let pool = oracle::pool();
    let messages: Vec<_> =
        pool.all_messages().filter(|m| !m.is_map_entry() && !m.full_name().starts_with("google.protobuf.")).collect();
    let (mut accepted, mut refused) = (0, 0);
    for seed in 1..=rounds {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let message = dice.pick(&messages);
        let mut value = document(&mut dice, &message, 4);
        (0..spoilt).for_each(|_| spoil(&mut dice, &mut value));
        let empty = "google.protobuf.Empty";
        let text = value.to_string();
        if text.contains(empty) {
            continue;
        }
        if compare(&message, &text) { accepted += 1 } else { refused += 1 }
    }
    (accepted, refused)
}

#[test]
fn documents_mean_what_prost_reflect_says() {
    let (accepted, refused) = run(1500, 0);
    assert!(accepted > 600 && refused > 10, "{accepted} accepted, {refused} refused");
}

#[test]
fn spoilt_documents_are_refused_as_with_prost_reflect() {
    let (accepted, refused) = run(1500, 1);
    assert!(accepted > 100 && refused > 600, "{accepted} accepted, {refused} refused");
}

#[test]
fn spoilt_text_is_refused_as_with_prost_reflect() {
    let message = oracle::pool().get_message_by_name("envoy.config.bootstrap.v3.Bootstrap").unwrap();
    let text = include_str!("bootstrap.json");
    assert!(compare(&message, text));
    let inserts = ["\"", "{", "}", "[", "]", ",", ":", "0", "\\", "\\ud800", "null", "\"id\":\"x\",", " ", "\u{1}"];
    for seed in 1..400 {
        let mut dice = Dice(seed * 0x9e37_79b9);
        let mut spoilt = text.to_owned();
        let at = dice.roll(spoilt.len());
        if dice.roll(3) == 0 {
            spoilt.remove(at);
        } else {
            spoilt.insert_str(at, dice.pick(&inserts))
        }
        compare(&message, &spoilt);
    }
}

#[test]
fn nested_content_is_bounded_alike() {
    let message = oracle::pool().get_message_by_name("envoy.config.core.v3.Metadata").unwrap();
    let other = oracle::pool().get_message_by_name("xds.type.v3.TypedStruct").unwrap();
    for depth in 40..60 {
        for (open, close) in [("{\"a\":", "}"), ("[", "]")] {
            for leaf in ["1", "{}", "[]"] {
                let nested = format!("{}{leaf}{}", open.repeat(depth), close.repeat(depth));
                compare(&message, &format!("{{\"filterMetadata\":{{\"x\":{{\"y\":{nested}}}}}}}"));
                compare(&other, &format!("{{\"value\":{{\"y\":{nested}}}}}"));
            }
        }
    }
}

#[test]
fn an_empty_message_may_be_in_an_any() {
    let text = r#"{"name": "a", "typedConfig": {"@type": "type.googleapis.com/google.protobuf.Empty"}}"#;
    let bytes = read_bytes("envoy.config.core.v3.TypedExtensionConfig", text).unwrap();
    assert!(bytes.ends_with(b"google.protobuf.Empty"));
}

#[test]
fn numbers_beyond_json_are_refused_where_json_ends() {
    // A Value made by hand, not read from a text.
    let number = Number::from_f64(1e39).unwrap();
    let fraction = json!({"defaultValue": {"numerator": number}});
    let message = super::super::find("envoy.config.core.v3.RuntimeFractionalPercent").unwrap();
    assert!(
        matches!(transcode(message, fraction), Err(Error::Field { path, .. }) if path == "default_value.numerator")
    );
}

#[test]
fn hostile_bytes_are_printed_as_by_prost_reflect_or_refused() {
    let message = oracle::pool().get_message_by_name("envoy.config.bootstrap.v3.Bootstrap").unwrap();
    let name = message.full_name();
    let bytes = read_bytes(name, include_str!("bootstrap.json")).unwrap();
    let mut printed = 0;
    for seed in 1..1500 {
        let mut dice = Dice(seed * 0x9e37_79b9);
        let mut spoilt = bytes.clone();
        for _ in 0..=dice.roll(2) {
            let at = dice.roll(spoilt.len());
            match dice.roll(5) {
                0 => spoilt.truncate(at.max(1)),
                1 => spoilt.extend_from_within(at..),
                2 => drop(spoilt.splice(at..at, bytes[..dice.roll(9)].to_vec())),
                _ => spoilt[at] ^= 1 << dice.roll(8),
            }
        }
        let expected = DynamicMessage::decode(message.clone(), spoilt.as_slice()).ok().map(|m| oracle::to_value(&m));
        match (expected, bytes_to_value(name, &spoilt)) {
            (Some(Ok(expected)), Ok(found)) => {
                assert_eq!(sorted(found), sorted(expected));
                printed += 1;
            }
            // Occurrences of a field that count for nothing are not looked at here.
            (None | Some(Err(_)), _) => {}
            (Some(Ok(expected)), Err(e)) => panic!("{e} instead of {expected}"),
        }
    }
    assert!(printed > 100, "{printed}");
}
