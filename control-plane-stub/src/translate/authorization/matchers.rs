//! Clauses of rules as permissions and principals, each as Istio writes it.

use outrigger_wire::pb::envoy::{
    config::rbac::v3::{Permission, Principal, permission, principal},
    extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig,
};
use permission::Rule as Call;
use principal::Identifier as Caller;

use super::rules::Context;
use crate::{
    model::{Both, Clause, IpBlock, NamespacePattern, PathPattern, Pattern, ServiceAccount},
    translate::pb::{
        self, any, core,
        matcher::{self, StringMatcher, path_matcher, string_matcher::MatchPattern, value_matcher},
        route::{HeaderMatcher, header_matcher::HeaderMatchSpecifier},
    },
};

/// Where `jwt_authn` leaves what it read from a valid token.
const TOKEN_FILTER: &str = "envoy.filters.http.jwt_authn";
pub(in crate::translate) const TOKEN_PAYLOAD: &str = "payload";

/// What a clause about the call demands; nothing for one about the caller.
pub(super) fn permissions(clause: &Clause<'_>) -> Vec<Permission> {
    match clause {
        Clause::Host(both) => calls(both, |v| Call::Header(host(&v.0))),
        Clause::Method(both) => calls(both, |v| Call::Header(header(":method", &v.0))),
        Clause::Path(both) => calls(both, path),
        Clause::Port(both) => calls(both, |v| Call::DestinationPort(v.0.into())),
        Clause::DestinationIp(both) => calls(both, |v| Call::DestinationIp(pb::cidr(v.0))),
        Clause::ServerName(both) => calls(both, |v| Call::RequestedServerName(string(&v.0))),
        Clause::Metadata(filter, key, both) => {
            let call = |values: &[Pattern]| {
                let value = any_of(values.iter().map(|v| listed(&v.0)).collect());
                vec![permission(metadata_permission(metadata(filter, vec![key], value)))]
            };
            let mut all = if both.values.is_empty() { Vec::new() } else { call(both.values) };
            all.extend((!both.not_values.is_empty()).then(|| not_call(call(both.not_values).swap_remove(0))));
            all
        }
        Clause::Principal(_)
        | Clause::RequestPrincipal(_)
        | Clause::ServiceAccount(_)
        | Clause::Namespace(_)
        | Clause::RemoteIp(_)
        | Clause::SourceIp(_)
        | Clause::Audience(_)
        | Clause::Presenter(_)
        | Clause::Claim(..)
        | Clause::Header(..) => Vec::new(),
    }
}

/// What a clause about the caller demands; nothing for one about the call.
pub(super) fn principals(context: &Context<'_, '_>, clause: &Clause<'_>) -> Vec<Principal> {
    match clause {
        Clause::Principal(both) => {
            let here = |values: &[Pattern]| -> Vec<String> {
                values.iter().flat_map(|v| in_trust_domains(context.scope.world.trust_domains(), &v.0)).collect()
            };
            let (values, not_values) = (here(both.values), here(both.not_values));
            callers(&Both { values: &values, not_values: &not_values }, |v| authenticated(identity(v)))
        }
        Clause::ServiceAccount(both) => callers(both, |v| authenticated(account(context.namespace, v))),
        Clause::Namespace(both) => callers(both, |v| authenticated(namespace(v))),
        Clause::RemoteIp(both) => callers(both, |v: &IpBlock| Caller::RemoteIp(pb::cidr(v.0))),
        Clause::SourceIp(both) => callers(both, |v: &IpBlock| Caller::DirectRemoteIp(pb::cidr(v.0))),
        Clause::Header(name, both) => callers(both, |v| Caller::Header(header(name, &v.0))),
        Clause::RequestPrincipal(both) => of_token(both, |values| {
            let mut any: Vec<_> = values.iter().map(|v| principal(and(subject(&v.0)))).collect();
            if any.len() == 1 { any.swap_remove(0) } else { principal(Caller::OrIds(principal::Set { ids: any })) }
        }),
        Clause::Audience(both) => of_token(both, |values| claim(&["aud"], values)),
        Clause::Presenter(both) => of_token(both, |values| claim(&["azp"], values)),
        Clause::Claim(names, both) => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            of_token(both, |values| claim(&names, values))
        }
        Clause::Host(_)
        | Clause::Method(_)
        | Clause::Path(_)
        | Clause::Port(_)
        | Clause::DestinationIp(_)
        | Clause::ServerName(_)
        | Clause::Metadata(..) => Vec::new(),
    }
}

fn permission(rule: Call) -> Permission {
    Permission { rule: Some(rule) }
}

fn principal(identifier: Caller) -> Principal {
    Principal { identifier: Some(identifier) }
}

fn not_call(inner: Permission) -> Permission {
    permission(Call::NotRule(Box::new(inner)))
}

fn not_caller(inner: Principal) -> Principal {
    principal(Caller::NotId(Box::new(inner)))
}

fn and(ids: Vec<Principal>) -> Caller {
    Caller::AndIds(principal::Set { ids })
}

fn calls<T>(both: &Both<'_, T>, one: impl Fn(&T) -> Call) -> Vec<Permission> {
    let or = |values: &[T]| {
        let rules: Vec<_> = values.iter().map(|value| permission(one(value))).collect();
        (!rules.is_empty()).then(|| permission(Call::OrRules(permission::Set { rules })))
    };
    or(both.values).into_iter().chain(or(both.not_values).map(not_call)).collect()
}

fn callers<T>(both: &Both<'_, T>, one: impl Fn(&T) -> Caller) -> Vec<Principal> {
    let or = |values: &[T]| {
        let ids: Vec<_> = values.iter().map(|value| principal(one(value))).collect();
        (!ids.is_empty()).then(|| principal(Caller::OrIds(principal::Set { ids })))
    };
    or(both.values).into_iter().chain(or(both.not_values).map(not_caller)).collect()
}

/// A list of values that one matcher of metadata takes together.
fn of_token(both: &Both<'_, Pattern>, all: impl Fn(&[Pattern]) -> Principal) -> Vec<Principal> {
    let of = |values: &[Pattern]| (!values.is_empty()).then(|| all(values));
    of(both.values).into_iter().chain(of(both.not_values).map(not_caller)).collect()
}

/// Text, `prefix*`, `*suffix`, `*`.
fn string(text: &str) -> StringMatcher {
    match (text, text.strip_prefix('*'), text.strip_suffix('*')) {
        ("*", ..) => regex(".+"),
        (_, Some(suffix), _) => pb::string(MatchPattern::Suffix(suffix.to_owned())),
        (_, None, Some(prefix)) => pb::prefix(prefix),
        (_, None, None) => pb::exact(text),
    }
}

fn regex(text: &str) -> StringMatcher {
    pb::string(MatchPattern::SafeRegex(pb::regex(text)))
}

/// Characters that mean something in a regular expression mean themselves.
fn quoted(text: &str) -> String {
    let special = |c: char| r"\.+*?()|[]{}^$".contains(c);
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

fn header(name: &str, value: &str) -> HeaderMatcher {
    let specifier = match value {
        "*" => HeaderMatchSpecifier::PresentMatch(true),
        value => HeaderMatchSpecifier::StringMatch(string(value)),
    };
    HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(specifier), ..Default::default() }
}

/// Hosts have no case.
fn host(value: &str) -> HeaderMatcher {
    let mut matcher = header(":authority", value);
    if let Some(HeaderMatchSpecifier::StringMatch(string)) = &mut matcher.header_match_specifier {
        string.ignore_case = true;
    }
    matcher
}

fn path(value: &PathPattern) -> Call {
    if value.is_template() {
        let path_template = value.0.replace("{**}", "**").replace("{*}", "*");
        return Call::UriTemplate(core::TypedExtensionConfig {
            name: "uri-template".to_owned(),
            typed_config: Some(any(UriTemplateMatchConfig { path_template })),
        });
    }
    Call::UrlPath(matcher::PathMatcher { rule: Some(path_matcher::Rule::Path(string(&value.0))) })
}

fn authenticated(name: StringMatcher) -> Caller {
    Caller::Authenticated(principal::Authenticated { principal_name: Some(name) })
}

/// `trust domain/ns/namespace/sa/account`, or a pattern of it.
fn identity(text: &str) -> StringMatcher {
    match (text, text.strip_prefix('*'), text.strip_suffix('*')) {
        ("*", ..) => regex(".+"),
        (_, Some(suffix), _) => regex(&format!("spiffe://.*{}", quoted(suffix))),
        (_, None, Some(prefix)) => pb::prefix(&format!("spiffe://{prefix}")),
        (_, None, None) => pb::exact(&format!("spiffe://{text}")),
    }
}

/// An identity of one of the mesh's trust domains, or of `cluster.local`, which stands for the mesh, is one of all.
fn in_trust_domains<'a>(domains: impl Iterator<Item = &'a str>, text: &str) -> Vec<String> {
    let unchanged = vec![text.to_owned()];
    let Some((own, rest)) = text.split_once('/').filter(|(own, rest)| *own != "*" && rest.split('/').count() == 4)
    else {
        return unchanged;
    };
    let domains: Vec<&str> = domains.collect();
    let stands_for = |domain: &&str| match own.strip_prefix('*') {
        Some(suffix) => domain.ends_with(suffix),
        None => **domain == *own,
    };
    if own != "cluster.local" && !domains.iter().any(stands_for) {
        return unchanged;
    }
    let mut all: Vec<String> = Vec::new();
    for domain in &domains {
        let one = if stands_for(domain) { text.to_owned() } else { format!("{domain}/{rest}") };
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all
}

fn namespace(value: &NamespacePattern) -> StringMatcher {
    regex(&format!(".*/ns/{}/.*", value.0.replace('*', ".*")))
}

fn account(own: &str, value: &ServiceAccount) -> StringMatcher {
    let namespace = value.namespace.as_deref().unwrap_or(own);
    regex(&format!("spiffe://.+/ns/{}/(.+/|)sa/{}(/.+)?", quoted(namespace), quoted(&value.name)))
}

/// The two claims of `issuer/subject`, in which either may be a pattern. Issuers hold slashes themselves.
fn subject(value: &str) -> Vec<Principal> {
    let any = || regex(".+");
    let after = |text: &str| pb::string(MatchPattern::Suffix(text.strip_prefix('*').unwrap_or(text).to_owned()));
    let (issuer, subject) = match (value, value.rsplit_once('/')) {
        ("*", _) => (any(), any()),
        (_, Some((issuer, subject))) if value.starts_with('*') => {
            (if issuer == "*" { any() } else { after(issuer) }, pb::exact(subject))
        }
        (_, None) if value.starts_with('*') => (any(), after(value)),
        (_, Some((issuer, subject))) if value.ends_with('*') => {
            let before = |text: &str| pb::prefix(text.strip_suffix('*').unwrap_or(text));
            (pb::exact(issuer), if subject == "*" { any() } else { before(subject) })
        }
        (_, None) if value.ends_with('*') => (pb::prefix(value.strip_suffix('*').unwrap_or(value)), any()),
        (_, Some((issuer, subject))) => (pb::exact(issuer), pb::exact(subject)),
        (issuer, None) => (pb::exact(issuer), pb::exact("")),
    };
    let claim = |name: &str, matcher: StringMatcher| {
        let value = matched(value_matcher::MatchPattern::StringMatch(matcher));
        principal(metadata_principal(metadata(TOKEN_FILTER, vec![TOKEN_PAYLOAD, name], value)))
    };
    vec![claim("iss", issuer), claim("sub", subject)]
}

/// A claim that is one of `values`, or a list that holds one of them.
fn claim(names: &[&str], values: &[Pattern]) -> Principal {
    let one = any_of(values.iter().map(|v| text(&v.0)).collect());
    let value = any_of(vec![in_list(one.clone()), one]);
    let path = std::iter::once(TOKEN_PAYLOAD).chain(names.iter().copied()).collect();
    principal(metadata_principal(metadata(TOKEN_FILTER, path, value)))
}

fn matched(pattern: value_matcher::MatchPattern) -> matcher::ValueMatcher {
    matcher::ValueMatcher { match_pattern: Some(pattern) }
}

fn text(value: &str) -> matcher::ValueMatcher {
    matched(value_matcher::MatchPattern::StringMatch(string(value)))
}

fn in_list(one: matcher::ValueMatcher) -> matcher::ValueMatcher {
    let one = matcher::list_matcher::MatchPattern::OneOf(Box::new(one));
    matched(value_matcher::MatchPattern::ListMatch(Box::new(matcher::ListMatcher { match_pattern: Some(one) })))
}

/// `[value]` is an element of a list.
fn listed(value: &str) -> matcher::ValueMatcher {
    match value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => in_list(text(inner)),
        None => text(value),
    }
}

fn any_of(mut values: Vec<matcher::ValueMatcher>) -> matcher::ValueMatcher {
    if values.len() == 1 {
        return values.swap_remove(0);
    }
    matched(value_matcher::MatchPattern::OrMatch(matcher::OrMatcher { value_matchers: values }))
}

fn metadata(filter: &str, path: Vec<&str>, value: matcher::ValueMatcher) -> matcher::MetadataMatcher {
    use matcher::metadata_matcher::{PathSegment, path_segment::Segment};
    let segment = |key: &str| PathSegment { segment: Some(Segment::Key(key.to_owned())) };
    matcher::MetadataMatcher {
        filter: filter.to_owned(),
        path: path.into_iter().map(segment).collect(),
        value: Some(value),
        invert: false,
    }
}

// Deprecated in favour of a form that names its source, which older proxies refuse.
#[allow(deprecated)]
fn metadata_permission(matcher: matcher::MetadataMatcher) -> Call {
    Call::Metadata(matcher)
}

#[allow(deprecated)]
fn metadata_principal(matcher: matcher::MetadataMatcher) -> Caller {
    Caller::Metadata(matcher)
}

/// The metadata under which a matching rule of `filter` leaves its name, if that begins with `prefix`.
pub(super) fn effective_policy(filter: &str, prefix: &str) -> matcher::MetadataMatcher {
    let value = matched(value_matcher::MatchPattern::StringMatch(pb::prefix(prefix)));
    metadata(filter, vec!["istio_ext_authz_shadow_effective_policy_id"], value)
}
