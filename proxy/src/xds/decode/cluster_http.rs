//! HTTP towards the upstream: `HttpProtocolOptions`, or the deprecated fields of the cluster itself.

use outrigger_wire::pb::envoy::{
    config::{
        cluster::v3::{Cluster as Pb, cluster::ClusterProtocolSelection},
        core::v3::{HttpProtocolOptions as PbCommon, UpstreamHttpProtocolOptions},
    },
    extensions::upstreams::http::v3::{
        HttpProtocolOptions,
        http_protocol_options::{
            AutoHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig, explicit_http_config::ProtocolConfig,
        },
    },
};

use super::{
    at::At,
    extension,
    fields::fields,
    http_filter::upstream_filters,
    http_options::{common, http1, http2},
    report::{NoteKind, Reject},
    retry::retry,
    scalar::enumeration,
};
use crate::ir::{
    cluster::{UpstreamHttp, UpstreamProtocol},
    http::{Http1Options, Http2Options},
};

const HTTP3: &str = "HTTP/3 is not supported by this release";

pub(crate) fn upstream(message: &Pb, at: &At<'_>) -> Result<UpstreamHttp, Reject> {
    let mut found = None;
    let mut options: Vec<_> = message.typed_extension_protocol_options.iter().collect();
    options.sort_by_key(|(name, _)| *name);
    for (name, any) in options {
        let at = at.key("typed_extension_protocol_options", name);
        let extension = extension::open(any, &at)?;
        if extension.is::<HttpProtocolOptions>() {
            found = Some(modern(&extension.message(&at)?, &at)?);
        } else {
            at.unsupported(format!("{} has no effect", extension.kind));
        }
    }
    match found {
        Some(http) => Ok(http),
        None => deprecated(message, at),
    }
}

fn modern(message: &HttpProtocolOptions, at: &At<'_>) -> Result<UpstreamHttp, Reject> {
    fields!(at, message => HttpProtocolOptions {
        read: [
            common_http_protocol_options, upstream_http_protocol_options, http_filters, upstream_protocol_options,
            retry_policy,
        ],
        harmless: [header_validation_config],
        unsupported: [outlier_detection, hash_policy],
        refuse: [request_mirror_policies],
    });
    upstream_filters("http_filters", &message.http_filters, at)?;
    let (protocol, one, two) = match at.required("upstream_protocol_options", &message.upstream_protocol_options)? {
        UpstreamProtocolOptions::ExplicitHttpConfig(m) => {
            let at = at.field("explicit_http_config");
            match at.required("protocol_config", &m.protocol_config)? {
                ProtocolConfig::HttpProtocolOptions(m) => {
                    let one = http1(&Some(m.clone()), &at.field("http_protocol_options"))?;
                    (UpstreamProtocol::Http1, one, Http2Options::default())
                }
                ProtocolConfig::Http2ProtocolOptions(m) => {
                    let two = http2(&Some(m.clone()), &at.field("http2_protocol_options"))?;
                    (UpstreamProtocol::Http2, Http1Options::default(), two)
                }
                ProtocolConfig::Http3ProtocolOptions(_) => {
                    return Err(at.field("http3_protocol_options").reject(HTTP3));
                }
            }
        }
        UpstreamProtocolOptions::UseDownstreamProtocolConfig(m) => {
            let at = at.field("use_downstream_protocol_config");
            fields!(&at, m => UseDownstreamHttpConfig {
                read: [http_protocol_options, http2_protocol_options],
                unsupported: [http3_protocol_options],
            });
            let one = http1(&m.http_protocol_options, &at.field("http_protocol_options"))?;
            (
                UpstreamProtocol::UseDownstream,
                one,
                http2(&m.http2_protocol_options, &at.field("http2_protocol_options"))?,
            )
        }
        UpstreamProtocolOptions::AutoConfig(m) => {
            let at = at.field("auto_config");
            fields!(&at, m => AutoHttpConfig {
                read: [http_protocol_options, http2_protocol_options],
                unsupported: [http3_protocol_options, alternate_protocols_cache_options],
            });
            let one = http1(&m.http_protocol_options, &at.field("http_protocol_options"))?;
            (UpstreamProtocol::Auto, one, http2(&m.http2_protocol_options, &at.field("http2_protocol_options"))?)
        }
    };
    let retry = retry(&message.retry_policy, at)?;
    let http = UpstreamHttp { protocol, http1: one, http2: two, retry, ..UpstreamHttp::default() };
    shared(http, &message.common_http_protocol_options, &message.upstream_http_protocol_options, at)
}

fn deprecated(message: &Pb, at: &At<'_>) -> Result<UpstreamHttp, Reject> {
    let old = |name: &str, set: bool| {
        if set {
            at.field(name).note(NoteKind::Deprecated, "use typed_extension_protocol_options");
        }
    };
    old("upstream_http_protocol_options", message.upstream_http_protocol_options.is_some());
    old("common_http_protocol_options", message.common_http_protocol_options.is_some());
    old("http_protocol_options", message.http_protocol_options.is_some());
    old("http2_protocol_options", message.http2_protocol_options.is_some());
    old("max_requests_per_connection", message.max_requests_per_connection.is_some());
    let selection: ClusterProtocolSelection = enumeration(message.protocol_selection, &at.field("protocol_selection"))?;
    let downstream = selection == ClusterProtocolSelection::UseDownstreamProtocol;
    old("protocol_selection", downstream);
    let protocol = match (downstream, &message.http2_protocol_options) {
        (true, _) => UpstreamProtocol::UseDownstream,
        (false, Some(_)) => UpstreamProtocol::Http2,
        (false, None) => UpstreamProtocol::Http1,
    };
    let http = UpstreamHttp {
        protocol,
        http1: http1(&message.http_protocol_options, &at.field("http_protocol_options"))?,
        http2: http2(&message.http2_protocol_options, &at.field("http2_protocol_options"))?,
        ..UpstreamHttp::default()
    };
    let mut http = shared(http, &message.common_http_protocol_options, &message.upstream_http_protocol_options, at)?;
    if let Some(limit) = &message.max_requests_per_connection {
        http.max_requests_per_connection = Some(limit.value).filter(|v| *v > 0);
    }
    Ok(http)
}

fn shared(
    mut http: UpstreamHttp,
    options: &Option<PbCommon>,
    upstream: &Option<UpstreamHttpProtocolOptions>,
    at: &At<'_>,
) -> Result<UpstreamHttp, Reject> {
    if let Some(m) = options {
        let at = at.field("common_http_protocol_options");
        if m.max_headers_count.is_some() {
            at.field("max_headers_count").unsupported("responses are bounded by the connection manager's defaults");
        }
    }
    let common = common(options, &at.field("common_http_protocol_options"))?;
    http.idle_timeout = common.idle_timeout;
    http.max_connection_duration = common.max_connection_duration;
    http.max_stream_duration = common.max_stream_duration;
    http.max_requests_per_connection = common.max_requests_per_connection;
    if let Some(m) = upstream {
        let at = at.field("upstream_http_protocol_options");
        fields!(&at, m => UpstreamHttpProtocolOptions {
            read: [auto_sni, auto_san_validation],
            refuse: [override_auto_sni_header],
        });
        http.auto_sni = m.auto_sni;
        http.auto_san_validation = m.auto_san_validation;
    }
    Ok(http)
}
