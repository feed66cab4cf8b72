//! Typed decoding with the path of what is wrong, collecting more than one error per document.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::{
    Problem,
    document::{Document, Meta, Object, Source},
};

const MAX_ERRORS: usize = 20;

/// Decodes the `spec` (and metadata) of a document whose other top-level fields must all be known.
pub(super) fn object<T: DeserializeOwned>(mut document: Document, problems: &mut Vec<Problem>) -> Option<Object<T>> {
    let meta = meta(&mut document, problems);
    let spec = document.body.remove("spec").unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    document.body.remove("status");
    for field in document.body.keys() {
        problems.push(document.source.problem(field, unknown(field, "apiVersion, kind, metadata, spec")));
    }
    let spec = typed(spec, "spec", &document.source, problems);
    Some(Object { meta: meta?, source: document.source, spec: spec? })
}

/// Decodes a document that has no `spec`, or whose status matters too.
pub(super) fn whole<T: DeserializeOwned>(mut document: Document, problems: &mut Vec<Problem>) -> Option<Object<T>> {
    let meta = meta(&mut document, problems);
    let spec = typed(Value::Object(document.body), "", &document.source, problems);
    Some(Object { meta: meta?, source: document.source, spec: spec? })
}

fn meta(document: &mut Document, problems: &mut Vec<Problem>) -> Option<Meta> {
    let Some(value) = document.body.remove("metadata") else {
        problems.push(document.source.problem("metadata.name", "is missing: every document needs a name"));
        return None;
    };
    let meta: Meta = typed(value, "metadata", &document.source, problems)?;
    for (field, text) in [("name", &meta.name), ("namespace", &meta.namespace)] {
        if !super::names::is_dns_name(text) {
            let path = format!("metadata.{field}");
            problems.push(
                document.source.problem(path, format!("`{text}` is not a DNS name (lower case, digits, - and .)")),
            );
            return None;
        }
    }
    Some(meta)
}

fn typed<T: DeserializeOwned>(mut value: Value, root: &str, source: &Source, problems: &mut Vec<Problem>) -> Option<T> {
    // What was taken out to see what else is wrong, and the places reported.
    let (mut removed, mut reported): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for _ in 0..MAX_ERRORS {
        let error = match serde_path_to_error::deserialize::<_, T>(&value) {
            Ok(decoded) if removed.is_empty() => return Some(decoded),
            Ok(_) => return None,
            Err(error) => error,
        };
        let reason = error.inner().to_string();
        let mut path = steps(error.path());
        if let Some(field) = reason.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next())
            && path.last() != Some(&Step::Field(field.to_owned()))
        {
            path.push(Step::Field(field.to_owned()));
        }
        let place = display(root, &path);
        // A field is missing only because it was taken out, or its parent is wrong only without it.
        let consequence = removed.iter().any(|field| reason == format!("missing field `{field}`"))
            || reported.iter().any(|other| other.len() > place.len() && other.starts_with(&place));
        if !consequence {
            problems.push(source.problem(&place, explain(&reason)));
            reported.push(place);
        }
        // An element of a list is not taken out: those behind it would be reported by a wrong index.
        while matches!(path.last(), Some(Step::Index(_))) {
            path.pop();
        }
        match path.pop() {
            Some(Step::Field(field)) if remove(&mut value, &path, &field) => removed.push(field),
            _ => return None,
        }
    }
    None
}

#[derive(Debug, PartialEq)]
enum Step {
    Field(String),
    Index(usize),
}

fn steps(path: &Path) -> Vec<Step> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Field(key.clone())),
            Segment::Enum { variant } => Some(Step::Field(variant.clone())),
            Segment::Unknown => None,
        })
        .collect()
}

fn display(root: &str, path: &[Step]) -> String {
    let mut text = root.to_owned();
    for step in path {
        match step {
            Step::Field(field) if text.is_empty() => text.push_str(field),
            Step::Field(field) => {
                text.push('.');
                text.push_str(field);
            }
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    if text.is_empty() { "(document)".to_owned() } else { text }
}

fn remove(value: &mut Value, parent: &[Step], field: &str) -> bool {
    let mut at = value;
    for step in parent {
        let next = match step {
            Step::Field(name) => at.get_mut(name.as_str()),
            Step::Index(index) => at.get_mut(*index),
        };
        match next {
            Some(next) => at = next,
            None => return false,
        }
    }
    at.as_object_mut().is_some_and(|map| map.remove(field).is_some())
}

fn explain(reason: &str) -> String {
    match reason.strip_prefix("unknown field `").and_then(|rest| rest.split_once("`, expected ")) {
        Some((field, known)) => unknown(field, known.trim_start_matches("one of ").trim_start_matches("one of: ")),
        None => reason.to_owned(),
    }
}

fn unknown(field: &str, known: &str) -> String {
    format!("`{field}` is not a field known here: correct or remove it; known are {}", known.replace('`', ""))
}
