//! What a request must look like for an HTTP route to take it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error};

use crate::model::scalars::{RegexText, some_port};

/// A condition on a text.
#[derive(Clone, Debug, PartialEq)]
pub enum StringMatch {
    Exact(String),
    Prefix(String),
    Regex(RegexText),
    /// `{}`: the header or parameter is there.
    Present,
}

impl<'de> Deserialize<'de> for StringMatch {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            exact: Option<String>,
            prefix: Option<String>,
            regex: Option<RegexText>,
        }
        match Raw::deserialize(de)? {
            Raw { exact: Some(text), prefix: None, regex: None } => Ok(Self::Exact(text)),
            Raw { exact: None, prefix: Some(text), regex: None } => Ok(Self::Prefix(text)),
            // Istio reads the expressions that match anything as presence.
            Raw { exact: None, prefix: None, regex: Some(regex) } if regex.0 == "*" => Ok(Self::Present),
            Raw { exact: None, prefix: None, regex: Some(regex) } => Ok(Self::Regex(regex)),
            Raw { exact: None, prefix: None, regex: None } => Ok(Self::Present),
            Raw { .. } => Err(D::Error::custom("give exactly one of exact, prefix, regex")),
        }
    }
}

/// As [`StringMatch`], where there is always a text, so that an empty condition is a mistake.
fn text<'de, D: Deserializer<'de>>(de: D) -> Result<Option<StringMatch>, D::Error> {
    match StringMatch::deserialize(de)? {
        StringMatch::Present => Err(D::Error::custom("give one of exact, prefix, regex")),
        StringMatch::Prefix(text) | StringMatch::Exact(text) if text.is_empty() => {
            Err(D::Error::custom("must not be empty"))
        }
        condition => Ok(Some(condition)),
    }
}

fn headers<'de, D: Deserializer<'de>>(de: D) -> Result<BTreeMap<String, StringMatch>, D::Error> {
    let map = BTreeMap::<String, StringMatch>::deserialize(de)?;
    for name in map.keys() {
        if matches!(name.as_str(), ":authority" | ":method" | ":path" | ":scheme") {
            let field = name.trim_start_matches(':').replace("path", "uri");
            return Err(D::Error::custom(format!("match `{name}` with the field {field}")));
        }
        if name.starts_with('@') {
            let reason = format!("`{name}`: claims of tokens are not supported yet by this release");
            return Err(D::Error::custom(reason));
        }
        crate::model::scalars::header_name(name).map_err(D::Error::custom)?;
    }
    Ok(map)
}

/// All conditions of one entry must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpMatch {
    pub name: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub uri: Option<StringMatch>,
    #[serde(default)]
    pub ignore_uri_case: bool,
    #[serde(default, deserialize_with = "text")]
    pub scheme: Option<StringMatch>,
    #[serde(default, deserialize_with = "text")]
    pub method: Option<StringMatch>,
    #[serde(default, deserialize_with = "text")]
    pub authority: Option<StringMatch>,
    #[serde(default, deserialize_with = "headers")]
    pub headers: BTreeMap<String, StringMatch>,
    #[serde(default, deserialize_with = "headers")]
    pub without_headers: BTreeMap<String, StringMatch>,
    #[serde(default, deserialize_with = "some_port")]
    pub port: Option<u16>,
    #[serde(default)]
    pub query_params: BTreeMap<String, StringMatch>,
    #[serde(default)]
    pub source_labels: BTreeMap<String, String>,
    pub source_namespace: Option<String>,
    #[serde(default)]
    pub gateways: Vec<String>,
    pub stat_prefix: Option<String>,
}
