//! `OpenTelemetryConfig`: who receives spans, what is said of the service, and its samplers.

use outrigger_wire::pb::envoy::{
    config::{
        core::v3::{HttpService, TypedExtensionConfig},
        trace::v3::OpenTelemetryConfig as Pb,
    },
    extensions::tracers::opentelemetry::{
        resource_detectors::v3::{EnvironmentResourceDetectorConfig, StaticConfigResourceDetectorConfig},
        samplers::v3::{AlwaysOnSamplerConfig, ParentBasedSamplerConfig, TraceIdRatioBasedSamplerConfig},
    },
};
use prost::Message;

use super::{
    at::At,
    extension,
    fields::fields,
    header_ops::addition,
    report::Reject,
    scalar::{bool_or, fraction},
    service::{grpc_service, http_uri},
};
use crate::ir::{
    Fraction,
    tracing::{Collector, HttpCollector, OpenTelemetry, Sampler},
};

/// Samplers inside samplers.
const DEEPEST: usize = 4;

/// Our own sampler, in a `TypedStruct`: Envoy has none that limits a rate.
const RATE_LIMITED: &str = "outrigger.tracers.samplers.v1.RateLimited";

#[derive(Clone, PartialEq, Message)]
struct RateLimited {
    #[prost(uint32, tag = "1")]
    traces_per_second: u32,
}

pub(crate) fn opentelemetry(message: &Pb, at: &At<'_>) -> Result<OpenTelemetry, Reject> {
    fields!(at, message => Pb {
        read: [
            grpc_service, http_service, service_name, resource_detectors, sampler, max_cache_size,
            set_telemetry_sdk_resource_attributes, set_service_name_resource_attribute, set_instrumentation_scope,
        ],
        refuse: [exporter],
    });
    let collector = match (&message.grpc_service, &message.http_service) {
        (Some(_), Some(_)) => {
            return Err(at.field("http_service").reject("grpc_service and http_service exclude each other"));
        }
        (Some(m), None) => Some(Collector::Grpc(grpc_service(m, None, &at.field("grpc_service"))?)),
        (None, Some(m)) => Some(Collector::Http(http_service(m, &at.field("http_service"))?)),
        (None, None) => None,
    };
    let mut resource: Vec<(Box<str>, Box<str>)> = Vec::new();
    if bool_or(&message.set_service_name_resource_attribute, true) {
        let name = Some(&*message.service_name).filter(|name| !name.is_empty());
        resource.push(("service.name".into(), name.unwrap_or("unknown_service:outrigger").into()));
    }
    if bool_or(&message.set_telemetry_sdk_resource_attributes, true) {
        let sdk = [("language", "rust"), ("name", "outrigger"), ("version", env!("CARGO_PKG_VERSION"))];
        resource.extend(sdk.map(|(key, value)| (format!("telemetry.sdk.{key}").into(), value.into())));
    }
    let mut detects_environment = false;
    for (i, detector) in message.resource_detectors.iter().enumerate() {
        let at = at.index("resource_detectors", i);
        let any = at.required("typed_config", &detector.typed_config)?;
        let at = at.field("typed_config");
        let extension = extension::open(any, &at)?;
        if extension.is::<EnvironmentResourceDetectorConfig>() {
            detects_environment = true;
        } else if extension.is::<StaticConfigResourceDetectorConfig>() {
            let message: StaticConfigResourceDetectorConfig = extension.message(&at)?;
            let mut attributes: Vec<_> = message.attributes.into_iter().collect();
            attributes.sort();
            resource.extend(attributes.into_iter().map(|(key, value)| (key.into(), value.into())));
        } else {
            extension.ignore("resource detector", &at)?;
        }
    }
    Ok(OpenTelemetry {
        collector,
        resource,
        detects_environment,
        scope: bool_or(&message.set_instrumentation_scope, true),
        sampler: message.sampler.as_ref().map_or(Ok(None), |m| sampler(m, 0, &at.field("sampler")))?,
        capacity: message.max_cache_size.map(|size| usize::try_from(size.value).unwrap_or(usize::MAX)),
    })
}

fn http_service(message: &HttpService, at: &At<'_>) -> Result<HttpCollector, Reject> {
    fields!(at, message => HttpService { read: [http_uri, request_headers_to_add], unsupported: [formatters] });
    let uri = http_uri(at.required("http_uri", &message.http_uri)?, &at.field("http_uri"))?;
    let parsed = uri.uri.parse::<http::Uri>();
    let parsed = parsed.map_err(|e| at.field("http_uri").field("uri").reject(format!("{:?}: {e}", uri.uri)))?;
    let add = |m: &_, at: &At<'_>| addition(m, true, at);
    let added = at.each("request_headers_to_add", &message.request_headers_to_add, add)?;
    Ok(HttpCollector {
        authority: parsed.authority().map_or("", |authority| authority.as_str()).into(),
        path: parsed.path_and_query().cloned().unwrap_or_else(|| http::uri::PathAndQuery::from_static("/")),
        headers: added.into_iter().flatten().map(|add| (add.name, add.value)).collect(),
        uri,
    })
}

/// `None`, with a note, for a sampler that does not exist here: Envoy's own decision then holds.
fn sampler(message: &TypedExtensionConfig, depth: usize, at: &At<'_>) -> Result<Option<Sampler>, Reject> {
    if depth == DEEPEST {
        return Err(at.reject(format!("more than {DEEPEST} samplers in each other")));
    }
    let any = at.required("typed_config", &message.typed_config)?;
    let at = at.field("typed_config");
    let extension = extension::open(any, &at)?;
    Ok(Some(if extension.is::<AlwaysOnSamplerConfig>() {
        Sampler::AlwaysOn
    } else if extension.is::<TraceIdRatioBasedSamplerConfig>() {
        let message: TraceIdRatioBasedSamplerConfig = extension.message(&at)?;
        let share = message.sampling_percentage.as_ref();
        let share = share.map(|m| fraction(m, &at.field("sampling_percentage"))).transpose()?;
        Sampler::Ratio(share.unwrap_or(Fraction { numerator: 0, denominator: 100 }))
    } else if extension.is::<ParentBasedSamplerConfig>() {
        let message: ParentBasedSamplerConfig = extension.message(&at)?;
        let inner = at.required("wrapped_sampler", &message.wrapped_sampler)?;
        let Some(inner) = sampler(inner, depth + 1, &at.field("wrapped_sampler"))? else { return Ok(None) };
        Sampler::ParentBased(Box::new(inner))
    } else if extension.kind == RATE_LIMITED {
        let message: RateLimited = extension.foreign(&at, |fields| {
            let rate = fields.get("traces_per_second").or(fields.get("tracesPerSecond"));
            let rate = rate.and_then(serde_json::Value::as_u64).and_then(|rate| u32::try_from(rate).ok());
            let known = fields.len() == 1;
            let traces_per_second =
                rate.filter(|_| known).ok_or("needs traces_per_second, a number, and nothing else")?;
            Ok(RateLimited { traces_per_second })
        })?;
        Sampler::RateLimited(message.traces_per_second)
    } else {
        extension.ignore("sampler", &at)?;
        return Ok(None);
    }))
}
