//! What follows from a token that was verified.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use serde_json::{Map, Value};

use super::Session;
use crate::{
    ir::jwt_authn::JwtProvider,
    l7::pipeline::Inbound,
    policy::jwt::{Found, Location, Token},
};

impl Session<'_> {
    pub(super) fn good(&mut self, provider: &JwtProvider, found: &Found<'_>, token: &Token<'_>, request: &mut Inbound) {
        let headers = &mut request.parts.headers;
        if let Some(name) = &provider.payload_header {
            let mut payload = token.payload_text.to_owned();
            if provider.pad_payload {
                payload.extend(std::iter::repeat_n('=', (4 - payload.len() % 4) % 4));
            }
            if let Ok(payload) = HeaderValue::from_str(&payload) {
                headers.append(name, payload);
            }
        }
        for (name, path) in &provider.claims {
            let text = token.claim(path).map(text).unwrap_or_default();
            if !text.is_empty()
                && let Ok(value) = HeaderValue::from_str(&text)
            {
                headers.append(name, value);
                self.reroute |= provider.clear_route_cache;
            }
        }
        if !provider.forward {
            match found.location {
                Location::Header(name) => drop(headers.remove(name)),
                Location::Param(name) => {
                    if let Ok(uri) = without(request.path(), name).parse() {
                        request.parts.uri = uri;
                    }
                }
                // As in Envoy these stay.
                Location::Cookie(_) => {}
            }
        }
        if !provider.header_key.is_empty() {
            self.extracted.insert(provider.header_key.to_string(), Value::Object(token.header.clone()));
        }
        if !provider.payload_key.is_empty() {
            let payload = normalized(&token.payload, &provider.space_delimited);
            self.extracted.insert(provider.payload_key.to_string(), Value::Object(payload));
        }
    }
}

/// The path without a parameter; as in Envoy the others then stand in the order of their names.
fn without(path: &str, name: &str) -> String {
    let Some((path, query)) = path.split_once('?') else { return path.to_owned() };
    let named = |key: &str| percent_encoding::percent_decode_str(key).decode_utf8_lossy() == name;
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(&str, &str)> = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    pairs.retain(|(key, _)| !named(key));
    pairs.sort_by_key(|(key, _)| *key);
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

/// The payload with the words of some claims as lists.
fn normalized(payload: &Map<String, Value>, space_delimited: &[Box<str>]) -> Map<String, Value> {
    let mut payload = payload.clone();
    for claim in space_delimited {
        if let Some(value) = payload.get_mut(&**claim)
            && let Value::String(text) = value
        {
            *value = text.split(' ').filter(|word| !word.is_empty()).map(Value::from).collect();
        }
    }
    payload
}

/// A claim as a header's value; structs and lists are encoded.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => match (n.as_u64(), n.as_f64()) {
            (Some(n), _) => n.to_string(),
            (None, Some(n)) if n >= 0.0 && n.fract() == 0.0 && n < 1.8e19 => format!("{n:.0}"),
            (None, n) => format!("{:.6}", n.unwrap_or_default()),
        },
        Value::Array(_) | Value::Object(_) => STANDARD.encode(value.to_string()),
        Value::Null => String::new(),
    }
}
