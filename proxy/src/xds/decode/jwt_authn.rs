//! JSON web tokens. What is not understood here is refused: a token that is not asked for is an open door.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use http::{HeaderName, header};
use outrigger_wire::pb::envoy::{
    config::core::v3::RetryPolicy,
    extensions::filters::http::jwt_authn::v3::{
        JwksAsyncFetch, JwtAuthentication as Pb, JwtClaimToHeader, JwtHeader, JwtProvider as PbProvider,
        JwtRequirement as PbRequirement, PerRouteConfig, RemoteJwks as PbRemote, RequirementRule,
        jwt_provider::JwksSourceSpecifier, jwt_requirement::RequiresType, per_route_config::RequirementSpecifier,
        requirement_rule::RequirementType,
    },
};

use super::{
    at::At,
    fields::fields,
    matcher,
    report::Reject,
    route_match::route_match,
    scalar::{header_name, not_empty, positive, u32_or},
    secret::inline_text,
    service::http_uri,
};
use crate::ir::jwt_authn::{JwksSource, JwtAuthn, JwtPerRoute, JwtProvider, JwtRule, RemoteJwks, Requirement};

const CLOCK_SKEW: u64 = 60;
const CACHE: Duration = Duration::from_secs(600);
const BACKOFF: Duration = Duration::from_secs(1);
const REFETCH: Duration = Duration::from_secs(1);
/// How deep requirements may lie in each other.
const MAX_DEPTH: u32 = 8;

type Map = HashMap<String, PbRequirement>;

pub(crate) fn jwt_authn(message: &Pb, at: &At<'_>) -> Result<JwtAuthn, Reject> {
    fields!(at, message => Pb {
        read: [providers, rules, bypass_cors_preflight, requirement_map, strip_failure_response, stat_prefix],
        refuse: [filter_state_rules],
    });
    let mut named: Vec<_> = message.providers.iter().collect();
    named.sort_by_key(|(name, _)| *name);
    let names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
    let providers = named.iter().map(|(name, m)| provider(name, m, &at.key("providers", name)));
    let providers = providers.collect::<Result<_, _>>()?;
    let mut map: Vec<_> = message.requirement_map.iter().collect();
    map.sort_by_key(|(name, _)| *name);
    let requirements = map.into_iter().filter_map(|(name, m)| {
        let requirement = requirement(m, &names, &at.key("requirement_map", name), 0);
        requirement.transpose().map(|r| r.map(|r| (Box::from(name.as_str()), r)))
    });
    Ok(JwtAuthn {
        providers,
        requirements: requirements.collect::<Result<_, _>>()?,
        rules: at.each("rules", &message.rules, |m, at| rule(m, &names, &message.requirement_map, at))?,
        bypass_cors_preflight: message.bypass_cors_preflight,
        strip_failure_response: message.strip_failure_response,
        stat_prefix: message.stat_prefix.as_str().into(),
    })
}

fn rule(message: &RequirementRule, names: &[&str], map: &Map, at: &At<'_>) -> Result<JwtRule, Reject> {
    fields!(at, message => RequirementRule { read: [r#match, requirement_type] });
    let matches = route_match(at.required("match", &message.r#match)?, &at.field("match"))?;
    let requirement = match &message.requirement_type {
        None => None,
        Some(RequirementType::Requires(m)) => requirement(m, names, &at.field("requires"), 0)?,
        Some(RequirementType::RequirementName(name)) => {
            let at = at.field("requirement_name");
            let m = map.get(name).ok_or_else(|| at.reject(format!("{name:?} is not in requirement_map")))?;
            requirement(m, names, &at, 0)?
        }
    };
    Ok(JwtRule { matches, requirement })
}

/// `None`: nothing is asked for.
fn requirement(
    message: &PbRequirement,
    names: &[&str],
    at: &At<'_>,
    depth: u32,
) -> Result<Option<Requirement>, Reject> {
    if depth > MAX_DEPTH {
        return Err(at.reject(format!("more than {MAX_DEPTH} requirements in each other")));
    }
    let place = |name: &str, at: &At<'_>| {
        let place = names.iter().position(|known| *known == name);
        place.ok_or_else(|| at.field("provider_name").reject(format!("provider {name:?} is not configured")))
    };
    let list = |messages: &[PbRequirement], at: &At<'_>| {
        if messages.len() < 2 {
            return Err(at.field("requirements").reject("must have at least two elements"));
        }
        at.each("requirements", messages, |m, at| {
            requirement(m, names, at, depth + 1)?.ok_or_else(|| at.reject("asks for nothing"))
        })
    };
    Ok(match &message.requires_type {
        None => None,
        Some(RequiresType::ProviderName(name)) => Some(Requirement::Provider(place(name, at)?, Vec::new())),
        Some(RequiresType::ProviderAndAudiences(m)) => {
            let at = at.field("provider_and_audiences");
            let audiences = m.audiences.iter().map(|a| a.as_str().into()).collect();
            Some(Requirement::Provider(place(&m.provider_name, &at)?, audiences))
        }
        Some(RequiresType::RequiresAny(m)) => Some(Requirement::Any(list(&m.requirements, &at.field("requires_any"))?)),
        Some(RequiresType::RequiresAll(m)) => Some(Requirement::All(list(&m.requirements, &at.field("requires_all"))?)),
        Some(RequiresType::AllowMissing(_)) => Some(Requirement::AllowMissing),
        Some(RequiresType::AllowMissingOrFailed(_)) => Some(Requirement::AllowMissingOrFailed),
        Some(RequiresType::ExtractOnlyWithoutValidation(_)) => {
            return Err(at.field("extract_only_without_validation").reject("is not supported by this release"));
        }
    })
}

fn provider(name: &str, message: &PbProvider, at: &At<'_>) -> Result<JwtProvider, Reject> {
    fields!(at, message => PbProvider {
        read: [
            issuer, audiences, subjects, require_expiration, max_lifetime, forward, from_headers, from_params,
            from_cookies, forward_payload_header, pad_forward_payload_header, payload_in_metadata,
            normalize_payload_in_metadata, header_in_metadata, failed_status_in_metadata, clock_skew_seconds,
            claim_to_headers, clear_route_cache, jwks_source_specifier,
        ],
        // Every token is verified anew.
        harmless: [jwt_cache_config],
    });
    let texts = |all: &[String]| all.iter().map(|t| t.as_str().into()).collect::<Vec<Box<str>>>();
    let mut headers = at.each("from_headers", &message.from_headers, token_header)?;
    let (mut params, cookies) = (texts(&message.from_params), texts(&message.from_cookies));
    if headers.is_empty() && params.is_empty() && cookies.is_empty() {
        headers.push((header::AUTHORIZATION, "Bearer ".into()));
        params.push("access_token".into());
    }
    let payload_header = (!message.forward_payload_header.is_empty())
        .then(|| header_name(&message.forward_payload_header, &at.field("forward_payload_header")));
    let normalize = message.normalize_payload_in_metadata.as_ref();
    Ok(JwtProvider {
        name: name.into(),
        issuer: message.issuer.as_str().into(),
        audiences: texts(&message.audiences),
        subjects: match &message.subjects {
            Some(m) => Some(matcher::string(m, &at.field("subjects"))?),
            None => None,
        },
        require_expiration: message.require_expiration,
        max_lifetime: at.duration("max_lifetime", &message.max_lifetime)?,
        forward: message.forward,
        headers,
        params,
        cookies,
        payload_header: payload_header.transpose()?,
        pad_payload: message.pad_forward_payload_header,
        payload_key: message.payload_in_metadata.as_str().into(),
        header_key: message.header_in_metadata.as_str().into(),
        failed_key: message.failed_status_in_metadata.as_str().into(),
        space_delimited: normalize.map(|m| texts(&m.space_delimited_claims)).unwrap_or_default(),
        clock_skew: match message.clock_skew_seconds {
            0 => CLOCK_SKEW,
            seconds => seconds.into(),
        },
        claims: at.each("claim_to_headers", &message.claim_to_headers, claim)?,
        clear_route_cache: message.clear_route_cache,
        keys: match at.required("jwks_source_specifier", &message.jwks_source_specifier)? {
            JwksSourceSpecifier::LocalJwks(m) => {
                let at = at.field("local_jwks");
                let text = inline_text(m, &at)?;
                let set = serde_json::from_slice::<serde_json::Value>(text).ok();
                let keys = set.as_ref().and_then(|set| set.get("keys")?.as_array());
                if keys.is_none_or(Vec::is_empty) {
                    return Err(at.reject("is no key set with a key in it"));
                }
                JwksSource::Local(Bytes::copy_from_slice(text))
            }
            JwksSourceSpecifier::RemoteJwks(m) => JwksSource::Remote(Box::new(remote(m, &at.field("remote_jwks"))?)),
        },
    })
}

fn token_header(message: &JwtHeader, at: &At<'_>) -> Result<(HeaderName, Box<str>), Reject> {
    fields!(at, message => JwtHeader { read: [name, value_prefix] });
    Ok((header_name(&message.name, &at.field("name"))?, message.value_prefix.as_str().into()))
}

fn claim(message: &JwtClaimToHeader, at: &At<'_>) -> Result<(HeaderName, Vec<Box<str>>), Reject> {
    fields!(at, message => JwtClaimToHeader { read: [header_name, claim_name, claim_path] });
    let name = header_name(&message.header_name, &at.field("header_name"))?;
    let path: Vec<Box<str>> = match (message.claim_name.as_str(), message.claim_path.is_empty()) {
        ("", true) => return Err(at.field("claim_name").reject("must not be empty")),
        ("", false) => {
            at.each("claim_path", &message.claim_path, |m, at| not_empty(&m.key, &at.field("key")).map(Box::from))?
        }
        // A dot leads into a struct.
        (name, true) => name.split('.').map(Box::from).collect(),
        (_, false) => return Err(at.field("claim_path").reject("only one of claim_name and claim_path is possible")),
    };
    Ok((name, path))
}

fn remote(message: &PbRemote, at: &At<'_>) -> Result<RemoteJwks, Reject> {
    fields!(at, message => PbRemote { read: [http_uri, cache_duration, async_fetch, retry_policy] });
    let uri = http_uri(at.required("http_uri", &message.http_uri)?, &at.field("http_uri"))?;
    let parsed = uri.uri.parse::<http::Uri>().ok();
    if parsed.is_none_or(|u| u.authority().is_none()) {
        return Err(at.field("http_uri").field("uri").reject(format!("{:?} is no URI with a host", uri.uri)));
    }
    let ahead = message.async_fetch.as_ref().map(|fetch| {
        let at = at.field("async_fetch");
        fields!(&at, fetch => JwksAsyncFetch { read: [fast_listener, failed_refetch_duration] });
        if !fetch.fast_listener {
            at.field("fast_listener").harmless("a listener does not wait for keys: requests that need them do");
        }
        let pause = at.duration("failed_refetch_duration", &fetch.failed_refetch_duration)?;
        Ok::<_, Reject>(positive(pause, &at.field("failed_refetch_duration"))?.unwrap_or(REFETCH))
    });
    let ahead = ahead.transpose()?;
    let retry = message.retry_policy.as_ref();
    let mut backoff = BACKOFF;
    if let Some(policy) = retry {
        let at = at.field("retry_policy");
        fields!(&at, policy => RetryPolicy {
            read: [retry_back_off, num_retries],
            unsupported: [retry_on, retry_priority, retry_host_predicate, host_selection_retry_max_attempts],
        });
        if let Some(strategy) = &policy.retry_back_off {
            let at = at.field("retry_back_off");
            let base = positive(at.duration("base_interval", &strategy.base_interval)?, &at.field("base_interval"))?;
            backoff = base.unwrap_or(BACKOFF);
        }
    }
    let cache = at.duration("cache_duration", &message.cache_duration)?;
    Ok(RemoteJwks {
        uri,
        cache: positive(cache, &at.field("cache_duration"))?.unwrap_or(CACHE),
        ahead,
        retries: retry.map_or(0, |policy| u32_or(&policy.num_retries, 1).min(10)),
        backoff,
    })
}

/// What one level says.
pub(crate) fn per_route(message: &PerRouteConfig, at: &At<'_>) -> Result<JwtPerRoute, Reject> {
    fields!(at, message => PerRouteConfig { read: [requirement_specifier] });
    Ok(match at.required("requirement_specifier", &message.requirement_specifier)? {
        RequirementSpecifier::Disabled(true) => JwtPerRoute::Disabled,
        RequirementSpecifier::Disabled(false) => return Err(at.field("disabled").reject("must be true")),
        RequirementSpecifier::RequirementName(name) => {
            JwtPerRoute::Requirement(not_empty(name, &at.field("requirement_name"))?.into())
        }
    })
}
