//! Seeded simulations of the retry decision with the budget and the credit it is bounded by.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use fastrand::Rng;

use super::*;
use crate::{
    ir::cluster::{BreakerThresholds, RetryBudget},
    upstream::{
        breaker::{Breaker, Permit},
        credit::Credit,
    },
};

/// A request under way in one proxy.
struct Frame {
    replays: u32,
    retries: u32,
    retry: Option<Permit>,
    _request: Permit,
}

/// One proxy with its view of the next.
struct Hop {
    breaker: Arc<Breaker>,
    credit: Credit,
    thresholds: BreakerThresholds,
    policy: RetryPolicy,
}

impl Hop {
    fn new(thresholds: BreakerThresholds, policy: RetryPolicy) -> Self {
        Self { breaker: Breaker::new(&thresholds), credit: Credit::default(), thresholds, policy }
    }

    fn enter(&self) -> Option<Frame> {
        let request = self.breaker.try_request()?;
        Some(Frame { replays: 0, retries: 0, retry: None, _request: request })
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
        frame.retry = None;
        let rules = Rules::new(Some(&self.policy), &HeaderMap::new(), false, |_| true);
        let verdict = decide(rules.as_ref(), request, outcome, (frame.replays, frame.retries));
        let mut wait = None;
        match verdict {
            Verdict::Replay => {
                frame.replays += 1;
                wait = Some(Duration::ZERO);
            }
            Verdict::Retry => {
                assert!(request.replayable && frame.retries < self.policy.max_retries);
                let allowed = self.allowed();
                if let Some(permit) = self.breaker.try_retry().filter(|_| self.credit.take()) {
                    assert!(self.breaker.used()[3] <= allowed, "the budget is exceeded");
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
            if good && frame.retries > 0 {
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

/// Sends requests through a chain of proxies to a service that `serve` plays: how long a call takes and what it says.
fn run(
    hops: &[Hop],
    requests: u32,
    gap: u64,
    rng: &mut Rng,
    mut serve: impl FnMut(&mut Rng) -> (u64, Result<StatusCode, Failure>),
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
            while frames.len() < hops.len() {
                let Some(frame) = hops[frames.len()].enter() else { break };
                frames.push(frame);
            }
            let (takes, result) = if frames.len() == hops.len() { serve(rng) } else { (0, Err(Failure::Overflow)) };
            tally.calls += u32::from(frames.len() == hops.len());
            results[id] = result;
            events.push(Reverse((now + takes, id, true)));
            continue;
        }
        while let Some(mut frame) = frames.pop() {
            let hop = &hops[frames.len()];
            let request = super::Request { method: &method, replayable: true, has_body: false };
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
            retry_budget: RetryBudget { permille: rng.u32(0..1001), min_concurrency: rng.u32(0..5) },
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
        let hops = [Hop::new(thresholds, policy)];
        let tally = run(&hops, 30, 50, &mut rng, |rng| {
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

fn three_hops() -> [Hop; 3] {
    std::array::from_fn(|_| {
        let thresholds =
            BreakerThresholds { max_requests: u32::MAX, max_retries: u32::MAX, ..BreakerThresholds::default() };
        Hop::new(thresholds, RetryPolicy { on: RetryOn::SERVER_ERROR, max_retries: 3, ..RetryPolicy::default() })
    })
}

#[test]
fn a_chain_of_retrying_proxies_does_not_multiply_the_load_on_what_fails() {
    for seed in 0..100 {
        let mut rng = Rng::with_seed(seed);
        let (gap, takes) = (rng.u64(50..2000), rng.u64(100..20_000));
        let works = rng.u32(0..10);
        let tally = run(&three_hops(), 3000, gap, &mut rng, |rng| {
            let status = if rng.u32(0..100) < works { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            (takes, Ok(status))
        });
        let multiplier = f64::from(tally.calls) / f64::from(tally.requests);
        assert!(multiplier <= 1.2, "seed {seed}: {multiplier} {tally:?}");
    }
}

#[test]
fn retries_that_help_are_not_held_back() {
    for seed in 0..100 {
        let mut rng = Rng::with_seed(seed);
        // One of ten calls goes to a replica that is gone; in flight there are few, so the floor of the budget holds.
        let tally = run(&three_hops(), 3000, 1000, &mut rng, |rng| {
            if rng.u32(0..10) == 0 { (10, Err(Failure::Connect)) } else { (3000, Ok(StatusCode::OK)) }
        });
        assert_eq!(tally.answered, tally.requests, "seed {seed}: {tally:?}");
    }
}
