use serde_json::{Value as Json, json};

use super::*;
use crate::telemetry::access_log::tests::with_facts;

fn lone(op: Operator, max_len: Option<usize>) -> JsonField {
    JsonField::Value(Template { segments: vec![Segment::Op { op, max_len }] })
}

#[test]
fn strings_are_escaped_as_the_library_does() {
    let all: String = (0..0x250).filter_map(char::from_u32).collect();
    for text in ["", "plain", "\"", "a\\b\"", "tail\u{1}", "\u{7f}é\u{2028}😀\n\n", &all] {
        let mut out = String::new();
        string(text, &mut out);
        assert_eq!(out, Json::from(text).to_string());
    }
}

#[test]
fn a_special_byte_is_seen_wherever_it_stands() {
    for length in 1..40 {
        for at in 0..length {
            for byte in 0..=255 {
                let mut bytes = vec![b'x'; length];
                bytes[at] = byte;
                assert_eq!(has_special(&bytes), is_special(byte), "{byte} at {at} of {length}");
            }
        }
    }
    assert!(!has_special(b""));
}

#[test]
fn addresses_are_written_as_the_library_does() {
    for text in ["0.0.0.0:0", "255.10.1.100:65535", "[::1]:80", "[fd00::a:0:1]:1"] {
        let address: SocketAddr = text.parse().unwrap();
        let mut out = String::new();
        push_address(address, &mut out);
        assert_eq!(out, address.to_string());
    }
}

#[test]
fn a_line_is_the_object_that_it_stands_for() {
    let text = |text: &str| Segment::Text(text.into());
    let both = Template { segments: vec![text("\"a\" "), Segment::Op { op: Operator::RouteName, max_len: None }] };
    let inner = vec![("n\"".into(), lone(Operator::BytesSent, None)), ("o".into(), JsonField::Object(Vec::new()))];
    let fields: Vec<(Box<str>, JsonField)> = vec![
        ("flags".into(), lone(Operator::ResponseFlags, None)),
        ("from".into(), lone(Operator::DownstreamRemoteAddress, None)),
        ("inner".into(), JsonField::Object(inner)),
        ("none".into(), lone(Operator::UpstreamLocalAddress, None)),
        ("short".into(), lone(Operator::DownstreamRemoteAddress, Some(4))),
        ("text".into(), JsonField::Value(both)),
        ("to".into(), lone(Operator::DownstreamLocalAddress, None)),
        ("via".into(), lone(Operator::DownstreamDirectRemoteAddress, None)),
    ];
    let mut out = String::new();
    with_facts(|_| {}, |facts| object(&fields, facts, &mut out));
    let wanted = json!({
        "flags": "-",
        "from": "10.0.0.1:1",
        "inner": {"n\"": 4, "o": {}},
        "none": null,
        "short": "10.0",
        "text": "\"a\" -",
        "to": "10.0.0.2:2",
        "via": "10.0.0.1:1",
    });
    assert_eq!(out, wanted.to_string());
}

#[test]
fn the_time_is_written_as_its_format_says() {
    let fields: Vec<(Box<str>, JsonField)> = vec![("t".into(), lone(Operator::StartTime(None), None))];
    for seconds in [0, 1, 59, 1_700_000_000, 1_700_000_000, 4_000_000_000] {
        for nanos in [0, 999_999, 7_000_000, 123_456_789, 999_999_999] {
            let at = std::time::UNIX_EPOCH + std::time::Duration::new(seconds, nanos);
            let mut out = String::new();
            with_facts(|facts| facts.start = at, |facts| object(&fields, facts, &mut out));
            assert_eq!(out, format!("{{\"t\":\"{}\"}}", format_time::format(format_time::DEFAULT, at)));
        }
    }
}
