//! RequestAuthentications as `jwt_authn`, and the clusters it fetches keys over.
//!
//! A token of a known issuer must be valid; a request without any passes, to be judged by AuthorizationPolicies, which
//! find the claims in the filter's metadata.

use std::{collections::BTreeSet, net::IpAddr};

use outrigger_wire::pb::{
    envoy::extensions::filters::http::jwt_authn::v3::{
        JwtClaimToHeader, JwtHeader, JwtProvider, JwtRequirement, JwtRequirementAndList, JwtRequirementOrList,
        RemoteJwks, RequirementRule,
        jwt_provider::{JwksSourceSpecifier, NormalizePayload},
        jwt_requirement::RequiresType,
        requirement_rule::RequirementType,
    },
    google::protobuf::Empty,
};
use prost::Message;

use super::{
    authorization::TOKEN_PAYLOAD,
    filters,
    names::{self, Variant},
    pb::{self, any, cluster, core, endpoint, hcm, route},
    scope::Scope,
    special, tls,
};
use crate::{
    model::{JwtRule, KeysUri, Place, Service, Text},
    resources::Resources,
};
use cluster::cluster::{ClusterDiscoveryType, DiscoveryType, DnsLookupFamily};

const FILTER: &str = "envoy.filters.http.jwt_authn";
/// For fetching keys, unless the rule says otherwise.
const FETCH_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
/// How long fetched keys are believed.
const KEYS_AGE: std::time::Duration = std::time::Duration::from_secs(300);
/// Claims that hold several words by their standards.
const WORDS: [&str; 2] = ["permission", "scope"];

/// The rules that hold at a place, in an order of their own.
fn rules<'a>(scope: &Scope<'a>, place: Place<'_>) -> Vec<&'a JwtRule> {
    let world = scope.world;
    let objects = world.request_authentications.iter().filter(|object| object.holds_at(&world.settings, place));
    let mut rules: Vec<&JwtRule> = objects.flat_map(|object| &object.spec.jwt_rules).collect();
    rules.sort_by_key(|rule| &rule.issuer);
    rules
}

/// The filter for a place; none where no token is asked for.
pub(super) fn filter(scope: &Scope<'_>, place: Place<'_>) -> Option<hcm::HttpFilter> {
    let rules = rules(scope, place);
    if rules.is_empty() {
        return None;
    }
    let mut message = pb::Message::default();
    for (index, rule) in rules.iter().enumerate() {
        let mut entry = pb::Message::default();
        entry.text(1, &name(index));
        entry.bytes(2, &provider(scope, rule).encode_to_vec());
        message.bytes(1, &entry.0);
    }
    let rule = RequirementRule {
        r#match: Some(route::RouteMatch {
            path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".to_owned())),
            ..Default::default()
        }),
        requirement_type: Some(RequirementType::Requires(requirement(rules.len()))),
    };
    message.bytes(2, &rule.encode_to_vec());
    // Preflights carry no token.
    message.number(4, 1);
    Some(filters::http_filter(FILTER, message.any("envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication")))
}

fn name(index: usize) -> String {
    format!("origins-{index}")
}

/// Of each issuer: a valid token or none. Where issuers share a place of the token, a valid one of any.
fn requirement(count: usize) -> JwtRequirement {
    let need = |requires| JwtRequirement { requires_type: Some(requires) };
    let valid = |index: usize| need(RequiresType::ProviderName(name(index)));
    let any_of = |requirements| need(RequiresType::RequiresAny(JwtRequirementOrList { requirements }));
    let optional = |index: usize| any_of(vec![valid(index), need(RequiresType::AllowMissing(Empty {}))]);
    if count == 1 {
        return optional(0);
    }
    let each = JwtRequirementAndList { requirements: (0..count).map(optional).collect() };
    any_of((0..count).map(valid).chain([need(RequiresType::RequiresAll(each))]).collect())
}

fn texts(list: &[Text]) -> Vec<String> {
    list.iter().map(|text| text.0.clone()).collect()
}

fn provider(scope: &Scope<'_>, rule: &JwtRule) -> JwtProvider {
    let header = |header: &crate::model::TokenHeader| JwtHeader {
        name: header.name.0.clone(),
        value_prefix: header.prefix.clone(),
    };
    let claim = |claim: &crate::model::ClaimHeader| JwtClaimToHeader {
        header_name: claim.header.0.clone(),
        claim_name: claim.claim.0.clone(),
        ..Default::default()
    };
    let words: BTreeSet<&str> =
        WORDS.into_iter().chain(rule.space_delimited_claims.iter().map(|claim| claim.0.as_str())).collect();
    JwtProvider {
        issuer: rule.issuer.clone(),
        audiences: texts(&rule.audiences),
        forward: rule.forward_original_token,
        from_headers: rule.from_headers.iter().map(header).collect(),
        from_params: texts(&rule.from_params),
        from_cookies: texts(&rule.from_cookies),
        forward_payload_header: rule.output_payload_to_header.as_ref().map(|h| h.0.clone()).unwrap_or_default(),
        claim_to_headers: rule.output_claim_to_headers.iter().map(claim).collect(),
        payload_in_metadata: TOKEN_PAYLOAD.to_owned(),
        normalize_payload_in_metadata: Some(NormalizePayload { space_delimited_claims: pb::strings(words) }),
        jwks_source_specifier: Some(keys(scope, rule)),
        ..Default::default()
    }
}

fn keys(scope: &Scope<'_>, rule: &JwtRule) -> JwksSourceSpecifier {
    let Some(uri) = &rule.jwks_uri else {
        // A rule without any keys was refused with its document; an empty set believes nobody.
        let text = rule.jwks.as_ref().map_or_else(|| r#"{"keys":[]}"#.to_owned(), |keys| keys.0.clone());
        let specifier = Some(core::data_source::Specifier::InlineString(text));
        return JwksSourceSpecifier::LocalJwks(core::DataSource { specifier, ..Default::default() });
    };
    let cluster = match service(scope, uri) {
        Some(service) => names::outbound(Variant::Main, uri.port, None, &service.host),
        None => own_name(uri),
    };
    JwksSourceSpecifier::RemoteJwks(RemoteJwks {
        http_uri: Some(core::HttpUri {
            uri: uri.text.clone(),
            timeout: pb::duration(rule.timeout.map_or(FETCH_TIMEOUT, |timeout| timeout.0)),
            http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster(cluster)),
        }),
        cache_duration: pb::duration(KEYS_AGE),
        ..Default::default()
    })
}

/// The service of the mesh that has the keys. Not for `https`, which its cluster would not speak; and none that this
/// namespace does not see: whoever declared it for themselves would say whose tokens are believed here.
fn service<'a>(scope: &Scope<'a>, uri: &KeysUri) -> Option<&'a Service> {
    let service = scope.world.services.get(&uri.host).filter(|service| service.visibility.includes(scope.namespace));
    service.filter(|service| !uri.https && service.port(uri.port).is_some())
}

/// With the scheme: one port may be asked both ways, and the cluster with TLS is not the one without.
fn own_name(uri: &KeysUri) -> String {
    let scheme = if uri.https { "" } else { "http|" };
    format!("jwks|{scheme}{}||{}", uri.port, uri.host)
}

/// Where the keys of this workload's rules are.
fn uris<'a>(scope: &Scope<'a>) -> impl Iterator<Item = &'a KeysUri> {
    let services = scope.own_services(None);
    let place = Place { namespace: scope.namespace, labels: scope.labels, services: &services };
    rules(scope, place).into_iter().filter_map(|rule| rule.jwks_uri.as_ref())
}

/// The services of the mesh that have keys for this workload.
pub(super) fn asked<'a>(scope: &Scope<'a>) -> Vec<&'a Service> {
    uris(scope).filter_map(|uri| service(scope, uri)).collect()
}

/// A cluster for each other place of keys, over verified TLS if so asked.
pub(super) fn clusters(scope: &Scope<'_>, resources: &mut Resources) {
    for uri in uris(scope).filter(|uri| service(scope, uri).is_none()) {
        let cluster = cluster(uri);
        resources.clusters.insert(cluster.name.clone(), any(cluster));
    }
}

fn cluster(uri: &KeysUri) -> cluster::Cluster {
    let name = own_name(uri);
    let mut cluster = match uri.host.parse::<IpAddr>() {
        Ok(ip) => special::fixed(name, (ip, uri.port).into()),
        Err(_) => cluster::Cluster {
            load_assignment: Some(assignment(&name, uri)),
            name,
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::StrictDns as i32)),
            dns_lookup_family: DnsLookupFamily::V4Preferred as i32,
            ..Default::default()
        },
    };
    cluster.connect_timeout = pb::duration(FETCH_TIMEOUT);
    cluster.transport_socket = uri.https.then(|| tls::public(&uri.host));
    cluster
}

fn assignment(name: &str, uri: &KeysUri) -> endpoint::ClusterLoadAssignment {
    let at = endpoint::Endpoint { address: pb::address(&uri.host, uri.port), ..Default::default() };
    let member = endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(at)),
        ..Default::default()
    };
    let group = endpoint::LocalityLbEndpoints { lb_endpoints: vec![member], ..Default::default() };
    endpoint::ClusterLoadAssignment { cluster_name: name.to_owned(), endpoints: vec![group], ..Default::default() }
}
