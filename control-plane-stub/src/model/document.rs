//! From the text of a file to documents with an envelope: `apiVersion`, `kind`, `metadata` and the rest untyped.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Problem;

const MAX_DOCUMENTS: usize = 20_000;

/// Where an object came from. Compares equal to any other: moving a document changes nothing in the mesh.
#[derive(Clone, Debug)]
pub struct Source {
    pub file: Arc<Path>,
    pub document: usize,
    /// `items[3].` for an item of a `List`, else empty.
    pub prefix: String,
}

impl PartialEq for Source {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Source {
    /// A problem at `path` of this object.
    pub fn problem(&self, path: impl AsRef<str>, reason: impl Into<String>) -> Problem {
        Problem {
            file: self.file.to_path_buf(),
            document: self.document,
            path: format!("{}{}", self.prefix, path.as_ref()),
            reason: reason.into(),
        }
    }
}

/// Kubernetes' object metadata, as far as it matters here. The fields only the API server writes are tolerated.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    pub name: String,
    #[serde(default = "default_namespace")]
    pub namespace: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    pub creation_timestamp: Option<String>,
    pub deletion_timestamp: Option<String>,
}

fn default_namespace() -> String {
    "default".to_owned()
}

/// A typed document.
#[derive(Clone, Debug, PartialEq)]
pub struct Object<T> {
    pub meta: Meta,
    pub source: Source,
    pub spec: T,
}

/// An untyped document with a valid envelope.
#[derive(Debug)]
pub(super) struct Document {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub source: Source,
    pub body: Map<String, Value>,
}

/// Parses all documents of one file; `List`s are taken apart.
pub(super) fn parse(file: &Arc<Path>, text: &str, into: &mut Vec<Document>, problems: &mut Vec<Problem>) {
    for (index, chunk) in chunks(text).into_iter().enumerate() {
        let source = Source { file: file.clone(), document: index + 1, prefix: String::new() };
        if into.len() >= MAX_DOCUMENTS {
            return problems.push(source.problem("(document)", format!("more than {MAX_DOCUMENTS} documents")));
        }
        match value(chunk.text) {
            Ok(Value::Null) => {}
            Ok(value) => envelope(value, source, into, problems),
            Err(_) => {
                // Once more with the lines before it, so that the line in the message is the line in the file.
                let reason = value_at(chunk).err().unwrap_or_else(|| "cannot be parsed".to_owned());
                problems.push(source.problem("(document)", reason));
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Chunk<'a> {
    text: &'a str,
    line: usize,
}

/// Splits at `---` in the first column, which no other construct of YAML can contain.
fn chunks(text: &str) -> Vec<Chunk<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut chunks = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '\r', '#']));
        if marker {
            chunks.push(Chunk { text: &text[start..offset], line: start_line });
            // What follows the marker on its line belongs to the document.
            (start, start_line) = (offset + 3, number);
        }
        offset += line.len();
    }
    chunks.push(Chunk { text: &text[start..], line: start_line });
    let blank = |line: &str| line.trim().is_empty() || line.starts_with('#') || line.starts_with('%');
    if chunks.len() > 1 && chunks[0].text.lines().all(blank) {
        chunks.remove(0);
    }
    chunks
}

fn value(text: &str) -> Result<Value, String> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Value::Null);
    }
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|e| format!("not valid YAML: {e}"))
}

fn value_at(chunk: Chunk<'_>) -> Result<Value, String> {
    value(&format!("{}{}", "\n".repeat(chunk.line), chunk.text))
}

/// `field: null` means the same as no field, for Kubernetes and for proto3 JSON.
fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

/// Where a security policy leaves a field blank: `action:` with nothing behind it may have been meant to say anything.
fn blanks(value: &Value, path: &str, source: &Source, problems: &mut Vec<Problem>) {
    match value {
        Value::Null => {
            let reason = "is blank, which decides nothing: give it a value, or remove it";
            problems.push(source.problem(path, reason));
        }
        Value::Object(map) => {
            map.iter().for_each(|(field, value)| blanks(value, &format!("{path}.{field}"), source, problems));
        }
        Value::Array(items) => {
            // A blank item is of no type, which decoding tells.
            let items = items.iter().enumerate().filter(|(_, item)| !item.is_null());
            items.for_each(|(index, value)| blanks(value, &format!("{path}[{index}]"), source, problems));
        }
        _ => {}
    }
}

fn envelope(value: Value, source: Source, into: &mut Vec<Document>, problems: &mut Vec<Problem>) {
    let Value::Object(mut body) = value else {
        return problems.push(source.problem("(document)", "is not a mapping with apiVersion, kind and metadata"));
    };
    let mut text = |field: &str| match body.remove(field) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        None | Some(Value::Null) => {
            problems.push(source.problem(field, format!("is missing: every document needs {field}")));
            None
        }
        Some(_) => {
            problems.push(source.problem(field, "must be a non-empty string"));
            None
        }
    };
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let (Some(api_version), Some(kind)) = (api_version, kind) else { return };
    let (group, version) = match api_version.split_once('/') {
        Some((group, version)) => (group.to_owned(), version.to_owned()),
        None => (String::new(), api_version),
    };
    if group.is_empty() && kind == "List" {
        let Some(Value::Array(items)) = body.remove("items") else {
            return problems.push(source.problem("items", "a List needs items"));
        };
        for (index, item) in items.into_iter().enumerate() {
            if into.len() >= MAX_DOCUMENTS {
                return problems.push(source.problem("items", format!("more than {MAX_DOCUMENTS} documents")));
            }
            let prefix = format!("{}items[{index}].", source.prefix);
            // The parser's depth limit bounds this recursion.
            envelope(item, Source { prefix, ..source.clone() }, into, problems);
        }
        return;
    }
    if matches!(group.as_str(), "security.istio.io" | "outrigger.dev")
        && let Some(spec) = body.get("spec")
    {
        blanks(spec, "spec", &source, problems);
    }
    body.retain(|_, value| !value.is_null());
    body.values_mut().for_each(strip_nulls);
    into.push(Document { group, version, kind, source, body });
}
