//! Extensions: what an `Any` holds, TypedStruct opened, and the fixed table of what may be ignored.
//!
//! Dispatch is by type URL, never by name. What is neither implemented nor in [`harmless`] is refused by the caller:
//! an authorization filter that is skipped is an open door.

use std::borrow::Cow;

use outrigger_wire::{
    json,
    pb::{envoy::service::discovery::v3 as discovery, google::protobuf::Any, google::protobuf::Struct},
};
use prost::{Message, Name};

use super::{at::At, metadata, report::Reject};

/// `xds.type.v3.TypedStruct` and its elder twin `udpa.type.v1.TypedStruct`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TypedStruct {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) value: Option<Struct>,
}

/// An opened `Any`.
pub(crate) struct Extension<'a> {
    /// Full message name, without the host of the type URL.
    pub(crate) kind: Cow<'a, str>,
    body: Body<'a>,
}

enum Body<'a> {
    Bytes(&'a [u8]),
    Json(serde_json::Map<String, serde_json::Value>),
}

/// Opens `any`, through a TypedStruct if it is one.
pub(crate) fn open<'a>(any: &'a Any, at: &At<'_>) -> Result<Extension<'a>, Reject> {
    let kind = short(&any.type_url);
    if kind.is_empty() {
        return Err(at.reject("has no type URL"));
    }
    if !is_typed_struct(kind) {
        return Ok(Extension { kind: Cow::Borrowed(kind), body: Body::Bytes(&any.value) });
    }
    let typed = TypedStruct::decode(any.value.as_slice()).map_err(|e| at.reject(format!("malformed {kind}: {e}")))?;
    let inner = short(&typed.type_url);
    if inner.is_empty() || inner.ends_with(".TypedStruct") {
        return Err(at.field("type_url").reject(format!("{:?} is not a type for a TypedStruct", typed.type_url)));
    }
    let body = Body::Json(typed.value.as_ref().map(metadata::object).unwrap_or_default());
    Ok(Extension { kind: Cow::Owned(inner.to_owned()), body })
}

impl Extension<'_> {
    pub(crate) fn is<M: Name>(&self) -> bool {
        // `full_name` allocates; the comparison of the parts does not.
        self.kind.strip_suffix(M::NAME).and_then(|p| p.strip_suffix('.')) == Some(M::PACKAGE)
    }

    /// The message, known to be an `M`.
    pub(crate) fn message<M: Message + Name + Default>(&self, at: &At<'_>) -> Result<M, Reject> {
        M::decode(&*self.encoded::<M>(at)?).map_err(|e| self.malformed(&e, at))
    }

    /// As [`Self::message`], not decoded yet.
    pub(crate) fn encoded<M: Name>(&self, at: &At<'_>) -> Result<Cow<'_, [u8]>, Reject> {
        let fields = match &self.body {
            Body::Bytes(bytes) => return Ok(Cow::Borrowed(bytes)),
            Body::Json(fields) => fields.clone(),
        };
        match json::bytes_from_value(&M::full_name(), serde_json::Value::Object(fields)) {
            Ok(bytes) => Ok(Cow::Owned(bytes)),
            Err(json::Error::Field { path, reason }) => Err(at.field("value").field(&path).reject(reason)),
            Err(e) => Err(at.field("value").reject(e.to_string())),
        }
    }

    pub(crate) fn malformed(&self, error: &prost::DecodeError, at: &At<'_>) -> Reject {
        at.reject(format!("malformed {}: {error}", self.kind))
    }

    /// A message that the descriptor pool lacks: from bytes, or from JSON by `read`.
    pub(crate) fn foreign<M: Message + Default>(
        &self,
        at: &At<'_>,
        read: impl FnOnce(&serde_json::Map<String, serde_json::Value>) -> Result<M, String>,
    ) -> Result<M, Reject> {
        match &self.body {
            Body::Bytes(bytes) => M::decode(*bytes).map_err(|e| at.reject(format!("malformed {}: {e}", self.kind))),
            Body::Json(fields) => read(fields).map_err(|e| at.field("value").reject(e)),
        }
    }

    /// Whether nothing is configured: every field has its default.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.body {
            Body::Bytes(bytes) => bytes.is_empty(),
            Body::Json(fields) => fields.is_empty(),
        }
    }

    /// Notes the extension if it may be ignored, refuses it otherwise.
    pub(crate) fn ignore(&self, what: &str, at: &At<'_>) -> Result<(), Reject> {
        match harmless(&self.kind) {
            Some(reason) => {
                at.harmless(format!("{}: {reason}", self.kind));
                Ok(())
            }
            None => Err(self.refuse(what, at)),
        }
    }

    pub(crate) fn refuse(&self, what: &str, at: &At<'_>) -> Reject {
        at.reject(format!("{what} {} is not supported by this release", self.kind))
    }
}

/// The message name in a type URL.
pub(crate) fn short(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or(type_url)
}

/// The extensions whose absence changes neither who may do what nor where traffic goes.
fn harmless(kind: &str) -> Option<&'static str> {
    const STATS: &str = "statistics are the proxy's own";
    const METADATA: &str = "peer metadata is not exchanged";
    const TRACING: &str = "spans are sent in OpenTelemetry's form only";
    const LOGGER: &str = "logs to files and standard streams only";
    Some(match kind {
        "stats.PluginConfig" | "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig" => STATS,
        "io.istio.http.peer_metadata.Config"
        | "envoy.tcp.metadataexchange.config.MetadataExchange"
        | "envoy.extensions.filters.network.metadata_exchange.v3.MetadataExchange" => METADATA,
        "envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy" => "bytes pass unparsed",
        "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig" => {
            "header case is always preserved"
        }
        "envoy.extensions.upstreams.http.generic.v3.GenericConnectionPoolProto"
        | "envoy.extensions.upstreams.tcp.generic.v3.GenericConnectionPoolProto"
        | "envoy.extensions.upstreams.http.http.v3.HttpConnectionPoolProto"
        | "envoy.extensions.upstreams.http.tcp.v3.TcpConnectionPoolProto" => "connection pools are the proxy's own",
        "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec" => "the codec is always there",
        "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig"
        | "envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig"
        | "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig"
        | "envoy.extensions.access_loggers.stats.v3.Config"
        | "envoy.extensions.access_loggers.fluentd.v3.FluentdAccessLogConfig"
        | "envoy.extensions.access_loggers.wasm.v3.WasmAccessLog" => LOGGER,
        "envoy.extensions.bootstrap.internal_listener.v3.InternalListener" => "there are no internal listeners",
        "envoy.extensions.regex_engines.v3.GoogleRE2" => "the engine here has the same guarantees",
        kind if kind.starts_with("envoy.config.trace.v3.") || kind.starts_with("envoy.extensions.tracers.") => TRACING,
        _ => return None,
    })
}

/// A TypedStruct in the place of a resource, as the message it stands for, and its name. That is how a resource file
/// holds a type that nobody here knows; its bytes then stay as they are, for whoever refuses them.
pub(crate) fn typed_resource(any: &Any) -> Result<Option<(Any, String)>, String> {
    if !is_typed_struct(short(&any.type_url)) {
        return Ok(None);
    }
    let typed = TypedStruct::decode(any.value.as_slice()).map_err(|e| format!("malformed TypedStruct: {e}"))?;
    let fields = typed.value.as_ref().map(metadata::object).unwrap_or_default();
    let name =
        ["name", "cluster_name"].iter().find_map(|key| fields.get(*key)?.as_str()).unwrap_or_default().to_owned();
    let value = match json::bytes_from_value(short(&typed.type_url), serde_json::Value::Object(fields)) {
        Ok(bytes) => bytes,
        Err(json::Error::UnknownType(_)) => any.value.clone(),
        Err(e) => return Err(e.to_string()),
    };
    Ok(Some((Any { type_url: typed.type_url, value }, name)))
}

fn is_typed_struct(kind: &str) -> bool {
    matches!(kind, "xds.type.v3.TypedStruct" | "udpa.type.v1.TypedStruct")
}

/// The optional `Resource` around `any`; an empty name and version when there is none.
pub(crate) fn wrapper(any: &Any) -> Result<Option<discovery::Resource>, String> {
    if short(&any.type_url) != "envoy.service.discovery.v3.Resource" {
        return Ok(None);
    }
    discovery::Resource::decode(any.value.as_slice()).map(Some).map_err(|e| format!("malformed resource: {e}"))
}
