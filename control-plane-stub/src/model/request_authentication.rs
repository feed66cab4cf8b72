//! `RequestAuthentication`: whose tokens are believed, and where keys and tokens are found.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error};

use super::{
    attachment::{Attached, TargetRef},
    peer_authentication::Selector,
    scalars::{HumanDuration, header_name, positive},
};

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestAuthentication {
    pub selector: Option<Selector>,
    pub target_ref: Option<TargetRef>,
    #[serde(default)]
    pub target_refs: Vec<TargetRef>,
    #[serde(default)]
    pub jwt_rules: Vec<JwtRule>,
}

impl Attached for RequestAuthentication {
    fn selector(&self) -> Option<&BTreeMap<String, String>> {
        self.selector.as_ref().map(|s| &s.match_labels)
    }

    fn target_refs(&self) -> impl Iterator<Item = &TargetRef> {
        self.target_ref.iter().chain(&self.target_refs)
    }
}

/// One issuer. A request with a token of it must have a valid one; a request without a token passes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtRule {
    #[serde(default)]
    pub issuer: String,
    #[serde(default)]
    pub audiences: Vec<Text>,
    #[serde(alias = "jwks_uri")]
    pub jwks_uri: Option<KeysUri>,
    pub jwks: Option<Keys>,
    #[serde(default)]
    pub from_headers: Vec<TokenHeader>,
    #[serde(default)]
    pub from_params: Vec<Text>,
    #[serde(default)]
    pub from_cookies: Vec<Text>,
    pub output_payload_to_header: Option<HeaderName>,
    #[serde(default)]
    pub output_claim_to_headers: Vec<ClaimHeader>,
    #[serde(default)]
    pub forward_original_token: bool,
    /// For fetching the keys.
    #[serde(default, deserialize_with = "positive")]
    pub timeout: Option<HumanDuration>,
    #[serde(default)]
    pub space_delimited_claims: Vec<Text>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenHeader {
    pub name: HeaderName,
    #[serde(default)]
    pub prefix: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimHeader {
    pub header: HeaderName,
    pub claim: Text,
}

/// Text that is not empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let text = String::deserialize(de)?;
        if text.is_empty() { Err(D::Error::custom("must not be empty")) } else { Ok(Self(text)) }
    }
}

/// The name of a header that may be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderName(pub String);

impl<'de> Deserialize<'de> for HeaderName {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let text = String::deserialize(de)?;
        if text.starts_with(':') {
            return Err(D::Error::custom(format!("`{text}` is not a header of its own")));
        }
        header_name(&text).map_err(D::Error::custom)?;
        Ok(Self(text))
    }
}

/// Where keys are fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysUri {
    pub text: String,
    pub https: bool,
    pub host: String,
    pub port: u16,
}

impl KeysUri {
    fn parse(text: &str) -> Result<Self, String> {
        let uri: http::Uri = text.parse().map_err(|e| format!("`{text}` is not a URI: {e}"))?;
        let https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("`{text}` must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| format!("`{text}` names no host"))?;
        if authority.as_str().contains('@') {
            return Err("must not hold a user or password".to_owned());
        }
        if authority.as_str().rsplit_once(':').is_some_and(|(_, port)| !port.contains(']')) && uri.port_u16().is_none()
        {
            return Err(format!("`{text}` has no valid port"));
        }
        let host = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
        let known = host.parse::<std::net::IpAddr>().is_ok() || (super::names::is_host(&host) && !host.contains('*'));
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        if !known || port == 0 {
            return Err(format!("`{text}` names no host and port"));
        }
        Ok(Self { text: text.to_owned(), https, host, port })
    }
}

impl<'de> Deserialize<'de> for KeysUri {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(de)?).map_err(D::Error::custom)
    }
}

/// A JSON Web Key Set as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys(pub String);

/// A set with no key would refuse every token, and one that cannot be read is refused by the proxy with its listener.
fn keys(text: &str) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Key>,
    }
    #[derive(Deserialize)]
    struct Key {
        kty: String,
    }
    let set: Set = serde_json::from_str(text).map_err(|e| format!("is not a JSON Web Key Set: {e}"))?;
    if set.keys.is_empty() {
        return Err("holds no key: every token would be refused".to_owned());
    }
    match set.keys.iter().find(|key| !matches!(key.kty.as_str(), "RSA" | "EC" | "oct" | "OKP")) {
        Some(key) => Err(format!("`{}` is not a type of key: RSA, EC, OKP and oct are", key.kty)),
        None => Ok(()),
    }
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let text = String::deserialize(de)?;
        keys(&text).map_err(D::Error::custom)?;
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_keys() {
        let ok = KeysUri::parse("https://Keys.example.com/jwks.json").unwrap();
        assert_eq!((ok.https, ok.host.as_str(), ok.port), (true, "keys.example.com", 443));
        let ok = KeysUri::parse("http://[fd00::1]:8000/").unwrap();
        assert_eq!((ok.https, ok.host.as_str(), ok.port), (false, "fd00::1", 8000));
        for bad in ["", "keys", "/x", "ftp://a/x", "https://", "https://u:p@a/", "https://a:x/", "https://a:0/"] {
            assert!(KeysUri::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sets_of_keys() {
        assert_eq!(keys(r#"{"keys": [{"kty": "RSA", "e": "AQAB", "n": "x"}]}"#), Ok(()));
        for bad in ["", "{}", r#"{"keys": []}"#, r#"{"keys": [{}]}"#, r#"{"keys": [{"kty": "rsa"}]}"#, "[]"] {
            assert!(keys(bad).is_err(), "{bad}");
        }
    }
}
