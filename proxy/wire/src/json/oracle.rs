//! The same mapping by way of `prost-reflect`: what tests compare the mapping in use with.
//!
//! Slow, but another's implementation of protobuf. A walk over the document comes first, so that complaints have paths.

use std::{fmt::Write, io::Read, sync::LazyLock};

use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    SerializeOptions,
};
use serde_json::{Map, Value};

use super::Error;

static PACKED: &[u8] = include_bytes!("../../descriptors/envoy.binpb.gz");

/// The pool of all message descriptors.
pub(super) fn pool() -> DescriptorPool {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(PACKED).read_to_end(&mut bytes).unwrap();
        DescriptorPool::decode(bytes.as_slice()).unwrap()
    });
    POOL.clone()
}

/// A message as JSON.
pub(super) fn to_value(message: &DynamicMessage) -> Result<Value, serde_json::Error> {
    let options = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(true);
    message.serialize_with_options(serde_json::value::Serializer, &options)
}

/// Deepest nesting accepted: the bound that protobuf decoders have as well.
const MAX_DEPTH: usize = 100;

const TYPED_STRUCT: &str = "type.googleapis.com/xds.type.v3.TypedStruct";

/// A message known by its full name.
pub(super) fn from_value(full_name: &str, value: Value) -> Result<DynamicMessage, Error> {
    let descriptor = pool().get_message_by_name(full_name).ok_or_else(|| Error::UnknownType(full_name.to_owned()))?;
    let value = Walk::default().message(value, &descriptor)?;
    DynamicMessage::deserialize_with_options(descriptor, value, &DeserializeOptions::new().deny_unknown_fields(true))
        .map_err(|e| Error::Invalid { message: full_name.to_owned(), reason: e.to_string() })
}

#[derive(Default)]
struct Walk {
    /// The current place; grows and shrinks with the walk.
    path: String,
    depth: usize,
}

impl Walk {
    fn complain<T>(&self, reason: impl Into<String>) -> Result<T, Error> {
        let path = if self.path.is_empty() { "(document)" } else { &self.path };
        Err(Error::Field { path: path.to_owned(), reason: reason.into() })
    }

    /// Runs `walk` one level down, at `.name`.
    fn down<T>(&mut self, name: &str, walk: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        let length = self.path.len();
        if !self.path.is_empty() && !name.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(name);
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.complain("is nested too deeply");
        }
        let result = walk(self)?;
        self.depth -= 1;
        self.path.truncate(length);
        Ok(result)
    }

    fn message(&mut self, value: Value, descriptor: &MessageDescriptor) -> Result<Value, Error> {
        match descriptor.full_name() {
            "google.protobuf.Any" => return self.any(value),
            "google.protobuf.Struct" if value.is_object() => return Ok(value),
            "google.protobuf.Struct" => return self.complain(format!("must be an object, not {}", kind_of(&value))),
            "google.protobuf.ListValue" if value.is_array() => return Ok(value),
            "google.protobuf.ListValue" => return self.complain(format!("must be a list, not {}", kind_of(&value))),
            "google.protobuf.Value" => return Ok(value),
            "google.protobuf.Duration" => {
                let value = self.text(value, descriptor.full_name())?;
                return if value.as_str().is_some_and(is_duration) {
                    Ok(value)
                } else {
                    self.complain(format!("must be a duration in seconds such as \"1.5s\", not {}", shown(&value)))
                };
            }
            "google.protobuf.Timestamp" | "google.protobuf.FieldMask" => {
                return self.text(value, descriptor.full_name());
            }
            name if is_wrapper(name) => {
                let field = descriptor.get_field(1).expect("every wrapper has the field `value`");
                return self.single(value, &field.kind());
            }
            _ => {}
        }
        match value {
            Value::Object(fields) => self.fields(fields, descriptor),
            other => self.complain(format!("must be an object ({}), not {}", descriptor.name(), kind_of(&other))),
        }
    }

    fn fields(&mut self, fields: Map<String, Value>, descriptor: &MessageDescriptor) -> Result<Value, Error> {
        let mut seen: Vec<u32> = Vec::with_capacity(fields.len());
        let mut oneofs: Vec<(String, String)> = Vec::new();
        let mut admitted = Map::with_capacity(fields.len());
        for (key, value) in fields {
            let field = descriptor.get_field_by_name(&key).or_else(|| descriptor.get_field_by_json_name(&key));
            let Some(field) = field else {
                return self.down(&key, |walk| walk.complain("unknown field"));
            };
            if seen.contains(&field.number()) {
                return self.down(field.name(), |walk| walk.complain("is given twice, in both spellings"));
            }
            seen.push(field.number());
            // null is "not set", but for `google.protobuf.Value`, where it is a value.
            if value.is_null() && !is_value(&field) {
                continue;
            }
            if let Some(oneof) = field.containing_oneof() {
                if let Some((_, other)) = oneofs.iter().find(|(name, _)| name == oneof.name()) {
                    let reason = format!("excludes {other:?}, which is given too");
                    return self.down(&key, |walk| walk.complain(reason));
                }
                oneofs.push((oneof.name().to_owned(), key.clone()));
            }
            let value = self.down(field.name(), |walk| walk.field(value, &field))?;
            admitted.insert(key, value);
        }
        Ok(Value::Object(admitted))
    }

    fn field(&mut self, value: Value, field: &FieldDescriptor) -> Result<Value, Error> {
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { return Ok(value) };
            let Value::Object(entries) = value else {
                return self.complain(format!("must be an object, not {}", kind_of(&value)));
            };
            let kind = entry.map_entry_value_field().kind();
            let admit = |(key, value): (String, Value)| {
                let value = self.down(&format!("[{key:?}]"), |walk| walk.single(value, &kind))?;
                Ok((key, value))
            };
            return entries.into_iter().map(admit).collect::<Result<_, _>>().map(Value::Object);
        }
        if field.is_list() {
            let Value::Array(list) = value else {
                return self.complain(format!("must be a list, not {}", kind_of(&value)));
            };
            let kind = field.kind();
            let mut index = String::new();
            let admit = |(i, value)| {
                index.clear();
                write!(index, "[{i}]").expect("writing to a string cannot fail");
                self.down(&index, |walk| walk.single(value, &kind))
            };
            return list.into_iter().enumerate().map(admit).collect::<Result<_, _>>().map(Value::Array);
        }
        self.single(value, &field.kind())
    }

    fn single(&mut self, value: Value, kind: &Kind) -> Result<Value, Error> {
        let number = |walk: &Self, fits: &dyn Fn(&str) -> bool, what: &str| match &value {
            Value::Number(n) if n.as_f64().is_some_and(|f| f.fract() == 0.0 && fits(&format!("{f:.0}"))) => Ok(()),
            Value::Number(n) if fits(&n.to_string()) => Ok(()),
            Value::String(s) if fits(s) => Ok(()),
            other => walk.complain(format!("must be {what}, not {}", shown(other))),
        };
        match kind {
            Kind::Message(descriptor) => return self.message(value, descriptor),
            Kind::Enum(descriptor) => return self.enumeration(value, descriptor),
            Kind::Bool if !value.is_boolean() => {
                return self.complain(format!("must be true or false, not {}", shown(&value)));
            }
            Kind::Bool => {}
            Kind::String => return self.text(value, "a string"),
            Kind::Bytes => return self.text(value, "base64 text"),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                number(self, &|s| s.parse::<i32>().is_ok(), "a 32-bit whole number")?;
            }
            Kind::Uint32 | Kind::Fixed32 => {
                number(self, &|s| s.parse::<u32>().is_ok(), "an unsigned 32-bit whole number")?;
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                number(self, &|s| s.parse::<i64>().is_ok(), "a 64-bit whole number")?;
            }
            Kind::Uint64 | Kind::Fixed64 => {
                number(self, &|s| s.parse::<u64>().is_ok(), "an unsigned 64-bit whole number")?;
            }
            Kind::Double | Kind::Float => number(self, &|s| s.parse::<f64>().is_ok(), "a number")?,
        }
        Ok(value)
    }

    fn text(&self, value: Value, what: &str) -> Result<Value, Error> {
        match value {
            Value::String(_) => Ok(value),
            other => self.complain(format!("must be {what} (quoted text), not {}", shown(&other))),
        }
    }

    fn enumeration(&self, value: Value, descriptor: &EnumDescriptor) -> Result<Value, Error> {
        match &value {
            Value::String(name) if descriptor.get_value_by_name(name).is_some() => Ok(value),
            Value::Number(n) if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => Ok(value),
            other => {
                let names: Vec<_> = descriptor.values().take(12).map(|v| v.name().to_owned()).collect();
                self.complain(format!("{} is none of {}", shown(other), names.join(", ")))
            }
        }
    }

    fn any(&mut self, value: Value) -> Result<Value, Error> {
        let Value::Object(mut fields) = value else {
            return self.complain(format!("must be an object with \"@type\", not {}", kind_of(&value)));
        };
        let Some(Value::String(url)) = fields.shift_remove("@type") else {
            return self.complain("\"@type\" is required");
        };
        let name = url.rsplit('/').next().unwrap_or_default();
        if name.is_empty() {
            return self.complain("\"@type\" is empty");
        }
        let Some(descriptor) = pool().get_message_by_name(name) else {
            return Ok(typed_struct(url, fields));
        };
        let mut admitted = match self.message_in_any(fields, &descriptor)? {
            Value::Object(fields) => fields,
            other => Map::from_iter([("value".to_owned(), other)]),
        };
        admitted.insert("@type".to_owned(), Value::String(url));
        Ok(Value::Object(admitted))
    }

    fn message_in_any(
        &mut self,
        mut fields: Map<String, Value>,
        descriptor: &MessageDescriptor,
    ) -> Result<Value, Error> {
        let name = descriptor.full_name();
        if !name.starts_with("google.protobuf.") || name == "google.protobuf.Empty" {
            return self.fields(fields, descriptor);
        }
        // Types with a JSON form of their own are in the field `value`.
        let value = fields.shift_remove("value");
        match (value, fields.is_empty()) {
            (Some(value), true) => {
                let value = self.down("value", |walk| walk.message(value, descriptor))?;
                Ok(Value::Object(Map::from_iter([("value".to_owned(), value)])))
            }
            _ => self.complain(format!("must have \"@type\" and \"value\" only, as {name}")),
        }
    }
}

/// protobuf's JSON form: seconds with up to nine decimals and an `s`.
fn is_duration(text: &str) -> bool {
    let Some(number) = text.strip_suffix('s') else { return false };
    let number = number.strip_prefix('-').unwrap_or(number);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |s: &str, most| s.len() <= most && s.bytes().all(|b| b.is_ascii_digit());
    !number.is_empty() && digits(whole, 12) && digits(fraction, 9)
}

fn typed_struct(type_url: String, fields: Map<String, Value>) -> Value {
    let wrapped = [
        ("@type".to_owned(), Value::String(TYPED_STRUCT.to_owned())),
        ("type_url".to_owned(), Value::String(type_url)),
        ("value".to_owned(), Value::Object(fields)),
    ];
    Value::Object(wrapped.into_iter().collect())
}

fn is_value(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::Message(m) if m.full_name() == "google.protobuf.Value")
}

fn is_wrapper(name: &str) -> bool {
    name.strip_prefix("google.protobuf.").is_some_and(|n| n.ends_with("Value") && n.len() > "Value".len())
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Scalars as they are, shortened; anything else by its kind.
fn shown(value: &Value) -> String {
    match value {
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(s) => format!("{:?}", s.chars().take(64).collect::<String>()),
        other => kind_of(other).to_owned(),
    }
}
