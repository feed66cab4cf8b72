//! One HTTP route of a VirtualService, or the route that stands in where there is none.

use super::{
    matches,
    pb::{self, any, core, matcher, route},
    scope::Scope,
};
use crate::model::{
    Body, DerivePort, DirectResponse, HeaderOperations, Headers, HttpRoute, Object, Redirect, Retries, Rewrite,
    StringMatch, VirtualService,
};
use core::header_value_option::HeaderAppendAction;
use outrigger_wire::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use route::{
    redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
    route::Action,
    route_action::{ClusterSpecifier, HostRewriteSpecifier},
};

const RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";

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
            routes.push(built);
        }
        if routes.last().and_then(|last| last.r#match.as_ref()).is_some_and(matches::is_everything) {
            break;
        }
    }
    routes
}

/// Everything to one cluster, with Istio's defaults.
pub(super) fn default(cluster: String) -> route::Route {
    let action = route::RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
        timeout: pb::zero(),
        retry_policy: Some(retry_policy(None)),
        ..Default::default()
    };
    route::Route {
        name: "default".to_owned(),
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
        timeout: rule.timeout.map_or_else(pb::zero, |t| pb::duration(t.0)),
        retry_policy: (rule.retries.as_ref().is_none_or(|r| r.attempts > 0))
            .then(|| retry_policy(rule.retries.as_ref())),
        ..Default::default()
    };
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

fn retry_policy(retries: Option<&Retries>) -> route::RetryPolicy {
    let predicate = route::retry_policy::RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(route::retry_policy::retry_host_predicate::ConfigType::TypedConfig(any(
            PreviousHostsPredicate::default(),
        ))),
    };
    let mut policy = route::RetryPolicy {
        retry_on: RETRY_ON.to_owned(),
        num_retries: pb::number(2),
        retry_host_predicate: vec![predicate],
        host_selection_retry_max_attempts: 5,
        retriable_status_codes: vec![503],
        ..Default::default()
    };
    let Some(retries) = retries else { return policy };
    policy.num_retries = pb::number(retries.attempts.into());
    policy.per_try_timeout = retries.per_try_timeout.and_then(|t| pb::duration(t.0));
    if !retries.retry_on.conditions.is_empty() || !retries.retry_on.codes.is_empty() {
        let mut conditions = retries.retry_on.conditions.clone();
        if !retries.retry_on.codes.is_empty() && !conditions.iter().any(|c| c == "retriable-status-codes") {
            conditions.push("retriable-status-codes".to_owned());
        }
        policy.retry_on = conditions.join(",");
        policy.retriable_status_codes.clone_from(&retries.retry_on.codes);
    }
    if let Some(backoff) = retries.backoff {
        policy.retry_back_off = Some(route::retry_policy::RetryBackOff {
            base_interval: pb::duration(backoff.0),
            max_interval: pb::duration(backoff.0 * 10),
        });
    }
    if retries.retry_ignore_previous_hosts == Some(false) {
        policy.retry_host_predicate.clear();
        policy.host_selection_retry_max_attempts = 0;
    }
    policy
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
        Some(DerivePort::FromProtocolDefault) if redirect.scheme.as_deref() == Some("https") => 443,
        Some(DerivePort::FromProtocolDefault) => 80,
        None => 0,
    };
    let scheme = redirect.scheme.clone().map(SchemeRewriteSpecifier::SchemeRedirect);
    route::RedirectAction {
        host_redirect: redirect.authority.clone().unwrap_or_default(),
        port_redirect: redirect.port.unwrap_or(derived).into(),
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
