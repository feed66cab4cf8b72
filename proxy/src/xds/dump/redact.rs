//! Blanks secrets in rendered configuration.

use serde_json::Value;

/// Fields whose whole content is secret (`udpa.annotations.sensitive`), wherever they occur.
const SENSITIVE: [&str; 8] = [
    "private_key",
    "private_key_provider",
    "pkcs12",
    "password",
    "session_ticket_keys",
    "generic_secret",
    "inline_secret",
    "token_secret",
];

/// What stands in place of a secret, as text and as the base64 of bytes fields.
const TEXT: &str = "[redacted]";
const BYTES: &str = "W3JlZGFjdGVkXQ==";

/// Blanks every secret below `value`.
pub(super) fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if SENSITIVE.contains(&name.as_str()) { blank(field) } else { redact(field) }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// File names stay: they say where the secret is, not what it is.
fn blank(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match name.as_str() {
                    "filename" | "environment_variable" | "provider_name" | "@type" => {}
                    "inline_bytes" => *field = BYTES.into(),
                    _ => blank(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(blank),
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) | Value::String(_) => *value = TEXT.into(),
    }
}
