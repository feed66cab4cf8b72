//! Tracing of connection managers and routes, and what both say of spans.

use std::sync::Arc;

use outrigger_wire::pb::envoy::{
    config::{
        route::v3::{Decorator as PbDecorator, Route as PbRoute, Tracing as PbRouteTracing},
        trace::v3::{
            OpenTelemetryConfig,
            tracing::{Http as PbProvider, http::ConfigType},
        },
    },
    extensions::{
        filters::network::http_connection_manager::v3::{
            RequestIdExtension, http_connection_manager::Tracing as PbTracing,
        },
        request_id::uuid::v3::UuidRequestIdConfig,
    },
    r#type::{
        metadata::v3::{MetadataKey, metadata_key::path_segment::Segment, metadata_kind::Kind},
        tracing::v3::{
            CustomTag as PbTag,
            custom_tag::{Metadata as PbMetadata, Type},
        },
        v3::{FractionalPercent, Percent},
    },
};

use super::{
    at::At,
    extension,
    fields::fields,
    format_string::template,
    opentelemetry::opentelemetry,
    report::Reject,
    scalar::{bool_or, fraction, header_name, not_empty, percent, u32_or},
};
use crate::ir::{
    Fraction,
    format::{MetadataPath, MetadataSource, Operator, Segment as Part, Template},
    http::{FilterKind, HttpFilter},
    share::share,
    tracing::{CustomTag, Decorator, OpenTelemetry, OwnTracing, RequestId, RouteTracing, Shares, Tracing},
};

const MAX_PATH: u32 = 256;
const WHOLE: Fraction = Fraction { numerator: 100, denominator: 100 };

/// What `request_id_extension` says of tracing.
pub(crate) fn request_id(message: &Option<RequestIdExtension>, at: &At<'_>) -> Result<RequestId, Reject> {
    let Some(message) = message else { return Ok(RequestId::default()) };
    let at = at.field("request_id_extension");
    let any = at.required("typed_config", &message.typed_config)?;
    let at = at.field("typed_config");
    let extension = extension::open(any, &at)?;
    if !extension.is::<UuidRequestIdConfig>() {
        return extension.ignore("request id extension", &at).map(|()| RequestId::default());
    }
    let message: UuidRequestIdConfig = extension.message(&at)?;
    fields!(&at, &message => UuidRequestIdConfig { read: [pack_trace_reason, use_request_id_for_trace_sampling] });
    Ok(RequestId {
        pack_reason: bool_or(&message.pack_trace_reason, true),
        decides: bool_or(&message.use_request_id_for_trace_sampling, true),
    })
}

/// Of a connection manager with these `filters`.
pub(crate) fn manager(
    message: &Option<PbTracing>,
    (request_id, filters): (RequestId, &[HttpFilter]),
    at: &At<'_>,
) -> Result<Option<Arc<Tracing>>, Reject> {
    let Some(message) = message else { return Ok(None) };
    let at = &at.field("tracing");
    fields!(at, message => PbTracing {
        read: [
            client_sampling, random_sampling, overall_sampling, verbose, max_path_tag_length, custom_tags, provider,
            spawn_upstream_span, operation, upstream_operation, no_context_propagation,
        ],
    });
    let child = |filter: &HttpFilter| matches!(&filter.kind, FilterKind::Router(router) if router.start_child_span);
    let max_path = u32_or(&message.max_path_tag_length, MAX_PATH);
    Ok(Some(share(Tracing {
        shares: Shares {
            client: share_of("client_sampling", &message.client_sampling, at)?,
            random: share_of("random_sampling", &message.random_sampling, at)?,
            overall: share_of("overall_sampling", &message.overall_sampling, at)?,
        },
        custom_tags: at.each("custom_tags", &message.custom_tags, custom_tag)?,
        verbose: message.verbose,
        max_path: usize::try_from(max_path).unwrap_or(usize::MAX),
        spawn_upstream_span: bool_or(&message.spawn_upstream_span, false) || filters.iter().any(child),
        operation: operation("operation", &message.operation, at)?,
        upstream_operation: operation("upstream_operation", &message.upstream_operation, at)?,
        no_context_propagation: message.no_context_propagation,
        request_id,
        provider: match &message.provider {
            Some(m) => provider(m, &at.field("provider"))?,
            None => None,
        },
    })))
}

/// Who receives spans; `None`, with a note, for other tracers.
pub(crate) fn provider(message: &PbProvider, at: &At<'_>) -> Result<Option<Arc<OpenTelemetry>>, Reject> {
    let ConfigType::TypedConfig(any) = at.required("typed_config", &message.config_type)?;
    let at = at.field("typed_config");
    let extension = extension::open(any, &at)?;
    if !extension.is::<OpenTelemetryConfig>() {
        return extension.ignore("tracer", &at).map(|()| None);
    }
    opentelemetry(&extension.message(&at)?, &at).map(|config| Some(share(config)))
}

/// Of a route.
pub(crate) fn route(message: &PbRoute, at: &At<'_>) -> Result<Option<Arc<RouteTracing>>, Reject> {
    let decorator = message.decorator.as_ref().map(|m| {
        let at = at.field("decorator");
        fields!(&at, m => PbDecorator { read: [operation, propagate] });
        let operation = not_empty(&m.operation, &at.field("operation"))?.into();
        Ok(Decorator { operation, propagate: bool_or(&m.propagate, true) })
    });
    let own = message.tracing.as_ref().map(|m| {
        let at = &at.field("tracing");
        fields!(at, m => PbRouteTracing {
            read: [client_sampling, random_sampling, overall_sampling, custom_tags, operation, upstream_operation],
        });
        Ok(Box::new(OwnTracing {
            shares: Shares {
                client: part_of("client_sampling", &m.client_sampling, at)?,
                random: part_of("random_sampling", &m.random_sampling, at)?,
                overall: part_of("overall_sampling", &m.overall_sampling, at)?,
            },
            custom_tags: at.each("custom_tags", &m.custom_tags, custom_tag)?,
            operation: operation("operation", &m.operation, at)?,
            upstream_operation: operation("upstream_operation", &m.upstream_operation, at)?,
        }))
    });
    let tracing = RouteTracing { decorator: decorator.transpose()?, own: own.transpose()? };
    Ok((tracing != RouteTracing::default()).then(|| share(tracing)))
}

/// In ten thousandths, as Envoy counts, so that both decide alike; finer where the number is.
fn share_of(name: &str, message: &Option<Percent>, at: &At<'_>) -> Result<Fraction, Reject> {
    let Some(message) = message else { return Ok(WHOLE) };
    let percent = percent(message, &at.field(name))?;
    let of = |denominator: u32| {
        let exact = percent * f64::from(denominator) / 100.0;
        (Fraction { numerator: exact.round() as u32, denominator }, (exact - exact.round()).abs())
    };
    let (coarse, rest) = of(10_000);
    Ok(if rest < 1e-6 { coarse } else { of(1_000_000).0 })
}

fn part_of(name: &str, message: &Option<FractionalPercent>, at: &At<'_>) -> Result<Fraction, Reject> {
    message.as_ref().map_or(Ok(WHOLE), |m| fraction(m, &at.field(name)))
}

fn operation(name: &str, text: &str, at: &At<'_>) -> Result<Option<Template>, Reject> {
    if text.is_empty() { Ok(None) } else { template(text, &at.field(name)).map(Some) }
}

fn custom_tag(message: &PbTag, at: &At<'_>) -> Result<CustomTag, Reject> {
    fields!(at, message => PbTag { read: [tag, r#type] });
    let name = not_empty(&message.tag, &at.field("tag"))?.into();
    let lone = |op| Template { segments: vec![Part::Op { op, max_len: None }] };
    let (value, default) = match at.required("type", &message.r#type)? {
        Type::Literal(m) => {
            let value = not_empty(&m.value, &at.field("literal"))?;
            (Template { segments: vec![Part::Text(value.into())] }, "")
        }
        Type::Environment(m) => {
            let name = not_empty(&m.name, &at.field("environment"))?;
            (lone(Operator::Environment(name.into())), &*m.default_value)
        }
        Type::RequestHeader(m) => {
            let name = match m.name.as_str() {
                pseudo @ (":path" | ":method" | ":authority" | ":scheme") => pseudo.to_owned(),
                name => header_name(name, &at.field("request_header").field("name"))?.as_str().to_owned(),
            };
            (lone(Operator::Req(name.into(), None)), &*m.default_value)
        }
        Type::Metadata(m) => (metadata(m, &at.field("metadata"))?, &*m.default_value),
        Type::Value(text) => (template(text, &at.field("value"))?, ""),
    };
    Ok(CustomTag { name, value, default: default.into() })
}

fn metadata(message: &PbMetadata, at: &At<'_>) -> Result<Template, Reject> {
    let kind = at.required("kind", &message.kind)?;
    let source = match at.field("kind").required("kind", &kind.kind)? {
        Kind::Request(_) => MetadataSource::Dynamic,
        Kind::Route(_) => MetadataSource::Route,
        Kind::Cluster(_) | Kind::Host(_) => {
            at.field("kind").unsupported("metadata of clusters and hosts is not kept: the tag has its default value");
            MetadataSource::Other
        }
    };
    let key = at.required("metadata_key", &message.metadata_key)?;
    let at = at.field("metadata_key");
    fields!(&at, key => MetadataKey { read: [key, path] });
    let path = at.each("path", &key.path, |segment, at| match at.required("segment", &segment.segment)? {
        Segment::Key(key) => Ok(not_empty(key, &at.field("key"))?.into()),
        Segment::Index(_) => Err(at.field("index").reject("is not supported by this release")),
    })?;
    let namespace = not_empty(&key.key, &at.field("key"))?.into();
    let op = Operator::Metadata(MetadataPath { source, namespace, path: path.into() });
    Ok(Template { segments: vec![Part::Op { op, max_len: None }] })
}
