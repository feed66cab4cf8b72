//! External authorization: asks a service about a request and does as it says.
//!
//! [`question`] says what is asked, [`verdict`] reads the answer, [`apply`] carries it out. Fails closed: no answer, and
//! no answer that can be carried out, is a denial, unless the configuration allows requests where nobody can be asked.

pub(super) mod apply;
mod question;
mod verdict;

use std::{pin::pin, time::Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body::Body as _;

use self::verdict::Verdict;
use super::{After, Call, Levels, Stop, settings};
use crate::{
    ir::{
        ext_authz::{AuthService, AuthzPerRoute, BodySettings, CheckSettings, ExtAuthz},
        filters::Setting,
        http::HttpFilter,
    },
    l7::{
        outcome,
        pipeline::Inbound,
        respond::Reply,
        sanitize::Tunnel,
        side::{self, Ask},
    },
    telemetry::{filters::ExtAuthzStats, flags::Flags, metrics::Counter},
};

const NAMESPACE: &str = "envoy.filters.http.ext_authz";
const FAILURE_ALLOWED: HeaderName = HeaderName::from_static("x-envoy-auth-failure-mode-allowed");
/// Of an answer, where nothing else is configured.
const MAX_ANSWER: usize = 4 << 20;

/// Where the filter stands and what it is to do.
pub(super) struct Authorizing<'a> {
    pub config: &'a ExtAuthz,
    pub filter: &'a HttpFilter,
    /// In the chain.
    pub place: usize,
}

/// A body as far as it is to be seen.
#[derive(Default)]
struct Seen {
    /// `None` where bodies are not looked at.
    bytes: Option<Bytes>,
    partial: bool,
    raw: bool,
    /// Of what was read.
    length: u64,
}

impl Call<'_> {
    /// Whether the request now asks for something else, so that its route is to be found anew.
    pub(super) async fn authorize(
        &self,
        authorizing: Authorizing<'_>,
        levels: &Levels<'_>,
        request: &mut Inbound,
        after: &mut After,
    ) -> Result<bool, Stop> {
        let Authorizing { config, filter, place } = authorizing;
        // Nobody asks about what leads nowhere.
        if self.selected.is_none() {
            return Ok(false);
        }
        let Some(check) = merged(filter, levels) else { return Ok(false) };
        self.name_cluster(request);
        let enabled = config.enabled.is_none_or(|share| share.hit(fastrand::u32(..)))
            && config.enabled_metadata.as_ref().is_none_or(|m| m.matches(self.flow.record.metadata.get().as_deref()));
        if !enabled {
            self.count_authz(place, |s| &s.disabled);
            return if config.deny_at_disable {
                Err(stop(config.status_on_error, "ext_authz_error"))
            } else {
                Ok(false)
            };
        }
        let seen = self.see(check.no_body, check.body.or(config.body), request).await?;
        let started = Instant::now();
        let service = check.service.as_ref().unwrap_or(&config.service);
        let asked = self.ask(service, config, (&check, &seen), request);
        let mut verdict = self.wait(pin!(asked)).await?;
        if verdict.invalid && config.validate_mutations {
            return Err(self.invalid(place));
        }
        if !verdict.metadata.is_empty() {
            if config.ingest_metadata {
                let mut fields = std::mem::take(&mut verdict.metadata);
                if verdict.is_ok() {
                    let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                    fields.insert("ext_authz_duration".to_owned(), millis.into());
                }
                self.flow.record.metadata.set(NAMESPACE, fields);
            } else {
                self.count_authz(place, |s| &s.ignored_dynamic_metadata);
            }
        }
        self.carry_out(verdict, &authorizing, request, after)
    }

    fn carry_out(
        &self,
        verdict: Verdict,
        authorizing: &Authorizing<'_>,
        request: &mut Inbound,
        after: &mut After,
    ) -> Result<bool, Stop> {
        let Authorizing { config, place, .. } = *authorizing;
        match verdict.kind {
            verdict::Kind::Ok => {
                let changed = verdict.changes_request();
                let limits = (self.conn.hcm.config.max_header_count, self.conn.hcm.config.max_header_bytes);
                if apply::request(config, &verdict, limits, request).is_err() {
                    return Err(self.invalid(place));
                }
                let changes = apply::response_changes(&verdict).map_err(|_| self.invalid(place))?;
                after.change(changes, config.enforce_header_limits.then_some(place));
                self.count_authz(place, |s| &s.ok);
                Ok(config.clear_route_cache && changed)
            }
            verdict::Kind::Denied => {
                self.count_authz(place, |s| &s.denied);
                if config.charge_cluster {
                    self.charge(verdict.status.unwrap_or(StatusCode::FORBIDDEN), request);
                }
                let denial = apply::denial(config, &verdict).map_err(|_| self.invalid(place))?;
                Err(self.denied(denial, request))
            }
            verdict::Kind::Error => {
                self.count_authz(place, |s| &s.error);
                if config.failure_mode_allow {
                    self.count_authz(place, |s| &s.failure_mode_allowed);
                    if config.failure_mode_header {
                        request.parts.headers.append(FAILURE_ALLOWED, HeaderValue::from_static("true"));
                    }
                    return Ok(false);
                }
                if verdict.has_own_answer() {
                    let denial = apply::failure(config, &verdict).map_err(|_| self.invalid(place))?;
                    return Err(self.denied(denial, request));
                }
                Err(stop(config.status_on_error, "ext_authz_error"))
            }
        }
    }

    async fn ask(
        &self,
        service: &AuthService,
        config: &ExtAuthz,
        (check, seen): (&CheckSettings, &Seen),
        request: &Inbound,
    ) -> Verdict {
        let facts = question::About { call: self, config, check, seen, request };
        let (timeout, limit) = match service {
            AuthService::Grpc(s) => (s.timeout, s.max_message.map_or(MAX_ANSWER, |max| max as usize + 5)),
            AuthService::Http(s) => (s.uri.timeout, MAX_ANSWER),
        };
        let ask =
            Ask { cluster: service.cluster().clone(), timeout, limit, downstream: Some(self.conn.scope.conn.remote) };
        let engine = &self.conn.engine;
        let answer = match service {
            AuthService::Grpc(s) => {
                let head = question::metadata(s, &facts);
                let method = "/envoy.service.auth.v3.Authorization/Check";
                side::unary(engine, &ask, (method, head), &question::check(&facts)).await.map(verdict::of_check)
            }
            AuthService::Http(s) => {
                // What cannot be asked about was not allowed, whatever holds while the service is away.
                let Some(question) = question::http(s, &facts) else { return Verdict::denied() };
                let started = Instant::now();
                side::http(engine, &ask, question).await.map(|r| verdict::of_http(s, r, started.elapsed()))
            }
        };
        answer.unwrap_or_else(|error| {
            tracing::debug!(cluster = %ask.cluster, %error, "the authorization service cannot be asked");
            Verdict::error()
        })
    }

    /// Waits for as much of the request's body as the service is to see.
    async fn see(&self, no_body: bool, settings: Option<BodySettings>, request: &mut Inbound) -> Result<Seen, Stop> {
        let Some(BodySettings { max_bytes, partial, raw }) = settings.filter(|_| !no_body) else {
            return Ok(Seen::default());
        };
        if request.body.is_end_stream() || request.sane.tunnel != Tunnel::None {
            return Ok(Seen { raw, ..Seen::default() });
        }
        let (bytes, length, more) = self.look(max_bytes, partial, request).await?;
        Ok(Seen { partial: more || length != bytes.len() as u64, bytes: Some(bytes), raw, length })
    }

    fn denied(&self, denial: apply::Denial, request: &Inbound) -> Stop {
        let reply = Reply::new(denial.status, denial.details).body(denial.body).flag(Flags::UNAUTHORIZED);
        let mut response = self.local_reply(reply, request);
        let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
        apply::all(&denial.headers, response.headers_mut());
        if let Some(content_type) = content_type.filter(|_| request.sane.grpc) {
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        }
        Stop::Answer(Box::new(response))
    }

    fn invalid(&self, place: usize) -> Stop {
        self.count_authz(place, |s| &s.invalid);
        stop(StatusCode::INTERNAL_SERVER_ERROR, "ext_authz_invalid")
    }

    fn count_authz(&self, place: usize, which: impl FnOnce(&ExtAuthzStats) -> &Counter) {
        if let Some(stats) = self.filters.ext_authz(place) {
            which(stats.local()).inc();
        }
    }

    /// The log names the cluster that the request was bound for, whatever becomes of it.
    pub(super) fn name_cluster(&self, request: &Inbound) {
        if let Some(target) = self.cluster(request).filter(|_| self.flow.record.logged()) {
            self.flow.record.upstream(|u| u.cluster = Some(target.cluster().into()));
        }
    }

    /// Counts a denial as a response of the cluster that the request was bound for.
    fn charge(&self, status: StatusCode, request: &Inbound) {
        let target = self.cluster(request);
        let live = self.conn.engine.live.get();
        if let Some(cluster) = target.and_then(|target| live.cluster(target.cluster())) {
            outcome::count(cluster, status);
        }
    }
}

/// What the levels say: the most specific one's settings with the context of all; `None` when it switches the filter off.
pub(super) fn merged(filter: &HttpFilter, levels: &Levels<'_>) -> Option<CheckSettings> {
    let mut all = settings(filter, levels).filter_map(|setting| match setting {
        Setting::ExtAuthz(level) => Some(&**level),
        _ => None,
    });
    let mut merged = match all.next() {
        None => return Some(CheckSettings::default()),
        Some(AuthzPerRoute::Disabled) => return None,
        Some(AuthzPerRoute::Check(settings)) => settings.clone(),
    };
    for level in all {
        let AuthzPerRoute::Check(CheckSettings { context, .. }) = level else { continue };
        for (key, value) in context {
            if !merged.context.iter().any(|(known, _)| known == key) {
                merged.context.push((key.clone(), value.clone()));
            }
        }
    }
    Some(merged)
}

pub(super) fn stop(status: StatusCode, details: &'static str) -> Stop {
    Stop::Reply(Box::new(Reply::new(status, details).flag(Flags::UNAUTHORIZED)))
}
