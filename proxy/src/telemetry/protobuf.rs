//! Protobuf messages written by hand, straight into the bytes that are sent: what is exported a thousand times a second
//! is not built as a tree of strings first. Knows nothing of what the fields mean, except for OpenTelemetry's
//! attributes, which all of its signals have in common.

use prost::encoding::{encode_varint, encoded_len_varint};

/// A message being written.
#[derive(Debug, Default)]
pub struct Message(Vec<u8>);

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;

/// `AnyValue`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Any<'a> {
    Text(&'a str),
    Bool(bool),
    Int(i64),
}

impl Any<'_> {
    fn len(&self) -> usize {
        1 + match self {
            Self::Text(text) => encoded_len_varint(text.len() as u64) + text.len(),
            Self::Bool(_) => 1,
            Self::Int(value) => encoded_len_varint(value.cast_unsigned()),
        }
    }
}

impl<'a> From<&'a str> for Any<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl Message {
    fn key(&mut self, field: u64, wire: u64) {
        encode_varint(field << 3 | wire, &mut self.0);
    }

    /// Also an enumeration; zero is what is not there.
    pub fn number(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.key(field, VARINT);
            encode_varint(value, &mut self.0);
        }
    }

    pub fn fixed64(&mut self, field: u64, value: u64) {
        self.key(field, FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A text, bytes, or a message that is there already.
    pub fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, BYTES);
        encode_varint(value.len() as u64, &mut self.0);
        self.0.extend_from_slice(value);
    }

    pub fn text(&mut self, field: u64, value: &str) {
        if !value.is_empty() {
            self.bytes(field, value.as_bytes());
        }
    }

    /// A message inside this one.
    pub fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        self.key(field, BYTES);
        let start = self.0.len();
        write(self);
        // What is inside is short: moving it costs less than asking for its length first.
        let mut length = Vec::with_capacity(10);
        encode_varint((self.0.len() - start) as u64, &mut length);
        self.0.splice(start..start, length);
    }

    /// `AnyValue` in a field.
    pub fn any(&mut self, field: u64, value: Any<'_>) {
        self.key(field, BYTES);
        encode_varint(value.len() as u64, &mut self.0);
        match value {
            Any::Text(text) => self.bytes(1, text.as_bytes()),
            Any::Bool(value) => {
                self.key(2, VARINT);
                self.0.push(u8::from(value));
            }
            Any::Int(value) => {
                self.key(3, VARINT);
                encode_varint(value.cast_unsigned(), &mut self.0);
            }
        }
    }

    /// `KeyValue` in a repeated field.
    pub fn attribute<'v>(&mut self, field: u64, key: &str, value: impl Into<Any<'v>>) {
        let value = value.into();
        let (of_key, of_value) = (key.len(), value.len());
        let length = |n: usize| 1 + encoded_len_varint(n as u64) + n;
        self.key(field, BYTES);
        encode_varint((length(of_key) + length(of_value)) as u64, &mut self.0);
        self.bytes(1, key.as_bytes());
        self.any(2, value);
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use outrigger_wire::pb::opentelemetry::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
    use prost::Message as _;

    use super::*;

    #[test]
    fn what_is_written_is_what_a_decoder_reads() {
        let mut message = Message::default();
        message.text(1, "name");
        message.text(2, "");
        let long = "v".repeat(300);
        let values = [
            ("text", Any::Text("value"), any_value::Value::StringValue("value".into())),
            ("long", Any::Text(&long), any_value::Value::StringValue(long.clone())),
            ("empty", Any::Text(""), any_value::Value::StringValue(String::new())),
            ("yes", Any::Bool(true), any_value::Value::BoolValue(true)),
            ("no", Any::Bool(false), any_value::Value::BoolValue(false)),
            ("number", Any::Int(503), any_value::Value::IntValue(503)),
            ("negative", Any::Int(-1), any_value::Value::IntValue(-1)),
        ];
        for (key, value, _) in &values {
            message.attribute(3, key, *value);
        }
        message.number(4, 7);
        let read = InstrumentationScope::decode(&*message.into_bytes()).unwrap();
        let pair = |key: &str, value| KeyValue {
            key: key.into(),
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        };
        assert_eq!(read.attributes, values.map(|(key, _, value)| pair(key, value)));
        assert_eq!((&*read.name, &*read.version, read.dropped_attributes_count), ("name", "", 7));
    }

    #[test]
    fn a_message_may_hold_others_of_any_length() {
        for length in [0, 1, 127, 128, 20_000] {
            let mut message = Message::default();
            message.message(3, |inner| inner.text(1, &"k".repeat(length)));
            message.number(4, 1);
            let read = InstrumentationScope::decode(&*message.into_bytes()).unwrap();
            assert_eq!((read.attributes[0].key.len(), read.dropped_attributes_count), (length, 1));
        }
    }
}
