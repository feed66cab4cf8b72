//! `MeshConfig`: what holds for the whole mesh, with the names of Istio's configuration of that name.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error};

use super::{
    access_log::{self, AccessLogEncoding},
    scalars::{HumanDuration, header_name, port, positive},
    settings::Settings,
    telemetry::{self, DefaultConfig, DefaultProviders, OpenTelemetry},
};

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct MeshConfig {
    /// Other names of the trust domain, whose identities count as its own.
    pub trust_domain_aliases: Vec<TrustDomain>,
    pub extension_providers: Vec<ExtensionProvider>,
    pub path_normalization: PathNormalization,
    /// Unless false.
    pub enable_tracing: Option<bool>,
    pub default_providers: DefaultProviders,
    pub default_config: DefaultConfig,
    #[serde(deserialize_with = "access_log::file")]
    pub access_log_file: String,
    pub access_log_format: String,
    pub access_log_encoding: AccessLogEncoding,
}

/// `v1 ConfigMap`, of the one in which Istio keeps its MeshConfig as YAML.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct ConfigMap {
    #[serde(default)]
    pub data: BTreeMap<String, String>,
}

impl ConfigMap {
    /// What of Istio's MeshConfig holds here too, and the names of the fields that are passed over. Those are for Istio's
    /// own proxies; of the providers, those of telemetry are not asked for decisions. What decides on security must say
    /// what is in force.
    pub(super) fn mesh(&self, settings: &Settings) -> Result<(MeshConfig, Vec<String>), String> {
        let Some(text) = self.data.get("mesh") else { return Ok((MeshConfig::default(), Vec::new())) };
        let whole: serde_json::Value = serde_saphyr::from_str(text).map_err(|e| format!("is not valid YAML: {e}"))?;
        let (mut kept, mut passed_over) = (serde_json::Map::new(), Vec::new());
        for (name, value) in whole.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            match name.as_str() {
                "trustDomainAliases" | "extensionProviders" | "pathNormalization" | "enableTracing"
                | "accessLogFile" | "accessLogFormat" | "accessLogEncoding" => {
                    kept.insert(name.clone(), value.clone());
                }
                _ => match in_force(name, value, settings) {
                    None => passed_over.push(name.clone()),
                    Some(Ok(())) => {}
                    Some(Err(reason)) => return Err(format!("{name}: {reason}")),
                },
            }
        }
        if let Some(serde_json::Value::Array(providers)) = kept.get_mut("extensionProviders") {
            let known = ["envoyExtAuthzHttp", "envoyExtAuthzGrpc", "opentelemetry"];
            providers.retain(|p| known.iter().any(|kind| p.get(kind).is_some()));
        }
        telemetry::keep(&whole, &mut kept);
        passed_over.retain(|name| !kept.contains_key(name));
        let read = serde_path_to_error::deserialize(serde_json::Value::Object(kept));
        read.map(|config| (config, passed_over)).map_err(|e| format!("{}: {}", e.path(), e.inner()))
    }
}

/// Whether a field of security says what holds here anyway; none if the field is of no concern.
fn in_force(name: &str, value: &serde_json::Value, settings: &Settings) -> Option<Result<(), String>> {
    let (holds, instead) = match name {
        "rootNamespace" => {
            (value.as_str().is_some_and(|name| settings.is_root(name)), "root namespaces here are fixed")
        }
        "trustDomain" => (value.as_str() == Some(&*settings.trust_domain), "it is set by --trust-domain"),
        "enableAutoMtls" => (value.as_bool() == Some(true), "switch mutual TLS off by DestinationRules"),
        "outboundTrafficPolicy" => {
            let mode = value.get("mode").map_or(Some("ALLOW_ANY"), serde_json::Value::as_str);
            (mode == Some("ALLOW_ANY"), "use a Sidecar with outboundTrafficPolicy in a root namespace")
        }
        "meshMTLS" => {
            let known = |(key, value): (&String, &serde_json::Value)| {
                key == "minProtocolVersion" && matches!(value.as_str(), Some("TLS_AUTO" | "TLSV1_2"))
            };
            (value.as_object().is_some_and(|fields| fields.iter().all(known)), "TLS 1.2 and 1.3 are spoken")
        }
        _ => return None,
    };
    Some(if holds { Ok(()) } else { Err(format!("`{value}` is not what is in force: {instead}")) })
}

/// A SPIFFE trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustDomain(pub String);

impl<'de> Deserialize<'de> for TrustDomain {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let text = String::deserialize(de)?;
        let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | '_');
        if !text.is_empty() && text.len() <= 255 && text.chars().all(ok) {
            return Ok(Self(text));
        }
        Err(D::Error::custom(format!("`{text}` is not a trust domain (lower case, digits, -, . and _)")))
    }
}

/// Which spellings of a path are made one before policies and routes see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PathNormalization {
    pub normalization: Normalization,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Normalization {
    /// As [`Self::Base`].
    #[default]
    Default,
    None,
    /// RFC 3986: `..`, `.`, backslashes and unreserved characters in percent form.
    Base,
    /// And slashes that follow each other are one.
    MergeSlashes,
    /// And slashes in percent form are slashes.
    DecodeAndMergeSlashes,
}

/// A service that decides for CUSTOM policies, or receives spans.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtensionProvider {
    pub name: String,
    pub envoy_ext_authz_http: Option<ExtAuthzHttp>,
    pub envoy_ext_authz_grpc: Option<ExtAuthzGrpc>,
    pub opentelemetry: Option<OpenTelemetry>,
}

/// What both kinds have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Call<'a> {
    /// A host of the mesh, or `namespace/host`; absolute once the documents are joined.
    pub service: &'a str,
    pub port: u16,
    pub timeout: Option<HumanDuration>,
    pub fail_open: bool,
    pub clear_route_cache: bool,
    pub status_on_error: Option<StatusText>,
    pub body: Option<RequestBody>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtAuthzHttp {
    pub service: String,
    #[serde(deserialize_with = "port")]
    pub port: u16,
    #[serde(default, deserialize_with = "positive")]
    pub timeout: Option<HumanDuration>,
    pub path_prefix: Option<PathPrefix>,
    #[serde(default)]
    pub fail_open: bool,
    #[serde(default)]
    pub clear_route_cache: bool,
    pub status_on_error: Option<StatusText>,
    /// Deprecated form of the next.
    #[serde(default)]
    pub include_headers_in_check: Vec<HeaderPattern>,
    #[serde(default)]
    pub include_request_headers_in_check: Vec<HeaderPattern>,
    #[serde(default)]
    pub include_additional_headers_in_check: BTreeMap<String, String>,
    pub include_request_body_in_check: Option<RequestBody>,
    #[serde(default)]
    pub headers_to_upstream_on_allow: Vec<HeaderPattern>,
    #[serde(default)]
    pub headers_to_downstream_on_deny: Vec<HeaderPattern>,
    #[serde(default)]
    pub headers_to_downstream_on_allow: Vec<HeaderPattern>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtAuthzGrpc {
    pub service: String,
    #[serde(deserialize_with = "port")]
    pub port: u16,
    #[serde(default, deserialize_with = "positive")]
    pub timeout: Option<HumanDuration>,
    #[serde(default)]
    pub fail_open: bool,
    #[serde(default)]
    pub clear_route_cache: bool,
    pub status_on_error: Option<StatusText>,
    pub include_request_body_in_check: Option<RequestBody>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestBody {
    #[serde(deserialize_with = "some_bytes")]
    pub max_request_bytes: u32,
    #[serde(default)]
    pub allow_partial_message: bool,
    #[serde(default)]
    pub pack_as_bytes: bool,
}

fn some_bytes<'de, D: Deserializer<'de>>(de: D) -> Result<u32, D::Error> {
    match u32::deserialize(de)? {
        0 => Err(D::Error::custom("must be at least 1")),
        bytes => Ok(bytes),
    }
}

/// A status of HTTP, as text: `"403"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusText(pub u16);

impl<'de> Deserialize<'de> for StatusText {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let text = String::deserialize(de)?;
        // Envoy's enumeration of statuses.
        let known = |code: &u16| {
            matches!(code, 100 | 102 | 103 | 200..=208 | 226 | 300..=305 | 307 | 308 | 400..=418 | 421..=426 | 428 | 429 | 431 | 451
                | 500..=508 | 510 | 511)
        };
        let code = text.parse().ok().filter(known);
        code.map(Self).ok_or_else(|| D::Error::custom(format!("`{text}` is not a status of HTTP such as \"403\"")))
    }
}

/// Prepended to the path of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPrefix(pub String);

impl<'de> Deserialize<'de> for PathPrefix {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let text = String::deserialize(de)?;
        let path = text.starts_with('/') && text.parse::<http::uri::PathAndQuery>().is_ok();
        if path { Ok(Self(text)) } else { Err(D::Error::custom(format!("`{text}` is not a path beginning with /"))) }
    }
}

/// The name of a header, `prefix*` or `*suffix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderPattern(pub String);

impl<'de> Deserialize<'de> for HeaderPattern {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let text = String::deserialize(de)?;
        if text == "*" {
            return Err(D::Error::custom("a single wildcard is not supported: write prefix* or *suffix"));
        }
        let bare = text.strip_prefix('*').or(text.strip_suffix('*')).unwrap_or(&text);
        header_name(bare).map_err(D::Error::custom)?;
        Ok(Self(text))
    }
}

impl ExtensionProvider {
    /// The call to its service; none for a provider that is of no kind.
    pub fn call(&self) -> Option<Call<'_>> {
        match (&self.envoy_ext_authz_http, &self.envoy_ext_authz_grpc) {
            (Some(p), _) => Some(Call {
                service: &p.service,
                port: p.port,
                timeout: p.timeout,
                fail_open: p.fail_open,
                clear_route_cache: p.clear_route_cache,
                status_on_error: p.status_on_error,
                body: p.include_request_body_in_check,
            }),
            (None, Some(p)) => Some(Call {
                service: &p.service,
                port: p.port,
                timeout: p.timeout,
                fail_open: p.fail_open,
                clear_route_cache: p.clear_route_cache,
                status_on_error: p.status_on_error,
                body: p.include_request_body_in_check,
            }),
            (None, None) => None,
        }
    }

    /// Where the name of its service stands in the document, and the name.
    pub(super) fn service(&mut self) -> Option<(&'static str, &mut String)> {
        let http = self.envoy_ext_authz_http.as_mut().map(|p| ("envoyExtAuthzHttp", &mut p.service));
        let grpc = self.envoy_ext_authz_grpc.as_mut().map(|p| ("envoyExtAuthzGrpc", &mut p.service));
        http.or(grpc).or(self.opentelemetry.as_mut().map(|p| ("opentelemetry", &mut p.service)))
    }

    /// The port of its service, and whether it speaks gRPC; none for a provider that is of no kind.
    pub(super) fn port(&self) -> Option<(u16, bool)> {
        let of_telemetry = self.opentelemetry.as_ref().map(|p| (p.port, p.http.is_none()));
        self.call().map(|call| (call.port, self.envoy_ext_authz_grpc.is_some())).or(of_telemetry)
    }
}

impl MeshConfig {
    /// The provider of that name.
    pub fn provider(&self, name: &str) -> Option<&ExtensionProvider> {
        self.extension_providers.iter().find(|provider| provider.name == name)
    }
}
