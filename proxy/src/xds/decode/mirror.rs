//! Request mirror policies.

use std::sync::Arc;

use outrigger_wire::pb::envoy::config::route::v3::route_action::RequestMirrorPolicy as Pb;

use super::{
    at::At,
    fields::fields,
    hcm_options::header_value,
    header_mutation::list,
    report::Reject,
    scalar::{header_name, runtime_fraction},
};
use crate::ir::route::{Mirror, MirrorTarget};

/// The policies of one level, or those it inherits.
pub(crate) fn mirrors(messages: &[Pb], inherited: &Arc<[Mirror]>, at: &At<'_>) -> Result<Arc<[Mirror]>, Reject> {
    if messages.is_empty() {
        return Ok(inherited.clone());
    }
    at.each("request_mirror_policies", messages, mirror).map(Into::into)
}

fn mirror(message: &Pb, at: &At<'_>) -> Result<Mirror, Reject> {
    fields!(at, message => Pb {
        read: [
            cluster, cluster_header, runtime_fraction, disable_shadow_host_suffix_append, request_headers_mutations,
            host_rewrite_literal,
        ],
        // A copy carries the trace headers of the request, sampled as that one is.
        harmless: [trace_sampled],
    });
    let target = match (message.cluster.as_str(), message.cluster_header.as_str()) {
        ("", "") => return Err(at.field("cluster").reject("is required, or cluster_header")),
        (name, "") => MirrorTarget::Cluster(name.into()),
        ("", header) => MirrorTarget::Header(header_name(header, &at.field("cluster_header"))?),
        _ => return Err(at.field("cluster_header").reject("excludes cluster")),
    };
    let host = match message.host_rewrite_literal.as_str() {
        "" => None,
        host => Some(header_value(host, &at.field("host_rewrite_literal"))?),
    };
    Ok(Mirror {
        target,
        fraction: match &message.runtime_fraction {
            Some(m) => Some(runtime_fraction(m, &at.field("runtime_fraction"))?),
            None => None,
        },
        suffix: !message.disable_shadow_host_suffix_append,
        host,
        mutations: list("request_headers_mutations", &message.request_headers_mutations, true, at)?,
    })
}
