//! Virtual hosts, and the routes in them.

use std::{collections::HashMap, sync::Arc};

use outrigger_wire::pb::envoy::config::route::v3::{
    Route as PbRoute, VirtualHost as Pb, route::Action as PbAction, virtual_host::TlsRequirementType,
};
use prost::Message;

use super::{
    at::At,
    cors,
    fields::fields,
    header_ops::{header_ops, lists},
    metadata,
    mirror::mirrors,
    per_route, rate_limit,
    report::Reject,
    retry::{body_buffer, hedge, retry},
    route_action,
    route_match::route_match,
    scalar::{bool_or, enumeration, not_empty},
    tracing,
};
use crate::ir::{
    route::{Action, Mirror, Route, VirtualHost},
    share::share,
};

/// What the routes need to know of the configuration they are in.
#[derive(Clone)]
pub(crate) struct Inherited {
    pub direct_response_body: usize,
    pub mirrors: Arc<[Mirror]>,
}

pub(crate) fn virtual_hosts(
    messages: &[&[u8]],
    inherited: &Inherited,
    at: &At<'_>,
) -> Result<Vec<Arc<VirtualHost>>, Reject> {
    let hosts = at.each("virtual_hosts", messages, |message, at| {
        let message = Pb::decode(*message).map_err(|e| at.reject(format!("malformed: {e}")))?;
        virtual_host(&message, inherited, at).map(Arc::new)
    })?;
    let mut domains: HashMap<&str, usize> = HashMap::with_capacity(hosts.iter().map(|h| h.domains.len()).sum());
    for (i, host) in hosts.iter().enumerate() {
        for (d, domain) in host.domains.iter().enumerate() {
            if let Some(other) = domains.insert(domain, i) {
                let at = at.index("virtual_hosts", i);
                let reason = format!("only unique values for domains are permitted: {domain:?} is in host {other} too");
                return Err(at.index("domains", d).reject(reason));
            }
        }
    }
    Ok(hosts)
}

fn virtual_host(message: &Pb, inherited: &Inherited, at: &At<'_>) -> Result<VirtualHost, Reject> {
    fields!(at, message => Pb {
        read: [
            name, domains, routes, require_tls, request_headers_to_add, request_headers_to_remove,
            response_headers_to_add, response_headers_to_remove, cors, typed_per_filter_config,
            include_request_attempt_count, include_attempt_count_in_response, retry_policy, hedge_policy,
            include_is_timeout_retry_header, per_request_buffer_limit_bytes, request_body_buffer_limit,
            request_mirror_policies, rate_limits,
        ],
        harmless: [virtual_clusters, metadata],
        unsupported: [retry_policy_typed_config],
        refuse: [matcher, route_specifiers],
    });
    let others = (cors::old(&message.cors, at)?, rate_limit::of_level(&message.rate_limits, false, at)?);
    let overrides = per_route::overrides(&message.typed_per_filter_config, others, at)?;
    if message.domains.is_empty() {
        return Err(at.field("domains").reject("must not be empty"));
    }
    let require_tls = match enumeration(message.require_tls, &at.field("require_tls"))? {
        TlsRequirementType::None => false,
        TlsRequirementType::All => true,
        TlsRequirementType::ExternalOnly => {
            return Err(at.field("require_tls").reject("EXTERNAL_ONLY is not supported by this release: use ALL"));
        }
    };
    let mirrors = mirrors(&message.request_mirror_policies, &inherited.mirrors, at)?;
    let inherited = &Inherited { mirrors, ..*inherited };
    Ok(VirtualHost {
        name: not_empty(&message.name, &at.field("name"))?.into(),
        domains: at.each("domains", &message.domains, |d, at| domain(d, at))?,
        routes: at.each("routes", &message.routes, |m, at| route(m, inherited, at).map(Arc::new))?,
        headers: share(header_ops(&lists!(message), at)?),
        retry: retry(&message.retry_policy, at)?,
        hedge: hedge(&message.hedge_policy, at).unwrap_or(false),
        timeout_retry_header: message.include_is_timeout_retry_header,
        body_buffer: body_buffer(&message.request_body_buffer_limit, &message.per_request_buffer_limit_bytes, at)?
            .map(Box::new),
        attempt_count_in_request: message.include_request_attempt_count,
        attempt_count_in_response: message.include_attempt_count_in_response,
        require_tls,
        overrides,
    })
}

fn domain(domain: &str, at: &At<'_>) -> Result<Box<str>, Reject> {
    if domain.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control()) {
        return Err(at.reject(format!("{domain:?} contains white space")));
    }
    let rest = domain.strip_prefix('*').unwrap_or_else(|| domain.strip_suffix('*').unwrap_or(domain));
    if rest.contains('*') {
        return Err(at.reject(format!("{domain:?}: only one wildcard, at the start or the end, is possible")));
    }
    Ok(not_empty(domain, at)?.to_ascii_lowercase().into())
}

fn route(message: &PbRoute, inherited: &Inherited, at: &At<'_>) -> Result<Route, Reject> {
    fields!(at, message => PbRoute {
        read: [
            name, r#match, metadata, typed_per_filter_config, request_headers_to_add, request_headers_to_remove,
            response_headers_to_add, response_headers_to_remove, action, per_request_buffer_limit_bytes,
            request_body_buffer_limit, decorator, tracing,
        ],
        harmless: [stat_prefix],
        refuse: [route_specifiers],
    });
    let others = match &message.action {
        Some(PbAction::Route(m)) => {
            let at = at.field("route");
            let include = bool_or(&m.include_vh_rate_limits, false);
            (cors::old(&m.cors, &at)?, rate_limit::of_level(&m.rate_limits, include, &at)?)
        }
        _ => (None, None),
    };
    let overrides = per_route::overrides(&message.typed_per_filter_config, others, at)?;
    let matches = route_match(at.required("match", &message.r#match)?, &at.field("match"))?;
    let action = match at.required("action", &message.action)? {
        PbAction::Route(m) => {
            let mut forward = route_action::forward(m, &matches.path, inherited, &at.field("route"))?;
            forward.body_buffer =
                body_buffer(&message.request_body_buffer_limit, &message.per_request_buffer_limit_bytes, at)?;
            Action::Forward(share(forward))
        }
        PbAction::Redirect(m) => Action::Redirect(Arc::new(route_action::redirect(m, &at.field("redirect"))?)),
        PbAction::DirectResponse(m) => {
            let at = at.field("direct_response");
            Action::Direct(Arc::new(route_action::direct(m, inherited.direct_response_body, &at)?))
        }
        PbAction::NonForwardingAction(_) => Action::NonForwarding,
        PbAction::FilterAction(_) => return Err(at.field("filter_action").reject("is not supported by this release")),
    };
    Ok(Route {
        name: message.name.as_str().into(),
        matches: share(matches),
        action,
        headers: share(header_ops(&lists!(message), at)?),
        metadata: metadata::metadata(&message.metadata, at),
        overrides,
        tracing: tracing::route(message, at)?,
    })
}
