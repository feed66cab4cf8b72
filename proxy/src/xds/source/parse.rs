//! A discovery file's content: a `DiscoveryResponse`, or just a list of resources, in YAML, JSON or binary protobuf.

use std::{fs::OpenOptions, io::Read, os::unix::fs::OpenOptionsExt, path::Path};

use outrigger_wire::{
    json,
    pb::{envoy::service::discovery::v3::DiscoveryResponse, google::protobuf::Any},
};
use prost::Message;
use serde_json::Value;

use super::{Item, unreadable};

/// What a file says.
#[derive(Debug, PartialEq)]
pub(super) struct Document {
    pub(super) version: String,
    pub(super) items: Vec<Item>,
}

/// Reads a file by its extension as Envoy does: `.pb` is binary, everything else YAML or JSON.
pub(super) fn read(path: &Path) -> Result<Document, String> {
    let mut bytes = Vec::new();
    let limit = json::MAX_DOCUMENT as u64 + 1;
    // The opening of a pipe waits for whoever writes to it, for ever.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|e| e.to_string())?;
    if !file.metadata().map_err(|e| e.to_string())?.is_file() {
        return Err("not a regular file".to_owned());
    }
    file.take(limit).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() > json::MAX_DOCUMENT {
        return Err(json::Error::TooLarge(bytes.len()).to_string());
    }
    match path.extension().and_then(|e| e.to_str()) {
        Some("pb") => binary(&bytes),
        Some("pb_text") => Err("the protobuf text format is not supported; use YAML, JSON or binary (.pb)".to_owned()),
        _ => text(std::str::from_utf8(&bytes).map_err(|e| e.to_string())?),
    }
}

fn binary(bytes: &[u8]) -> Result<Document, String> {
    if bytes.is_empty() {
        // Also a valid encoding of "remove everything"; far more likely it is a file still being written.
        return Err("empty file".to_owned());
    }
    let response = DiscoveryResponse::decode(bytes).map_err(|e| e.to_string())?;
    Ok(Document { version: response.version_info, items: response.resources.into_iter().map(Item::bare).collect() })
}

fn text(text: &str) -> Result<Document, String> {
    let (version, resources) = match json::parse(text).map_err(|e| e.to_string())? {
        Value::Array(resources) => (String::new(), resources),
        Value::Object(mut fields) => {
            let resources = match fields.remove("resources") {
                Some(Value::Array(resources)) => resources,
                Some(_) => return Err("resources: not a list".to_owned()),
                None => Vec::new(),
            };
            // The frame without its resources, so that one bad resource spoils only itself.
            let frame: DiscoveryResponse = json::from_value(Value::Object(fields)).map_err(|e| e.to_string())?;
            (frame.version_info, resources)
        }
        Value::Null => return Err("empty file".to_owned()),
        _ => return Err("neither a DiscoveryResponse nor a list of resources".to_owned()),
    };
    Ok(Document { version, items: resources.into_iter().map(resource).collect() })
}

fn resource(value: Value) -> Item {
    let field = |name: &str| value.get(name).and_then(Value::as_str);
    let name = field("name").or_else(|| field("cluster_name")).or_else(|| field("clusterName"));
    let name = name.unwrap_or_default().to_owned();
    let encoded = json::bytes_from_value("google.protobuf.Any", value);
    match encoded.map_err(|e| e.to_string()).and_then(|b| Any::decode(b.as_slice()).map_err(|e| e.to_string())) {
        Ok(any) => Item::bare(any),
        Err(reason) => unreadable(name, reason),
    }
}
