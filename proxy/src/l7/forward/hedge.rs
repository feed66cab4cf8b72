//! Hedging: a try that takes longer than its timeout goes on, and another one races it.
//!
//! The first answer that the retry policy would not have replaced wins and the other tries are reset. Every try beyond
//! the first was granted by the policy's limit and by the retry budget, and holds its permit for as long as it runs.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use super::{
    Forwarding, Plan, feed,
    supply::Supply,
    tries::{Answer, Count, Launch, Next, Tried, Won},
};
use crate::{
    l7::{
        respond::Reply,
        timeouts::{Earliest, Expired, Timeouts, TryClock},
        timer::Timer,
        trace,
    },
    upstream::{Endpoint, breaker::Permit, outlier::Probe},
};

/// Most tries at a time, whatever the request asks for.
const MAX_RUNNING: usize = 8;

/// A try under way.
struct Running<'a> {
    sending: Pin<Box<dyn Future<Output = Answer> + 'a>>,
    endpoint: Arc<Endpoint>,
    number: u32,
    probe: Option<Probe>,
    /// When it began, where the balancer wants to know how long it took.
    started: Option<Instant>,
    clock: Option<Rc<TryClock>>,
    /// It took too long once: another was asked for in its place.
    replaced: bool,
    timer: Timer,
    _permit: Option<Permit>,
}

/// A try to come.
struct Due {
    at: Instant,
    permit: Option<Permit>,
    timed_out: bool,
}

/// What happened first.
enum Event {
    Answered(usize, Box<Answer>),
    /// A try hit a limit of its own.
    Expired(usize, Expired),
    Due(usize),
    OutOfTime(Expired),
}

/// All tries of one request.
#[derive(Default)]
struct Race<'a> {
    running: Vec<Running<'a>>,
    due: Vec<Due>,
    timer: Timer,
}

impl Race<'_> {
    fn is_over(&self) -> bool {
        self.running.is_empty() && self.due.is_empty()
    }

    fn poll(&mut self, forwarding: &Forwarding<'_>, plan: &Plan<'_>, cx: &mut Context<'_>) -> Poll<Event> {
        let (flow, timeouts) = (forwarding.flow, &plan.timeouts);
        for (index, running) in self.running.iter_mut().enumerate() {
            if let Poll::Ready(answer) = running.sending.as_mut().poll(cx) {
                return Poll::Ready(Event::Answered(index, Box::new(answer)));
            }
        }
        if flow.request_done().is_none() {
            flow.wait_for_request(cx.waker());
        }
        for (index, running) in self.running.iter_mut().enumerate() {
            let Some(clock) = running.clock.as_deref() else { continue };
            // A try that was replaced may take its time, as long as its cluster lets it.
            let relaxed = Timeouts { per_try: None, per_try_idle: None, ..*timeouts };
            let limits = if running.replaced { &relaxed } else { timeouts };
            if let Poll::Ready(expired) = Earliest::default().of_try(limits, flow, clock).poll(&mut running.timer, cx) {
                return Poll::Ready(Event::Expired(index, expired));
            }
        }
        let overall = Earliest::default().overall(timeouts, flow);
        let next = self.due.iter().enumerate().min_by_key(|(_, due)| due.at);
        match next.filter(|(_, due)| overall.0.is_none_or(|(at, _)| due.at < at)) {
            Some((_, due)) if due.at > Instant::now() && self.timer.poll_until(due.at, cx).is_pending() => {
                Poll::Pending
            }
            Some((index, _)) => Poll::Ready(Event::Due(index)),
            None => overall.poll(&mut self.timer, cx).map(Event::OutOfTime),
        }
    }
}

impl Forwarding<'_> {
    /// [`Self::tries`] where tries may overlap.
    pub(super) async fn hedged(&self, plan: &Plan<'_>, mut supply: Supply<'_>) -> Result<Won, Reply> {
        let mut race = Race::default();
        let mut tried: Vec<Arc<Endpoint>> = Vec::new();
        let mut count = Count::default();
        race.due.push(Due { at: Instant::now(), permit: None, timed_out: false });
        loop {
            let (mut running, result) = match poll_fn(|cx| race.poll(self, plan, cx)).await {
                Event::OutOfTime(expired) => {
                    if expired == Expired::Response {
                        let late = race.running.len().max(1);
                        plan.cluster.stats.local().upstream_rq_timeout.add(late as u64);
                    }
                    return Err(self.out_of_time(plan, expired, &count));
                }
                Event::Due(index) => {
                    let due = race.due.swap_remove(index);
                    match self.launch(plan, &mut supply, &mut count, (&tried, due.timed_out)) {
                        Ok(launch) => {
                            tried.push(launch.attempt.endpoint.clone());
                            race.running.push(self.start(plan, launch, count.tries, due.permit));
                        }
                        Err(reply) if race.is_over() => return Err(reply),
                        // There is no host for it: those that run may still answer.
                        Err(_) => {}
                    }
                    continue;
                }
                Event::Expired(index, expired @ (Expired::PerTry | Expired::PerTryIdle)) => {
                    let slow = &mut race.running[index];
                    slow.replaced = true;
                    feed::report(plan.cluster, &slow.endpoint, slow.probe.take(), &Err(expired));
                    self.observe(plan, &slow.endpoint, slow.started.take(), &Err(expired));
                    let failing = slow.endpoint.streak.ended(false).then(|| slow.endpoint.clone());
                    self.join(plan, failing.as_deref(), &mut race, &supply, &mut count);
                    continue;
                }
                Event::Expired(index, expired) => (race.running.swap_remove(index), Err(expired)),
                Event::Answered(index, answer) => (race.running.swap_remove(index), Ok(*answer)),
            };
            if !running.replaced {
                feed::report(plan.cluster, &running.endpoint, running.probe.take(), &result);
            }
            if !matches!(result, Ok(Ok(_))) {
                self.missed(plan, &running.endpoint);
            }
            self.observe(plan, &running.endpoint, running.started, &result);
            trace::tried(self.flow, running.number, &result);
            let result = self.settle(plan, result, &mut supply, &count)?;
            let Running { replaced, clock, sending, endpoint, _permit: permit, .. } = running;
            drop((sending, permit));
            let next = if replaced {
                // Another took its place already.
                let wanted = plan.rules.as_ref().is_some_and(|rules| rules.wants(&result.outcome()));
                Next::Stop { wanted }
            } else {
                self.judge(plan, &endpoint, &result, &mut supply, &mut count)
            };
            match next {
                Next::Replay(permit) => race.due.push(Due { at: Instant::now(), permit, timed_out: false }),
                Next::Retry(permit, wait) => {
                    race.due.push(Due { at: Instant::now() + wait, permit: Some(permit), timed_out: false });
                }
                // What is no answer waits for those that may still come.
                Next::Stop { wanted } if !race.is_over() && (wanted || matches!(result, Tried::Failed(..))) => {}
                Next::Stop { wanted } => {
                    // The first try owes its success to no retry.
                    supply.settle();
                    let owed = if replaced { &Count::default() } else { &count };
                    self.account(plan, &result, wanted, owed);
                    return result.end(&count, clock.as_deref());
                }
            }
            result.forget();
        }
    }

    fn start<'a>(&'a self, plan: &Plan<'_>, launch: Launch, number: u32, permit: Option<Permit>) -> Running<'a> {
        let Launch { attempt, request, probe } = launch;
        let started = plan.cluster.observes_latency().then(Instant::now);
        let endpoint = attempt.endpoint.clone();
        let clock = attempt.clock.clone();
        let pool = &self.conn.engine.pool;
        let sending = Box::pin(async move { pool.send(&attempt, request).await });
        let timer = Timer::default();
        Running { sending, endpoint, number, probe, started, clock, replaced: false, timer, _permit: permit }
    }

    /// A try takes too long: asks for another one beside it. Which responses call for a retry does not matter here.
    fn join(
        &self,
        plan: &Plan<'_>,
        failing: Option<&Endpoint>,
        race: &mut Race<'_>,
        supply: &Supply<'_>,
        count: &mut Count,
    ) {
        if !supply.can_repeat() || race.running.len() >= MAX_RUNNING {
            return;
        }
        if plan.rules.as_ref().is_none_or(|rules| count.retries >= rules.max_retries) {
            self.limit_exceeded(plan);
        } else if let Next::Retry(permit, wait) = self.retry(plan, failing, None, count) {
            race.due.push(Due { at: Instant::now() + wait, permit: Some(permit), timed_out: true });
        }
    }
}
