//! `google.protobuf.Struct` and `core.v3.Metadata` as JSON.

use std::sync::Arc;

use outrigger_wire::pb::{
    envoy::config::core::v3::Metadata as PbMetadata,
    google::protobuf::{Struct, Value as PbValue, value::Kind},
};
use serde_json::{Map, Number, Value};

use super::at::At;
use crate::ir::{Metadata, share::share};

/// Whether whole numbers of this size are exact in a double.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Keys come out sorted: protobuf keeps no order, and equal structs must be equal here.
pub(crate) fn object(message: &Struct) -> Map<String, Value> {
    let mut fields: Vec<_> = message.fields.iter().collect();
    fields.sort_by_key(|(key, _)| *key);
    fields.into_iter().map(|(key, v)| (key.clone(), value(v))).collect()
}

/// The recursion is bounded by the protobuf decoder's own limit.
pub(crate) fn value(message: &PbValue) -> Value {
    match &message.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(n)) if n.fract() == 0.0 && n.abs() < EXACT => Value::Number((*n as i64).into()),
        Some(Kind::NumberValue(n)) => Number::from_f64(*n).map_or(Value::Null, Value::Number),
        Some(Kind::StringValue(s)) => Value::String(s.clone()),
        Some(Kind::BoolValue(b)) => Value::Bool(*b),
        Some(Kind::StructValue(s)) => Value::Object(object(s)),
        Some(Kind::ListValue(list)) => Value::Array(list.values.iter().map(value).collect()),
    }
}

pub(crate) fn metadata(message: &Option<PbMetadata>, at: &At<'_>) -> Option<Arc<Metadata>> {
    let message = message.as_ref()?;
    if !message.typed_filter_metadata.is_empty() {
        at.field("metadata").field("typed_filter_metadata").harmless("nothing here reads it");
    }
    if message.filter_metadata.is_empty() {
        return None;
    }
    Some(share(message.filter_metadata.iter().map(|(key, fields)| (key.clone(), object(fields))).collect()))
}
