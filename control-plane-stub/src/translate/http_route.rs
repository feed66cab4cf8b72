//! One HTTP route of a VirtualService, or the route that stands in where there is none.

use std::time::Duration;

use super::{
    balancing, matches,
    pb::{self, core, matcher, route},
    per_route, retries,
    scope::Scope,
};
use crate::{
    model::{
        Body, ConsistentHash, DerivePort, Destination, DirectResponse, HeaderOperations, Headers, HttpRoute, Object,
        Redirect, Rewrite, StringMatch, VirtualService,
    },
    resources::ClientKind,
};
use core::header_value_option::HeaderAppendAction;
use route::{
    redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
    route::Action,
    route_action::{ClusterSpecifier, HostRewriteSpecifier},
};

/// The routes of a VirtualService for calls to port `called`, in its order.
pub(super) fn routes(scope: &Scope<'_>, service: &Object<VirtualService>, called: u16) -> Vec<route::Route> {
    let mut routes = Vec::new();
    for rule in &service.spec.http {
        if rule.matches.is_empty() {
            routes.push(one(scope, rule, matches::everything(), None, called));
        }
        for wanted in &rule.matches {
            let source = scope.is_source(&wanted.source_labels, wanted.source_namespace.as_deref(), &wanted.gateways);
            if !source || wanted.port.is_some_and(|port| port != called) {
                continue;
            }
            let mut built = one(scope, rule, matches::condition(wanted), wanted.uri.as_ref(), called);
            if let Some(name) = &wanted.name {
                let own = rule.name.as_deref().map_or_else(String::new, |own| format!("{own}."));
                built.name = format!("{own}{name}");
            }
            built.stat_prefix = wanted.stat_prefix.clone().unwrap_or_default();
            routes.push(built);
            if routes.last().and_then(|last| last.r#match.as_ref()).is_some_and(matches::is_everything) {
                break;
            }
        }
        if routes.last().and_then(|last| last.r#match.as_ref()).is_some_and(matches::is_everything) {
            break;
        }
    }
    routes
}

/// Everything to one cluster, with Istio's defaults.
pub(super) fn default(cluster: String, hash: Option<&ConsistentHash>) -> route::Route {
    let mut action = route::RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
        retry_policy: retries::policy(None, hash.is_some()),
        hash_policy: hash.and_then(balancing::hash_policy).into_iter().collect(),
        ..Default::default()
    };
    set_timeout(&mut action, None, ClientKind::Envoy);
    route::Route {
        name: super::DEFAULT_ROUTE.to_owned(),
        r#match: Some(matches::everything()),
        action: Some(Action::Route(action)),
        ..Default::default()
    }
}

fn one(
    scope: &Scope<'_>,
    rule: &HttpRoute,
    condition: route::RouteMatch,
    uri: Option<&StringMatch>,
    called: u16,
) -> route::Route {
    let mut headers = vec![&rule.headers];
    let action = if let Some(redirect) = &rule.redirect {
        Action::Redirect(redirection(redirect, called))
    } else if let Some(response) = &rule.direct_response {
        Action::DirectResponse(direct_response(response))
    } else {
        if let [only] = rule.route.as_slice() {
            headers.push(&only.headers);
        }
        Action::Route(forward(scope, rule, uri, called))
    };
    let mut built = route::Route {
        name: rule.name.clone().unwrap_or_default(),
        r#match: Some(condition),
        action: Some(action),
        // A proxyless client knows faults, and refuses what it does not know.
        typed_per_filter_config: pb::ordered(per_route::configs(rule, scope.kind != ClientKind::Grpc)),
        ..Default::default()
    };
    for headers in headers {
        built.request_headers_to_add.extend(to_add(&headers.request));
        built.request_headers_to_remove.extend(headers.request.remove.iter().cloned());
        built.response_headers_to_add.extend(to_add(&headers.response));
        built.response_headers_to_remove.extend(headers.response.remove.iter().cloned());
    }
    built
}

fn forward(scope: &Scope<'_>, rule: &HttpRoute, uri: Option<&StringMatch>, called: u16) -> route::RouteAction {
    let specifier = match rule.route.as_slice() {
        [only] => ClusterSpecifier::Cluster(scope.cluster(&only.destination, called, false)),
        several => {
            let weighted = several.iter().filter_map(|target| {
                let weight = target.weight.filter(|weight| *weight > 0)?;
                Some(cluster_weight(scope.cluster(&target.destination, called, false), weight, &target.headers))
            });
            let clusters = weighted.collect();
            ClusterSpecifier::WeightedClusters(route::WeightedCluster { clusters, ..Default::default() })
        }
    };
    let mut action = route::RouteAction {
        cluster_specifier: Some(specifier),
        request_mirror_policies: per_route::mirrors(scope, rule, called),
        ..Default::default()
    };
    set_timeout(&mut action, rule.timeout.map(|t| t.0), scope.kind);
    for target in &rule.route {
        let policy = hash_policy(scope, &target.destination, called);
        action.hash_policy.extend(policy.filter(|policy| !action.hash_policy.contains(policy)));
    }
    // With several destinations, another one may be as good.
    let hashed = rule.route.len() == 1 && !action.hash_policy.is_empty();
    action.retry_policy = retries::policy(rule.retries.as_ref(), hashed);
    if let Some(rewrite) = &rule.rewrite {
        apply_rewrite(&mut action, rewrite, uri);
    }
    let one = if let [only] = rule.route.as_slice() { only.headers.host() } else { None };
    let authority = rule.rewrite.as_ref().and_then(|r| r.authority.as_deref());
    if let Some(host) = authority.or(one).or(rule.headers.host()) {
        action.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral(host.to_owned()));
    }
    action
}

fn hash_policy(scope: &Scope<'_>, destination: &Destination, called: u16) -> Option<route::route_action::HashPolicy> {
    let (service, port) = scope.destination(destination, called)?;
    let policy = scope.policy(service, destination.subset.as_deref(), port);
    balancing::hash_policy(balancing::hash(&policy)?)
}

/// No limit unless one is given, for gRPC that of `grpc-timeout`: Istio's defaults.
#[allow(deprecated)]
fn set_timeout(action: &mut route::RouteAction, timeout: Option<Duration>, kind: ClientKind) {
    let timeout = timeout.map_or_else(pb::zero, pb::duration);
    if kind == ClientKind::Grpc {
        let limit = route::route_action::MaxStreamDuration { max_stream_duration: timeout, ..Default::default() };
        action.max_stream_duration = timeout.filter(|t| *t != Default::default()).map(|_| limit);
    } else {
        // Its successor bounds the stream as a whole, retries and response body included, and answers otherwise.
        action.max_grpc_timeout = timeout;
    }
    action.timeout = timeout;
}

fn cluster_weight(name: String, weight: u32, headers: &Headers) -> route::weighted_cluster::ClusterWeight {
    use route::weighted_cluster::cluster_weight::HostRewriteSpecifier;
    let host = headers.host().map(|host| HostRewriteSpecifier::HostRewriteLiteral(host.to_owned()));
    route::weighted_cluster::ClusterWeight {
        name,
        weight: pb::number(weight),
        request_headers_to_add: to_add(&headers.request),
        request_headers_to_remove: headers.request.remove.clone(),
        response_headers_to_add: to_add(&headers.response),
        response_headers_to_remove: headers.response.remove.clone(),
        host_rewrite_specifier: host,
        ..Default::default()
    }
}

/// `set` before `add`, so that adding to a header that is also set adds to the new value.
fn to_add(operations: &HeaderOperations) -> Vec<core::HeaderValueOption> {
    let option = |name: &String, value: &String, action: HeaderAppendAction| core::HeaderValueOption {
        header: Some(core::HeaderValue { key: name.clone(), value: value.clone(), ..Default::default() }),
        append_action: action as i32,
        ..Default::default()
    };
    let host = |name: &str| name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority");
    let set = operations.set.0.iter().filter(|(name, _)| !host(name));
    let set = set.map(|(name, value)| option(name, value, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = operations.add.0.iter().map(|(name, value)| option(name, value, HeaderAppendAction::AppendIfExistsOrAdd));
    set.chain(add).collect()
}

fn apply_rewrite(action: &mut route::RouteAction, rewrite: &Rewrite, uri: Option<&StringMatch>) {
    let substitute = |pattern: &str, substitution: &str| matcher::RegexMatchAndSubstitute {
        pattern: Some(pb::regex(pattern)),
        substitution: substitution.to_owned(),
    };
    if let Some(regex) = &rewrite.uri_regex_rewrite {
        action.regex_rewrite = Some(substitute(&regex.pattern.0, &regex.rewrite));
    }
    let Some(path) = &rewrite.uri else { return };
    match uri {
        // The prefix /foo rewritten to / would make //bar of /foo/bar.
        Some(StringMatch::Prefix(prefix)) if path == "/" && !prefix.ends_with('/') => {
            action.regex_rewrite = Some(substitute(&format!("^{}(/?)(.*)", regex_escape(prefix)), r"/\2"));
        }
        _ => action.prefix_rewrite.clone_from(path),
    }
}

fn regex_escape(text: &str) -> String {
    regex::escape(text)
}

fn redirection(redirect: &Redirect, called: u16) -> route::RedirectAction {
    let code = match redirect.redirect_code.map(|code| code.0) {
        Some(302) => RedirectResponseCode::Found,
        Some(303) => RedirectResponseCode::SeeOther,
        Some(307) => RedirectResponseCode::TemporaryRedirect,
        Some(308) => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    };
    let path = redirect.uri.as_ref().map(|uri| match uri.strip_prefix("%PREFIX()%") {
        Some(rest) => PathRewriteSpecifier::PrefixRewrite(rest.to_owned()),
        None => PathRewriteSpecifier::PathRedirect(uri.clone()),
    });
    let derived = match redirect.derive_port {
        Some(DerivePort::FromRequestPort) => called,
        // That of the scheme is what a URL without a port means.
        Some(DerivePort::FromProtocolDefault) | None => 0,
    };
    let usual = if redirect.scheme.as_deref() == Some("https") { 443 } else { 80 };
    let port = Some(redirect.port.unwrap_or(derived)).filter(|port| *port != usual).unwrap_or(0);
    let scheme = redirect.scheme.clone().map(SchemeRewriteSpecifier::SchemeRedirect);
    route::RedirectAction {
        host_redirect: redirect.authority.clone().unwrap_or_default(),
        port_redirect: port.into(),
        response_code: code as i32,
        scheme_rewrite_specifier: scheme,
        path_rewrite_specifier: path,
        ..Default::default()
    }
}

fn direct_response(response: &DirectResponse) -> route::DirectResponseAction {
    let body = response.body.as_ref().map(|body| match body {
        Body::Text(text) => core::data_source::Specifier::InlineString(text.clone()),
        Body::Bytes(bytes) => core::data_source::Specifier::InlineBytes(bytes.clone()),
    });
    route::DirectResponseAction {
        status: response.status,
        body: body.map(|specifier| core::DataSource { specifier: Some(specifier), ..Default::default() }),
        ..Default::default()
    }
}
