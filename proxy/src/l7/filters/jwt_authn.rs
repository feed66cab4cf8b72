//! JSON web tokens: finds them, has them verified, and tells the upstream and later filters what they say.
//!
//! What a rule asks for is a tree of requirements; a provider's holds when every token of the request that could be
//! this provider's is good. Fails closed: what cannot be verified, keys that cannot be had included, is denied.

mod fetch;
mod foretell;
mod good;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Map, Value};

pub(in crate::l7) use self::fetch::ahead as fetch_ahead;
use super::{Call, Levels, Stop, settings};
use crate::{
    ir::{
        filters::Setting,
        http::HttpFilter,
        jwt_authn::{JwtAuthn, JwtPerRoute, JwtProvider, Requirement},
    },
    l7::{pipeline::Inbound, respond::Reply},
    live::LiveJwt,
    policy::{
        jwt::{Failure, Found, Token, locate},
        router,
    },
};

const NAMESPACE: &str = "envoy.filters.http.jwt_authn";
/// Of the URI in a denial.
const MAX_URI: usize = 256;

/// What a request is asked for.
enum Asked<'a> {
    Nothing,
    Requirement(&'a Requirement),
    /// A route names one that does not exist.
    Unknown(String),
}

/// The verification of one request.
struct Session<'a> {
    call: &'a Call<'a>,
    config: &'a JwtAuthn,
    live: &'a Arc<LiveJwt>,
    /// Seconds since the epoch.
    now: u64,
    /// For the metadata.
    extracted: Map<String, Value>,
    reroute: bool,
}

/// Which tokens a requirement looks at, and what it lets pass.
#[derive(Clone, Copy)]
struct Terms<'a> {
    /// One provider with other audiences, if any; else all.
    provider: Option<(usize, &'a [Box<str>])>,
    failed: bool,
    missing: bool,
}

impl Call<'_> {
    /// Whether the request's route is to be found anew.
    pub(super) async fn authenticate(
        &self,
        config: &JwtAuthn,
        (filter, place): (&HttpFilter, usize),
        levels: &Levels<'_>,
        request: &mut Inbound,
    ) -> Result<bool, Stop> {
        self.name_cluster(request);
        // Without what the keys are in there is nothing to verify with.
        let Some(live) = self.filters.jwt(place) else {
            return Err(denial(config, Failure::NoKeys, &uri(request), request, self));
        };
        let stats = live.stats.local();
        if config.bypass_cors_preflight && is_preflight(request) {
            stats.cors_preflight_bypassed.inc();
            stats.allowed.inc();
            return Ok(false);
        }
        let requirement = match self.asked(config, filter, levels, request) {
            Asked::Nothing => {
                stats.allowed.inc();
                return Ok(false);
            }
            Asked::Requirement(requirement) => requirement,
            Asked::Unknown(reason) => {
                stats.denied.inc();
                return Err(unknown(&reason));
            }
        };
        let uri = uri(request);
        let mut session = Session { call: self, config, live, now: now(), extracted: Map::new(), reroute: false };
        let verified = session.satisfies(requirement, request);
        let result = self.wait(std::pin::pin!(verified)).await?;
        let Session { extracted, reroute, .. } = session;
        if !extracted.is_empty() {
            self.flow.record.metadata.set(NAMESPACE, extracted);
        }
        match result {
            Ok(()) => {
                stats.allowed.inc();
                Ok(reroute)
            }
            Err(failure) => {
                stats.denied.inc();
                Err(denial(config, failure, &uri, request, self))
            }
        }
    }

    fn asked<'c>(
        &self,
        config: &'c JwtAuthn,
        filter: &HttpFilter,
        levels: &Levels<'_>,
        request: &Inbound,
    ) -> Asked<'c> {
        let level = settings(filter, levels).find_map(|setting| match setting {
            Setting::JwtAuthn(level) => Some(&**level),
            _ => None,
        });
        match level {
            Some(JwtPerRoute::Disabled) => Asked::Nothing,
            Some(JwtPerRoute::Requirement(name)) => match config.requirements.iter().find(|(known, _)| known == name) {
                Some((_, requirement)) => Asked::Requirement(requirement),
                None => {
                    let all: Vec<&str> = config.requirements.iter().map(|(name, _)| &**name).collect();
                    let all = all.join(",");
                    Asked::Unknown(format!("Wrong requirement_name: {name}. It should be one of [{all}]"))
                }
            },
            None => {
                let facts = request.facts(self.random);
                let rule = config.rules.iter().find(|rule| router::matches(&rule.matches, &facts));
                rule.and_then(|rule| rule.requirement.as_ref()).map_or(Asked::Nothing, Asked::Requirement)
            }
        }
    }
}

impl Session<'_> {
    async fn satisfies(&mut self, requirement: &Requirement, request: &mut Inbound) -> Result<(), Failure> {
        match requirement {
            Requirement::Provider(place, audiences) => {
                let provider = Some((*place, &audiences[..]));
                self.tokens(Terms { provider, failed: false, missing: false }, request).await
            }
            Requirement::AllowMissing => {
                self.tokens(Terms { provider: None, failed: false, missing: true }, request).await
            }
            Requirement::AllowMissingOrFailed => {
                self.tokens(Terms { provider: None, failed: true, missing: true }, request).await
            }
            Requirement::All(all) => {
                for one in all {
                    Box::pin(self.satisfies(one, request)).await?;
                }
                Ok(())
            }
            Requirement::Any(any) => self.any(any, request).await,
        }
    }

    /// What may be missing, or may fail, is looked at when nothing else is asked for, and as an excuse in the end.
    async fn any(&mut self, any: &[Requirement], request: &mut Inbound) -> Result<(), Failure> {
        let excuse = |r: &&Requirement| matches!(r, Requirement::AllowMissing | Requirement::AllowMissingOrFailed);
        let failed = any.contains(&Requirement::AllowMissingOrFailed);
        let missing = any.contains(&Requirement::AllowMissing);
        let mut failure = Failure::Missed;
        let mut asked = false;
        for one in any.iter().filter(|r| !excuse(r)) {
            asked = true;
            match Box::pin(self.satisfies(one, request)).await {
                Ok(()) => return Ok(()),
                // A token that is wrong says more than one that is not there, or is somebody else's.
                Err(new) if failure == Failure::Missed || !matches!(new, Failure::Missed | Failure::UnknownIssuer) => {
                    failure = new;
                }
                Err(_) => {}
            }
        }
        if !asked {
            let excuse = if failed { Requirement::AllowMissingOrFailed } else { Requirement::AllowMissing };
            return Box::pin(self.satisfies(&excuse, request)).await;
        }
        if failed || (missing && failure == Failure::Missed) { Ok(()) } else { Err(failure) }
    }

    /// All tokens have to be good: the backend could take the bad one for the one that was verified.
    async fn tokens(&mut self, terms: Terms<'_>, request: &mut Inbound) -> Result<(), Failure> {
        let config = self.config;
        let providers = || match terms.provider {
            Some((place, _)) => &config.providers[place..=place],
            None => &config.providers[..],
        };
        for provider in providers() {
            // Nobody but us says what a token said.
            provider.payload_header.iter().chain(provider.claims.iter().map(|(name, _)| name)).for_each(|name| {
                request.parts.headers.remove(name);
            });
        }
        let mut found = locate(providers().iter(), &request.parts.headers, request.path());
        let mut result = Err(Failure::Missed);
        if found.is_empty() {
            self.note_failure(None, Failure::Missed);
        }
        while let Some(one) = found.pop() {
            let mut known = terms.provider.map(|(place, _)| place);
            result = self.one(&one, terms, &mut known, request).await;
            if let Err(failure) = result {
                self.note_failure(known, failure);
                if !terms.failed && !terms.missing {
                    break;
                }
            }
        }
        match result {
            Err(_) if terms.failed => Ok(()),
            Err(Failure::Missed) if terms.missing => Ok(()),
            result => result,
        }
    }

    async fn one(
        &mut self,
        found: &Found<'_>,
        terms: Terms<'_>,
        known: &mut Option<usize>,
        request: &mut Inbound,
    ) -> Result<(), Failure> {
        let token = Token::parse(&found.token)?;
        if !found.allows(&token.issuer) {
            return Err(Failure::UnknownIssuer);
        }
        if known.is_none() {
            let of = |issuer: &str| self.config.providers.iter().position(|p| *p.issuer == *issuer);
            *known = of(&token.issuer).or_else(|| of(""));
        }
        let place = known.ok_or(Failure::UnknownIssuer)?;
        let provider = &self.config.providers[place];
        self.check_claims(provider, &token)?;
        let audiences = terms.provider.map(|(_, audiences)| audiences).filter(|a| !a.is_empty());
        if !token.is_for(audiences.unwrap_or(&provider.audiences)) {
            return Err(Failure::AudienceNotAllowed);
        }
        let keys = fetch::keys(self.call, provider, self.live, place).await?;
        keys.keys.verify(&token)?;
        self.good(provider, found, &token, request);
        Ok(())
    }

    fn check_claims(&self, provider: &JwtProvider, token: &Token<'_>) -> Result<(), Failure> {
        if provider.subjects.as_ref().is_some_and(|m| !m.matches(&token.subject)) {
            return Err(Failure::VerificationFail);
        }
        let endless = token.expires == 0;
        let too_long = |max: std::time::Duration| endless || token.expires > self.now.saturating_add(max.as_secs());
        if provider.require_expiration && endless || provider.max_lifetime.is_some_and(too_long) {
            return Err(Failure::VerificationFail);
        }
        token.check_times(self.now, provider.clock_skew)
    }

    fn note_failure(&mut self, known: Option<usize>, failure: Failure) {
        let only = match &self.config.providers[..] {
            [only] => Some(only),
            _ => None,
        };
        let key = known.map(|place| &self.config.providers[place]).or(only).map(|p| &*p.failed_key);
        if let Some(key) = key.filter(|key| !key.is_empty()) {
            let fields =
                [("code".to_owned(), Value::from(failure.code())), ("message".to_owned(), Value::from(failure.text()))];
            self.extracted.insert(key.to_owned(), Value::Object(fields.into_iter().collect()));
        }
    }
}

/// Seconds since the epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The answer where a route names a requirement that does not exist.
fn unknown(reason: &str) -> Stop {
    let details = format!("jwt_authn_access_denied{{{}}}", reason.replace(' ', "_"));
    let body = format!("Failed JWT authentication: {reason}");
    Stop::Reply(Box::new(Reply::new(StatusCode::FORBIDDEN, details).body(body)))
}

fn is_preflight(request: &Inbound) -> bool {
    let has = |name| request.parts.headers.get(name).is_some_and(|v: &HeaderValue| !v.is_empty());
    request.parts.method == Method::OPTIONS && has(header::ORIGIN) && has(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// What was asked for, as far as a denial says it.
fn uri(request: &Inbound) -> String {
    let path = request.path();
    let path = path.get(..MAX_URI).unwrap_or(path);
    format!("{}://{}{}", request.sane.origin.scheme, request.authority(), path)
}

fn denial(config: &JwtAuthn, failure: Failure, uri: &str, request: &Inbound, call: &Call<'_>) -> Stop {
    let text = failure.text();
    let status = match failure {
        Failure::AudienceNotAllowed => StatusCode::FORBIDDEN,
        _ => StatusCode::UNAUTHORIZED,
    };
    let details = format!("jwt_authn_access_denied{{{}}}", text.replace(' ', "_"));
    let body = if config.strip_failure_response { "" } else { text };
    let mut response = call.local_reply(Reply::new(status, details).body(body), request);
    let error = if failure == Failure::Missed { "" } else { ", error=\"invalid_token\"" };
    let challenge = HeaderValue::from_str(&format!("Bearer realm=\"{uri}\"{error}"));
    if !config.strip_failure_response
        && let Ok(challenge) = challenge
    {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    Stop::Answer(Box::new(response))
}
