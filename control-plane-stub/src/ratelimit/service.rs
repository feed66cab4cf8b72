//! The gRPC face: who may ask, what is asked, and the answer in Envoy's terms.
//!
//! While the store is away the answer is an error, so that proxies do what their configuration says for that case.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use outrigger_wire::pb::{
    envoy::{
        extensions::common::ratelimit::v3::RateLimitDescriptor,
        service::ratelimit::v3::{
            RateLimitRequest, RateLimitResponse,
            rate_limit_response::{Code, DescriptorStatus, RateLimit, rate_limit::Unit as WireUnit},
            rate_limit_service_server::RateLimitService,
        },
    },
    google::protobuf::Duration as WireDuration,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    memory::Memory,
    rate::{Ask, Hits, Unit, Verdict},
    redis::{Away, Redis},
    rules::{DOMAIN, Domains, Found, Objects, Refusal, Rules},
    stats::{LimitsReport, Stats},
};
use crate::{
    auth::Identity,
    auth::caller::{Authenticator, Connection},
    server::source::Worlds,
};

pub(super) const MAX_DESCRIPTORS: usize = 64;
const MAX_DOMAIN: usize = 256;

/// Where counters are kept.
#[derive(Debug)]
pub enum Store {
    Memory(Memory),
    Redis(Box<Redis>),
}

/// What all connections share: counters, rules files, statistics.
#[derive(Debug)]
pub struct RateLimits {
    pub store: Store,
    pub files: ArcSwap<Domains>,
    pub stats: Stats,
    started: (Instant, Duration),
}

impl RateLimits {
    pub fn new(store: Store, files: Domains) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { store, files: ArcSwap::from_pointee(files), stats: Stats::default(), started: (Instant::now(), now) }
    }

    /// Microseconds since the epoch, never going back: a clock that is set must not open windows again.
    fn now(&self) -> u64 {
        let (instant, at) = self.started;
        u64::try_from((at + instant.elapsed()).as_micros()).unwrap_or(u64::MAX)
    }

    /// Keeps the store connected until shutdown.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        match &self.store {
            Store::Memory(_) => shutdown.cancelled().await,
            Store::Redis(redis) => redis.keep_connected(shutdown).await,
        }
    }

    pub fn report(&self) -> LimitsReport {
        LimitsReport::of(&self.stats, &self.store)
    }

    pub fn render(&self, out: &mut String) {
        self.stats.render(&self.store, out);
    }

    async fn decide(&self, asks: &[Ask]) -> Result<Vec<Verdict>, Away> {
        match &self.store {
            Store::Memory(memory) => Ok(memory.decide(asks, self.now())),
            Store::Redis(redis) => redis.decide(asks).await,
        }
    }
}

/// The tonic face.
pub struct Service {
    limits: Arc<RateLimits>,
    worlds: Worlds,
    authenticator: Authenticator,
    /// Plaintext callers without credentials are served. For tests.
    plaintext: bool,
}

impl Service {
    pub fn new(limits: Arc<RateLimits>, worlds: Worlds, authenticator: Authenticator, plaintext: bool) -> Self {
        Self { limits, worlds, authenticator, plaintext }
    }

    /// The caller; none if it needs no identity.
    fn caller(&self, request: &Request<RateLimitRequest>) -> Result<Option<Identity>, Status> {
        let connection = request
            .extensions()
            .get::<Connection>()
            .ok_or_else(|| Status::internal("the listener left no connection information"))?;
        // Proven when the connection was made, which is as long as it counts here: connections live for hours, the
        // certificates behind them may not, and all that is asked for is a number.
        if let Some(caller) = &connection.certificate {
            connection.admit();
            return Ok(Some(caller.identity.clone()));
        }
        match self.authenticator.authenticate(connection, request.metadata(), SystemTime::now())? {
            Some(caller) => Ok(Some(caller.identity)),
            None if self.plaintext => Ok(None),
            None => Err(Status::unauthenticated("rate limits need a client certificate or a bearer token")),
        }
    }

    /// The limit of each descriptor.
    fn find(&self, message: &RateLimitRequest, caller: Option<&Identity>) -> Result<Vec<Option<Found>>, Status> {
        let invalid = |reason: &str| Err(Status::invalid_argument(reason));
        if message.domain.is_empty() || message.domain.len() > MAX_DOMAIN {
            return invalid("a request needs a domain of at most 256 bytes");
        }
        if message.descriptors.is_empty() || message.descriptors.len() > MAX_DESCRIPTORS {
            return invalid("a request needs 1 to 64 descriptors");
        }
        let none = Objects::new();
        let world = self.worlds.borrow().clone();
        let objects = match &world {
            Some(generation) => &generation.limits,
            None if message.domain == DOMAIN => {
                return Err(Status::unavailable("no configuration has been loaded yet"));
            }
            None => &none,
        };
        let files = self.limits.files.load();
        let rules = Rules { objects, domains: &files };
        let caller = caller.map(|identity| (identity.namespace(), identity.service_account()));
        let found = message.descriptors.iter().map(|descriptor| rules.find(&message.domain, descriptor, caller));
        found.collect::<Result<_, Refusal>>().map_err(|refusal| match refusal {
            Refusal::Foreign => Status::permission_denied(refusal.to_string()),
            _ => Status::invalid_argument(refusal.to_string()),
        })
    }

    async fn answer(&self, request: &Request<RateLimitRequest>) -> Result<RateLimitResponse, Status> {
        let stats = &self.limits.stats;
        stats.requests.fetch_add(1, Relaxed);
        let message = request.get_ref();
        let found = self.caller(request).and_then(|caller| self.find(message, caller.as_ref()));
        let found = found.inspect_err(|_| _ = stats.refused.fetch_add(1, Relaxed))?;
        let (asks, places) = asks(message, &found);
        let verdicts = if asks.is_empty() { Vec::new() } else { self.decide(&asks).await? };
        let mut statuses = Vec::with_capacity(found.len());
        let mut code = Code::Ok;
        for (found, place) in found.iter().zip(&places) {
            let verdict = place.and_then(|place| verdicts.get(place));
            let (Some(found), Some(verdict)) = (found, verdict) else {
                stats.unmatched.fetch_add(1, Relaxed);
                statuses.push(DescriptorStatus { code: Code::Ok as i32, ..DescriptorStatus::default() });
                continue;
            };
            if verdict.over && found.enforced {
                code = Code::OverLimit;
            }
            statuses.push(status(found, verdict));
        }
        let decided = found.iter().zip(&places).filter_map(|(found, place)| {
            let (found, verdict) = (found.as_ref()?, verdicts.get((*place)?)?);
            Some((&found.rule, verdict.over, found.enforced))
        });
        stats.decided(decided);
        Ok(RateLimitResponse { overall_code: code as i32, statuses, ..RateLimitResponse::default() })
    }

    async fn decide(&self, asks: &[Ask]) -> Result<Vec<Verdict>, Status> {
        self.limits.decide(asks).await.map_err(|away| {
            self.limits.stats.away(away);
            Status::unavailable(away.to_string())
        })
    }
}

/// What to ask the store, and for each descriptor its place there. Descriptors of one key are asked once, for all hits.
fn asks(message: &RateLimitRequest, found: &[Option<Found>]) -> (Vec<Ask>, Vec<Option<usize>>) {
    let mut asks: Vec<Ask> = Vec::with_capacity(found.len());
    let mut places = Vec::with_capacity(found.len());
    for (descriptor, found) in message.descriptors.iter().zip(found) {
        let Some(found) = found else {
            places.push(None);
            continue;
        };
        let hits = hits(message, descriptor);
        let same = asks.iter().position(|ask| ask.key == found.key);
        places.push(Some(same.unwrap_or(asks.len())));
        match same.map(|at| &mut asks[at]) {
            None => asks.push(Ask { key: found.key.clone(), rate: found.rate, hits, enforced: found.enforced }),
            Some(ask) => {
                ask.hits =
                    match (ask.hits, hits) {
                        (Hits::Take(a), Hits::Take(b)) => Hits::Take(a + b),
                        (Hits::Return(a), Hits::Return(b)) => Hits::Return(a + b),
                        (Hits::Take(take), Hits::Return(back)) | (Hits::Return(back), Hits::Take(take)) => {
                            if take >= back { Hits::Take(take - back) } else { Hits::Return(back - take) }
                        }
                    };
            }
        }
    }
    (asks, places)
}

fn hits(message: &RateLimitRequest, descriptor: &RateLimitDescriptor) -> Hits {
    let number = match &descriptor.hits_addend {
        Some(own) => own.value.min(u32::MAX.into()),
        None => u64::from(message.hits_addend.max(1)),
    };
    if descriptor.is_negative_hits && number > 0 { Hits::Return(number) } else { Hits::Take(number) }
}

fn status(found: &Found, verdict: &Verdict) -> DescriptorStatus {
    if !found.enforced {
        // Nobody outside is to notice: no code, and nothing for headers.
        return DescriptorStatus { code: Code::Ok as i32, ..DescriptorStatus::default() };
    }
    let unit = match found.rate.unit {
        Unit::Second => WireUnit::Second,
        Unit::Minute => WireUnit::Minute,
        Unit::Hour => WireUnit::Hour,
        Unit::Day => WireUnit::Day,
        Unit::Week => WireUnit::Week,
        Unit::Month => WireUnit::Month,
        Unit::Year => WireUnit::Year,
    };
    let limit = RateLimit { name: found.rule.to_string(), requests_per_unit: found.rate.requests, unit: unit as i32 };
    let reset = WireDuration {
        seconds: i64::try_from(verdict.reset.as_secs()).unwrap_or(i64::MAX),
        nanos: verdict.reset.subsec_nanos() as i32,
    };
    DescriptorStatus {
        code: if verdict.over { Code::OverLimit } else { Code::Ok } as i32,
        current_limit: Some(limit),
        limit_remaining: verdict.remaining,
        duration_until_reset: Some(reset),
        ..DescriptorStatus::default()
    }
}

#[tonic::async_trait]
impl RateLimitService for Service {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        self.answer(&request).await.map(Response::new)
    }
}
