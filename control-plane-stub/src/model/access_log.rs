//! What `MeshConfig` says of access logs, with Istio's names.

use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Map, Value};

use super::mesh_config::MeshConfig;

/// Text or JSON, one line each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AccessLogEncoding {
    #[default]
    Text,
    Json,
}

/// What a line is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum AccessLogFormat {
    /// Istio's own, in this encoding.
    Default(AccessLogEncoding),
    Text(String),
    Json(Map<String, Value>),
}

/// `/dev/stdout`, or a file beside the proxy; nothing where it is empty.
pub(super) fn file<'de, D: Deserializer<'de>>(de: D) -> Result<String, D::Error> {
    let file = String::deserialize(de)?;
    let good = file.is_empty() || file.starts_with('/') && !file.contains('\0');
    if good { Ok(file) } else { Err(D::Error::custom(format!("`{file}` is not an absolute path"))) }
}

impl MeshConfig {
    /// Where lines go and what is in them, if there are any.
    pub fn access_log(&self) -> Option<(&str, AccessLogFormat)> {
        if self.access_log_file.is_empty() {
            return None;
        }
        // What is no format was refused before.
        let format = self.log_format().unwrap_or(AccessLogFormat::Default(self.access_log_encoding));
        Some((&self.access_log_file, format))
    }

    /// An error says why the format is none.
    pub(super) fn log_format(&self) -> Result<AccessLogFormat, String> {
        let text = &self.access_log_format;
        Ok(match self.access_log_encoding {
            encoding if text.is_empty() => AccessLogFormat::Default(encoding),
            AccessLogEncoding::Text => AccessLogFormat::Text(text.clone()),
            AccessLogEncoding::Json => {
                let fields = serde_json::from_str(text);
                AccessLogFormat::Json(fields.map_err(|e| format!("is not a JSON object: {e}"))?)
            }
        })
    }
}
