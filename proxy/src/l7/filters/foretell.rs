//! What the filters would do with a request, without doing it: nothing is counted, taken or asked for.
//!
//! Every verdict is that of the function that decides on real requests. What only somebody else can say (a service, chance,
//! the load of the moment) is told as not known. Invariant: the walk over the chain is that of [`Call::run`].

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    After, Call, Levels, Progress, Stop, ext_authz, fault_in_force, global_limit, grpc_web, is_on, mutation,
    rbac_in_force, settings,
};
use crate::{
    ir::{
        Fraction,
        filters::{Fault, Setting},
        http::{FilterKind, HttpFilter},
        rate_limit::GlobalRateLimit,
    },
    l7::{pipeline::Inbound, respond::Reply},
    policy::{
        fault::{self, Abort, Draws, Injected},
        rate_limit::local::Decision,
        router::Chosen,
    },
    upstream::uptime,
};

/// A draw that hits whatever has any chance, and one that hits only what is certain: denominators divide a million.
const LUCKY: u32 = 0;
const UNLUCKY: u32 = 999_999;

/// What is said of one filter.
enum Verdict {
    Passes,
    /// It answers; with status and `response_code_details`.
    Answers(StatusCode, String),
    /// It may answer: why that is not known here.
    Unknown(String),
    Rerouted,
}

/// What the chain comes to.
#[derive(Default)]
pub(in crate::l7) struct Foretold {
    pub filters: Vec<Value>,
    pub answer: Option<(StatusCode, String)>,
    pub unknown: Vec<String>,
}

fn share(fraction: Fraction) -> Option<bool> {
    match (fraction.hit(LUCKY), fraction.hit(UNLUCKY)) {
        (false, _) => Some(false),
        (true, true) => Some(true),
        (true, false) => None,
    }
}

impl Call<'_> {
    /// Goes through the chain from the place `from` on.
    pub(in crate::l7) fn foretell(
        &self,
        (levels, from): (&Levels<'_>, usize),
        request: &mut Inbound,
        told: &mut Foretold,
    ) -> Progress {
        for (place, filter) in self.filters.list().iter().enumerate().skip(from) {
            if matches!(filter.kind, FilterKind::Router(_)) {
                continue;
            }
            let mut entry = json!({"name": *filter.name});
            if !is_on(filter, levels) {
                entry["verdict"] = "disabled".into();
                told.filters.push(entry);
                continue;
            }
            if told.answer.is_some() {
                continue;
            }
            let mut more = Map::new();
            let verdict = self.one((place, filter), levels, request, &mut more);
            entry["verdict"] = match &verdict {
                Verdict::Passes => "passes",
                Verdict::Answers(..) => "answers",
                Verdict::Unknown(_) => "unknown",
                Verdict::Rerouted => "reroutes",
            }
            .into();
            if let Value::Object(fields) = &mut entry {
                fields.extend(more);
            }
            match verdict {
                Verdict::Passes => {}
                Verdict::Answers(status, details) => {
                    entry["status"] = status.as_u16().into();
                    entry["details"] = details.clone().into();
                    told.answer = Some((status, details));
                }
                Verdict::Unknown(why) => {
                    told.unknown.push(format!("{}: {why}", filter.name));
                    entry["reason"] = why.into();
                }
                Verdict::Rerouted => {
                    told.filters.push(entry);
                    return Progress::Rerouted(place + 1);
                }
            }
            told.filters.push(entry);
        }
        Progress::Through
    }

    fn one(
        &self,
        (place, filter): (usize, &HttpFilter),
        levels: &Levels<'_>,
        request: &mut Inbound,
        more: &mut Map<String, Value>,
    ) -> Verdict {
        match &filter.kind {
            FilterKind::Fault(base) => self.foretell_fault(fault_in_force(base, filter, levels), request, more),
            FilterKind::Cors => match self.cors_certainly(filter, levels, request) {
                Some(Err(stop)) => self.answer(stop, request),
                Some(Ok(())) => Verdict::Passes,
                None => Verdict::Unknown("enabled for a share of requests".into()),
            },
            FilterKind::HeaderMutation { mutations, most_specific_wins } => {
                let all = mutation::all(mutations, settings(filter, levels), *most_specific_wins);
                mutation::request(&all, self.flow, request);
                Verdict::Passes
            }
            FilterKind::Buffer(base) => {
                let setting = settings(filter, levels).find_map(|s| match s {
                    Setting::Buffer(limit) => Some(*limit),
                    _ => None,
                });
                more.insert("max_request_bytes".into(), setting.unwrap_or(Some(*base)).into());
                Verdict::Passes
            }
            FilterKind::LocalRateLimit(_) => self.foretell_local((place, filter), levels, request, more),
            FilterKind::RateLimit(config) => self.foretell_global(filter, config, levels, request, more),
            FilterKind::AdaptiveConcurrency(_) => match self.filters.admission(place) {
                Some(_) => Verdict::Unknown("answers while more requests are inside than its limit".into()),
                None => Verdict::Passes,
            },
            FilterKind::GrpcWeb => {
                grpc_web::request(request, &mut After::default());
                Verdict::Passes
            }
            FilterKind::Rbac(base) => {
                let Some(rbac) = rbac_in_force(base, filter, levels) else { return Verdict::Passes };
                self.foretell_rbac(rbac, request, more)
            }
            FilterKind::ExtAuthz(config) => {
                if self.selected.is_none() {
                    return Verdict::Passes;
                }
                let Some(check) = ext_authz::merged(filter, levels) else { return Verdict::Passes };
                let noted = self.flow.record.metadata.get();
                let on = match config.enabled.map_or(Some(true), share) {
                    Some(on) => on && config.enabled_metadata.as_ref().is_none_or(|m| m.matches(noted.as_deref())),
                    None => return Verdict::Unknown("enabled for a share of requests".into()),
                };
                if !on {
                    return match config.deny_at_disable {
                        true => self.answer(ext_authz::stop(config.status_on_error, "ext_authz_error"), request),
                        false => Verdict::Passes,
                    };
                }
                let cluster = check.service.as_ref().unwrap_or(&config.service).cluster();
                more.insert("asks".into(), (**cluster).into());
                Verdict::Unknown(format!("the service of cluster `{cluster}` decides"))
            }
            FilterKind::JwtAuthn(config) => match self.foretell_jwt(config, (filter, place), levels, request) {
                Ok(Ok(true)) => Verdict::Rerouted,
                Ok(Ok(false)) => Verdict::Passes,
                Ok(Err(stop)) => self.answer(stop, request),
                Err(why) => Verdict::Unknown(why),
            },
            FilterKind::Alpn(_) | FilterKind::Router(_) => Verdict::Passes,
        }
    }

    /// What an answer looks like from outside, in the form configured for such.
    fn answer(&self, stop: Stop, request: &Inbound) -> Verdict {
        match stop {
            Stop::Reply(reply) => {
                let details = reply.details.to_string();
                Verdict::Answers(self.local_reply(*reply, request).status(), details)
            }
            Stop::Answer(response) => {
                let details = self.flow.record.facts(None, |facts| facts.details.unwrap_or_default().to_owned());
                Verdict::Answers(response.status(), details)
            }
        }
    }

    fn foretell_rbac(&self, rbac: &crate::ir::rbac::Rbac, request: &Inbound, more: &mut Map<String, Value>) -> Verdict {
        let said = |allowed: bool| if allowed { "allowed" } else { "denied" };
        if let Some(engine) = &rbac.shadow {
            self.decide(engine, request, |decision| {
                more.insert("shadow".into(), said(decision.allowed).into());
                more.insert("shadow_policy".into(), decision.policy.map(|p| p.to_string()).into());
                if self.results_are_read() {
                    self.note(&rbac.shadow_prefix, "shadow", decision);
                }
            });
        }
        let Some(engine) = &rbac.rules else { return Verdict::Passes };
        self.decide(engine, request, |decision| {
            more.insert("authorization".into(), said(decision.allowed).into());
            more.insert("policy".into(), decision.policy.map(|p| p.to_string()).into());
            if self.results_are_read() {
                self.note(&rbac.rules_prefix, "enforced", decision);
            }
            match super::rbac::denial(decision) {
                Some(reply) => self.answer(Stop::Reply(Box::new(reply)), request),
                None => Verdict::Passes,
            }
        })
    }

    fn foretell_fault(&self, fault: &Fault, request: &Inbound, more: &mut Map<String, Value>) -> Verdict {
        let facts = request.facts(self.random);
        let concerned = *fault != Fault::default()
            && fault.max_active.is_none_or(|max| self.filters.fault_fits(max))
            && fault::concerns(fault, &facts, self.cluster(request).map(Chosen::cluster));
        if !concerned {
            return Verdict::Passes;
        }
        let draw = |draw| fault::inject(fault, &request.parts.headers, Draws { delay: draw, abort: draw, rate: draw });
        let (possible, certain) = (draw(LUCKY), draw(UNLUCKY));
        if possible == Injected::default() {
            return Verdict::Passes;
        }
        more.insert("delay_ms".into(), possible.delay.map(|d| d.as_millis() as u64).into());
        more.insert("kbps".into(), possible.kbps.into());
        let status = possible.abort.map(|abort| match abort {
            Abort::Http(status) => status,
            Abort::Grpc(_) => StatusCode::OK,
        });
        more.insert("abort".into(), status.map(|s| s.as_u16()).into());
        match status {
            Some(status) if certain.abort.is_some() => {
                let reply = Reply::new(status, "fault_filter_abort");
                self.answer(Stop::Reply(Box::new(reply)), request)
            }
            Some(_) => Verdict::Unknown("aborts a share of requests".into()),
            None => Verdict::Passes,
        }
    }

    fn foretell_local(
        &self,
        (place, filter): (usize, &HttpFilter),
        levels: &Levels<'_>,
        request: &Inbound,
        more: &mut Map<String, Value>,
    ) -> Verdict {
        let Some(limit) = self.local_limit(place, filter, levels) else { return Verdict::Passes };
        let config = &limit.config;
        let now = uptime().as_secs_f64();
        let Decision { allowed, drawn, .. } =
            self.judge_locally(limit, request, |limiter, descriptors, share| limiter.foresee(now, descriptors, share));
        more.insert("tokens_left".into(), drawn.as_ref().map(|d| d.bucket.remaining(now)).into());
        more.insert("tokens_max".into(), drawn.as_ref().map(|d| d.bucket.max()).into());
        match (share(config.enabled), share(config.enforced)) {
            (Some(false), _) | (_, Some(false)) => Verdict::Passes,
            _ if allowed => Verdict::Passes,
            (Some(true), Some(true)) => self.answer(self.refuse_locally(config, drawn.as_deref(), request), request),
            _ => Verdict::Unknown("no tokens are left, and it is enforced for a share of requests".into()),
        }
    }

    fn foretell_global(
        &self,
        filter: &HttpFilter,
        config: &GlobalRateLimit,
        levels: &Levels<'_>,
        request: &Inbound,
        more: &mut Map<String, Value>,
    ) -> Verdict {
        let off = share(config.enabled) == Some(false);
        if off || !global_limit::concerns(config.requests, &request.parts.headers) {
            return Verdict::Passes;
        }
        if self.cluster(request).and_then(|c| self.live.cluster(c.cluster())).is_none() {
            return Verdict::Passes;
        }
        let per_route = settings(filter, levels).find_map(|setting| match setting {
            Setting::RateLimit(per_route) => Some(&**per_route),
            _ => None,
        });
        let facts = request.facts(self.random);
        let descriptors = self.global_descriptors((config, per_route), false, &facts, request);
        if descriptors.is_empty() {
            return Verdict::Passes;
        }
        let entries = |d: &crate::policy::rate_limit::Descriptor<'_>| {
            d.entries.iter().map(|(key, value)| json!({"key": key, "value": value})).collect::<Vec<_>>()
        };
        more.insert("descriptors".into(), descriptors.iter().map(entries).collect::<Vec<_>>().into());
        more.insert("asks".into(), (*config.service.cluster).into());
        Verdict::Unknown(format!("the rate limit service of cluster `{}` decides", config.service.cluster))
    }
}
