//! Dynamic metadata: what filters note of a request or a connection for those that come after them, and for logs.
//!
//! Namespaces hold structs, as in Envoy. Lives on one worker; nothing is allocated until something is noted.

use std::cell::{Ref, RefCell};

use serde_json::{Map, Value};

use crate::ir::Metadata;

/// See the module's head.
#[derive(Clone, Debug, Default)]
pub struct DynamicMetadata(RefCell<Option<Box<Metadata>>>);

impl DynamicMetadata {
    /// Adds `fields` to a namespace; those of the same name are replaced.
    pub fn set(&self, namespace: &str, fields: Map<String, Value>) {
        let mut all = self.0.borrow_mut();
        all.get_or_insert_default().entry(namespace.to_owned()).or_default().extend(fields);
    }

    /// Everything noted so far.
    pub fn get(&self) -> Ref<'_, Option<Box<Metadata>>> {
        self.0.borrow()
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.0.take();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn namespaces_are_merged_field_by_field() {
        let metadata = DynamicMetadata::default();
        assert!(metadata.get().is_none());
        metadata.set("a", fields(json!({"x": {"deep": 1}, "y": 2})));
        metadata.set("a", fields(json!({"x": 3, "z": 4})));
        metadata.set("b", Map::new());
        let all = serde_json::to_value(metadata.get().as_deref()).unwrap();
        assert_eq!(all, json!({"a": {"x": 3, "y": 2, "z": 4}, "b": {}}));
        metadata.clear();
        assert!(metadata.get().is_none());
    }
}
