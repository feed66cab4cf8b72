//! `google.protobuf.Struct` in messages of services, as JSON and back. Depth is bounded by the protobuf decoder.

use outrigger_wire::pb::google::protobuf::{ListValue, Struct, Value as PbValue, value::Kind};
use serde_json::{Map, Number, Value};

/// Whether whole numbers of this size are exact in a double.
const EXACT: f64 = 9_007_199_254_740_992.0;

pub(super) fn from_struct(message: Struct) -> Map<String, Value> {
    message.fields.into_iter().map(|(key, v)| (key, from_value(v))).collect()
}

fn from_value(message: PbValue) -> Value {
    match message.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(n)) if n.fract() == 0.0 && n.abs() < EXACT => Value::Number((n as i64).into()),
        Some(Kind::NumberValue(n)) => Number::from_f64(n).map_or(Value::Null, Value::Number),
        Some(Kind::StringValue(s)) => Value::String(s),
        Some(Kind::BoolValue(b)) => Value::Bool(b),
        Some(Kind::StructValue(s)) => Value::Object(from_struct(s)),
        Some(Kind::ListValue(list)) => Value::Array(list.values.into_iter().map(from_value).collect()),
    }
}

pub(super) fn to_struct(fields: &Map<String, Value>) -> Struct {
    Struct { fields: fields.iter().map(|(key, v)| (key.clone(), to_value(v))).collect() }
}

fn to_value(value: &Value) -> PbValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(b) => Kind::BoolValue(*b),
        Value::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or_default()),
        Value::String(s) => Kind::StringValue(s.clone()),
        Value::Array(list) => Kind::ListValue(ListValue { values: list.iter().map(to_value).collect() }),
        Value::Object(fields) => Kind::StructValue(to_struct(fields)),
    };
    PbValue { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn there_and_back() {
        let value = json!({"a": [1, 2.5, null, true, {"b": "c"}], "d": {}});
        let fields = value.as_object().unwrap();
        assert_eq!(&from_struct(to_struct(fields)), fields);
    }
}
