//! Seeded simulations of the retry decision with the budget and the credit it is bounded by.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use fastrand::Rng;

use super::*;
use crate::{
    ir::cluster::{BreakerThresholds, RetryBudget},
    upstream::{
        breaker::{Breaker, Permit},
        credit::{Credit, Streak, is_own_fault},
    },
};

/// A request under way in one proxy.
struct Frame {
    replays: u32,
    retries: u32,
    retry: Option<Permit>,
    /// Where the try under way went, and where those before it did.
    host: usize,
    tried: Vec<usize>,
    /// Whether a retry took credit.
    charged: bool,
    request: Option<Permit>,
}

/// One proxy with its view of the next.
struct Hop {
    breaker: Arc<Breaker>,
    credit: Credit,
    /// The hosts of the next: each is the whole rest of the chain, and the last hop's are told apart.
    hosts: Vec<Streak>,
    thresholds: BreakerThresholds,
    policy: RetryPolicy,
}

impl Hop {
    fn new(thresholds: BreakerThresholds, policy: RetryPolicy, hosts: usize) -> Self {
        let hosts = (0..hosts).map(|_| Streak::default()).collect();
        Self { breaker: Breaker::new(&thresholds), credit: Credit::default(), hosts, thresholds, policy }
    }

    fn enter(&self, rng: &mut Rng) -> Option<Frame> {
        let request = Some(self.breaker.try_request()?);
        let host = rng.usize(..self.hosts.len());
        Some(Frame { replays: 0, retries: 0, retry: None, host, tried: Vec::new(), charged: false, request })
    }

    /// The next try of a request: somewhere else, where there is somewhere else.
    fn again(&self, frame: &mut Frame, rng: &mut Rng) {
        frame.tried.push(frame.host);
        let left: Vec<usize> = (0..self.hosts.len()).filter(|host| !frame.tried.contains(host)).collect();
        frame.host = rng.choice(left).unwrap_or_else(|| rng.usize(..self.hosts.len()));
        frame.request = self.breaker.try_request();
    }

    fn permit(&self, frame: &mut Frame, failing: bool) -> Option<Permit> {
        let others = self.hosts.iter().enumerate().filter(|(host, _)| *host != frame.host);
        if self.thresholds.retry_budget.yields && failing && is_own_fault(others.map(|(_, streak)| streak.is_well())) {
            return self.breaker.try_any_retry();
        }
        let allowed = self.allowed();
        let permit = self.breaker.try_retry().filter(|_| self.credit.take())?;
        assert!(self.breaker.used()[3] <= allowed, "the budget is exceeded");
        frame.charged = true;
        Some(permit)
    }

    /// How many retries may be in flight by what is configured.
    fn allowed(&self) -> u32 {
        let [_, pending, active, _] = self.breaker.used();
        let share = (active + pending) * self.thresholds.retry_budget.permille / 1000;
        self.thresholds.max_retries.min(share.max(self.thresholds.retry_budget.min_concurrency))
    }

    /// Whether to go again after `outcome`, and when.
    fn judge(
        &self,
        frame: &mut Frame,
        request: &super::Request<'_>,
        outcome: &Outcome<'_>,
        rng: &mut Rng,
    ) -> Option<Duration> {
        (frame.retry, frame.request) = (None, None);
        let rules = Rules::new(Some(&self.policy), &HeaderMap::new(), false, |_| true);
        let mut verdict = decide(rules.as_ref(), request, outcome, (frame.replays, frame.retries));
        if verdict == Verdict::ReplayOnce {
            frame.retry = self.breaker.try_retry();
            if frame.retry.is_none() {
                verdict = decide(rules.as_ref(), request, outcome, (MAX_REPLAYS, frame.retries));
            }
        }
        let mut wait = None;
        let failing = verdict != Verdict::Replay && self.hosts[frame.host].ended(verdict == Verdict::Enough);
        match verdict {
            Verdict::Replay | Verdict::ReplayOnce => {
                frame.replays += 1;
                wait = Some(Duration::ZERO);
            }
            Verdict::Retry => {
                assert!(request.replayable && frame.retries < self.policy.max_retries);
                if let Some(permit) = self.permit(frame, failing) {
                    frame.retries += 1;
                    frame.retry = Some(permit);
                    let Wait::Exponential(pause) =
                        super::wait(&self.policy, frame.retries, None, SystemTime::UNIX_EPOCH, rng.u64(..))
                    else {
                        panic!("nothing asked for a wait");
                    };
                    wait = Some(pause);
                }
            }
            Verdict::Enough | Verdict::Unable | Verdict::LimitExceeded => {}
        }
        if wait.is_none() {
            let good = verdict == Verdict::Enough && matches!(outcome, Outcome::Response { .. });
            self.credit.ended(good, self.thresholds.retry_budget.permille);
            if good && frame.charged {
                self.credit.give_back();
            }
        }
        wait
    }
}

/// A request on its way through a chain of proxies: the innermost frame is the last.
#[derive(Default)]
struct Job(Vec<Frame>);

/// What a run came to.
#[derive(Debug, Default)]
struct Tally {
    requests: u32,
    calls: u32,
    answered: u32,
    most_tries: u32,
}

/// Sends requests through a chain of proxies to a service that `serve` plays: how long a call that comes to a host at
/// some time takes, and what it says.
fn run(
    hops: &[Hop],
    requests: u32,
    gap: u64,
    rng: &mut Rng,
    mut serve: impl FnMut(&mut Rng, usize, u64) -> (u64, Result<StatusCode, Failure>),
) -> Tally {
    let mut tally = Tally { requests, ..Tally::default() };
    let mut jobs: Vec<Job> = Vec::new();
    let mut results = Vec::new();
    // Time, job, and whether the call came back (or is to be made).
    let mut events = BinaryHeap::new();
    let mut at = 0;
    for id in 0..requests as usize {
        at += rng.u64(..gap.max(1) * 2);
        jobs.push(Job::default());
        results.push(Err(Failure::Overflow));
        events.push(Reverse((at, id, false)));
    }
    let (method, empty) = (Method::GET, HeaderMap::new());
    while let Some(Reverse((now, id, back))) = events.pop() {
        let frames = &mut jobs[id].0;
        if !back {
            let at = frames.len();
            if let Some(frame) = frames.last_mut() {
                hops[at - 1].again(frame, rng);
            }
            while frames.len() < hops.len() && frames.last().is_none_or(|frame| frame.request.is_some()) {
                let Some(frame) = hops[frames.len()].enter(rng) else { break };
                frames.push(frame);
            }
            let host = frames.get(hops.len() - 1).filter(|frame| frame.request.is_some()).map(|frame| frame.host);
            let (takes, result) = host.map_or((0, Err(Failure::Overflow)), |host| serve(rng, host, now));
            tally.calls += u32::from(host.is_some());
            results[id] = result;
            events.push(Reverse((now + takes, id, true)));
            continue;
        }
        while let Some(mut frame) = frames.pop() {
            let hop = &hops[frames.len()];
            let request = super::Request { method: &method, replayable: true, has_body: false, age: Duration::ZERO };
            // What failed behind the next proxy comes from it as a response.
            let innermost = frames.len() + 1 == hops.len();
            let status = match results[id] {
                Ok(status) => Some(status),
                Err(_) if !innermost => Some(StatusCode::SERVICE_UNAVAILABLE),
                Err(_) => None,
            };
            let outcome = match (status, results[id]) {
                (Some(status), _) => Outcome::Response { status, headers: &empty },
                (None, Err(failure)) => Outcome::Failed(failure),
                (None, Ok(_)) => unreachable!(),
            };
            if let Some(wait) = hop.judge(&mut frame, &request, &outcome, rng) {
                frames.push(frame);
                events.push(Reverse((now + 1 + wait.as_micros() as u64, id, false)));
                break;
            }
            tally.most_tries = tally.most_tries.max(1 + frame.replays + frame.retries);
        }
        if frames.is_empty() {
            tally.answered += u32::from(results[id].is_ok_and(|status| status.is_success()));
        }
    }
    for hop in hops {
        assert_eq!(hop.breaker.used(), [0; 4], "every permit comes back");
    }
    tally
}

fn conditions(rng: &mut Rng) -> String {
    let names = ["5xx", "gateway-error", "reset", "connect-failure", "refused-stream", "reset-before-request"];
    names.into_iter().filter(|_| rng.bool()).collect::<Vec<_>>().join(",")
}

#[test]
fn neither_the_policy_nor_the_budget_is_ever_exceeded() {
    for seed in 0..10_000 {
        let mut rng = Rng::with_seed(seed);
        let thresholds = BreakerThresholds {
            max_requests: rng.u32(1..40),
            max_retries: rng.u32(0..12),
            retry_budget: RetryBudget {
                permille: rng.u32(0..1001),
                min_concurrency: rng.u32(0..5),
                yields: rng.bool(),
            },
            ..BreakerThresholds::default()
        };
        let policy = RetryPolicy {
            on: RetryOn::parse(&conditions(&mut rng)).0,
            max_retries: rng.u32(0..6),
            backoff_base: Duration::from_micros(rng.u64(0..200)),
            backoff_max: Duration::from_micros(rng.u64(0..2000)),
            ..RetryPolicy::default()
        };
        let (limit, bad) = (policy.max_retries, rng.u32(0..101));
        let hops = [Hop::new(thresholds, policy, rng.usize(1..4))];
        let tally = run(&hops, 30, 50, &mut rng, |rng, _, _| {
            let takes = rng.u64(0..500);
            if rng.u32(0..100) >= bad {
                return (takes, Ok(StatusCode::OK));
            }
            let failed = match rng.u8(0..7) {
                0 => Err(Failure::Connect),
                1 => Err(Failure::Refused),
                2 => Err(Failure::Unsent),
                3 => Err(Failure::Reset { reused: rng.bool() }),
                4 => Err(Failure::TryTimeout),
                5 => Ok(StatusCode::INTERNAL_SERVER_ERROR),
                _ => Ok(StatusCode::SERVICE_UNAVAILABLE),
            };
            (takes, failed)
        });
        assert!(tally.most_tries <= 1 + limit + MAX_REPLAYS, "seed {seed}: {tally:?}");
        assert!(tally.calls <= tally.requests * (1 + limit + MAX_REPLAYS), "seed {seed}: {tally:?}");
    }
}

/// Proxies with what a control plane like Istio's makes of limits, each before so many hosts.
fn chain(hosts: [usize; 3]) -> [Hop; 3] {
    hosts.map(|hosts| {
        let thresholds =
            BreakerThresholds { max_requests: u32::MAX, max_retries: u32::MAX, ..BreakerThresholds::default() };
        let policy = RetryPolicy { on: RetryOn::SERVER_ERROR, max_retries: 3, ..RetryPolicy::default() };
        Hop::new(thresholds, policy, hosts)
    })
}

#[test]
fn a_chain_of_retrying_proxies_does_not_multiply_the_load_on_what_fails() {
    for seed in 0..100 {
        let mut rng = Rng::with_seed(seed);
        let (gap, takes) = (rng.u64(50..2000), rng.u64(100..20_000));
        let works = rng.u32(0..10);
        let hops = chain(std::array::from_fn(|_| rng.usize(1..6)));
        let tally = run(&hops, 3000, gap, &mut rng, |rng, _, _| {
            let status = if rng.u32(0..100) < works { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            (takes, Ok(status))
        });
        let multiplier = f64::from(tally.calls) / f64::from(tally.requests);
        assert!(multiplier <= 1.2, "seed {seed}: {multiplier} {tally:?}");
    }
}

#[test]
fn a_service_that_was_well_and_fails_gets_no_storm_either() {
    for seed in 0..20 {
        let mut rng = Rng::with_seed(seed);
        let (gap, takes) = (rng.u64(50..500), rng.u64(100..20_000));
        let hops = chain(std::array::from_fn(|_| rng.usize(1..6)));
        // It fails for the last two thirds.
        let from = gap * 1000;
        let (mut early, mut late) = (0, 0);
        run(&hops, 3000, gap, &mut rng, |_, _, now| {
            *if now < from { &mut early } else { &mut late } += 1;
            (takes, Ok(if now < from { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }))
        });
        let multiplier = f64::from(late) / f64::from(3000 - early);
        assert!(multiplier <= 1.2, "seed {seed}: {multiplier}");
    }
}

#[test]
fn requests_that_always_fail_are_not_multiplied_by_every_hop() {
    for seed in 0..10 {
        let mut rng = Rng::with_seed(seed);
        let hops = chain([3; 3]);
        let poison = rng.u32(2..30);
        // Which requests are poison is chance for each call: the hosts are all the same.
        let tally = run(&hops, 3000, 500, &mut rng, |rng, _, _| {
            (3000, Ok(if rng.u32(0..100) < poison { StatusCode::BAD_GATEWAY } else { StatusCode::OK }))
        });
        let multiplier = f64::from(tally.calls) / f64::from(tally.requests);
        assert!(multiplier <= 1.5, "seed {seed}, {poison} %: {multiplier} {tally:?}");
    }
}

#[test]
fn retries_that_help_are_not_held_back() {
    for seed in 0..100 {
        let mut rng = Rng::with_seed(seed);
        // One of ten calls goes to a replica that is gone; in flight there are few, so the floor of the budget holds.
        let tally = run(&chain([1; 3]), 3000, 1000, &mut rng, |rng, _, _| {
            if rng.u32(0..10) == 0 { (10, Err(Failure::Connect)) } else { (3000, Ok(StatusCode::OK)) }
        });
        assert_eq!(tally.answered, tally.requests, "seed {seed}: {tally:?}");
    }
}

#[test]
fn a_replica_that_dies_fails_nothing_however_much_is_in_flight() {
    for seed in 0..20 {
        let mut rng = Rng::with_seed(seed);
        let (gap, replicas) = (rng.u64(20..1000), rng.usize(2..6));
        let takes = gap * rng.u64(2..500);
        let mut hops = chain([replicas; 3]);
        let hop = &mut hops[2..];
        // In the middle one dies with all that is in flight to it, and refuses connections from then on.
        let dies = gap * 2000;
        let tally = run(hop, 4000, gap, &mut rng, |_, host, now| match host {
            0 if now >= dies => (10, Err(Failure::Connect)),
            0 if now + takes > dies => (dies - now, Err(Failure::Reset { reused: true })),
            _ => (takes, Ok(StatusCode::OK)),
        });
        assert_eq!(tally.answered, tally.requests, "seed {seed}: {tally:?}");
    }
}
