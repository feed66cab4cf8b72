//! Requests at a fixed rate whatever the answers do, and latency from the moment each one should have been sent.
//!
//! A closed loop stops asking while the server stalls and so hides the stall (coordinated omission). Here the schedule
//! goes on: a request that finds no free connection waits, and its waiting is part of its latency. Requests unanswered
//! at the end are counted with the time they waited so far. The schedule may have phases: what becomes of a request
//! belongs to the phase in which it should have been sent.

use std::{
    cell::RefCell,
    collections::VecDeque,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use tokio::sync::Notify;

use super::{histogram, http1::Connection, micros, pacer::Pacer};

/// How long answers may still come after the last request.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) to: SocketAddr,
    pub(crate) rate: f64,
    pub(crate) connections: usize,
    pub(crate) length: Duration,
}

/// What came of it. Latencies in microseconds.
pub(crate) struct Outcome {
    /// From the intended moment of sending.
    pub(crate) latency: Histogram<u64>,
    /// How late requests were sent although a connection was free: the generator's own fault.
    pub(crate) lateness: Histogram<u64>,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
}

impl Outcome {
    fn new() -> Self {
        Self { latency: histogram(), lateness: histogram(), completed: 0, failed: 0 }
    }
}

#[derive(Default)]
struct State {
    due: VecDeque<Instant>,
    idle: Vec<Rc<Notify>>,
    /// Intended moments of the requests that were sent and not answered yet.
    in_flight: Vec<Instant>,
    /// When each phase but the first began.
    cuts: Vec<Instant>,
    /// Of each phase.
    outcomes: Vec<Outcome>,
}

impl State {
    fn outcome(&mut self, intended: Instant) -> &mut Outcome {
        let phase = self.cuts.iter().take_while(|cut| intended >= **cut).count();
        &mut self.outcomes[phase]
    }
}

/// Runs the load to its end.
pub(crate) async fn run(load: Load, request: Rc<[u8]>) -> anyhow::Result<Outcome> {
    run_phases(load, request, &[], |_| {}).await?.pop().context("there is one phase")
}

/// As [`run`], with a new phase after each of the times in `cuts`: `entered` gets the number of each phase as it begins,
/// the first is 0, and one more than the last at the end of the schedule. One outcome for each phase.
pub(crate) async fn run_phases(
    load: Load,
    request: Rc<[u8]>,
    cuts: &[Duration],
    mut entered: impl FnMut(usize),
) -> anyhow::Result<Vec<Outcome>> {
    let outcomes = (0..=cuts.len()).map(|_| Outcome::new()).collect();
    let state = Rc::new(RefCell::new(State { outcomes, ..State::default() }));
    let mut tasks = tokio::task::JoinSet::new();
    let open = || async {
        let mut connection = Connection::open(load.to).await?;
        // The first exchange pays for whatever is made lazily.
        connection.exchange(&request).await?;
        Ok::<_, std::io::Error>(connection)
    };
    for connection in futures_util::future::try_join_all((0..load.connections).map(|_| open())).await? {
        tasks.spawn_local(serve(connection, load.to, request.clone(), state.clone()));
    }
    tokio::task::yield_now().await;
    let mut pacer = Pacer::new()?;
    let count = (load.rate * load.length.as_secs_f64()) as u64;
    let start = Instant::now();
    state.borrow_mut().cuts = cuts.iter().map(|cut| start + *cut).collect();
    entered(0);
    let mut phase = 0;
    for n in 0..count {
        let intended = start + Duration::from_secs_f64(n as f64 / load.rate);
        pacer.until(intended).await?;
        while cuts.get(phase).is_some_and(|cut| intended >= start + *cut) {
            phase += 1;
            entered(phase);
        }
        due(&mut state.borrow_mut(), intended);
        if n % 16 == 0 {
            // When behind schedule nothing above waits, and the connections must run too.
            tokio::task::yield_now().await;
        }
    }
    entered(cuts.len() + 1);
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline && !(state.borrow().due.is_empty() && state.borrow().in_flight.is_empty()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tasks.shutdown().await;
    let mut state = Rc::into_inner(state).context("the tasks are gone")?.into_inner();
    let unanswered: Vec<Instant> = state.due.drain(..).chain(state.in_flight.drain(..)).collect();
    for intended in unanswered {
        let outcome = state.outcome(intended);
        outcome.failed += 1;
        outcome.latency.saturating_record(micros(intended.elapsed()));
    }
    Ok(state.outcomes)
}

/// A request is to be sent: a free connection is told.
fn due(state: &mut State, intended: Instant) {
    state.due.push_back(intended);
    if let Some(free) = state.idle.pop() {
        state.outcome(intended).lateness.saturating_record(micros(intended.elapsed()).max(1));
        free.notify_one();
    }
}

/// One connection: takes what is due, oldest first.
async fn serve(mut connection: Connection, to: SocketAddr, request: Rc<[u8]>, state: Rc<RefCell<State>>) {
    let wake = Rc::new(Notify::new());
    loop {
        let intended = {
            let mut state = state.borrow_mut();
            let next = state.due.pop_front();
            match next {
                Some(intended) => state.in_flight.push(intended),
                None => state.idle.push(wake.clone()),
            }
            next
        };
        let Some(intended) = intended else {
            wake.notified().await;
            continue;
        };
        let result = connection.exchange(&request).await;
        let succeeded = matches!(&result, Ok((head, _)) if head.status == 200);
        {
            let mut state = state.borrow_mut();
            if let Some(at) = state.in_flight.iter().position(|other| *other == intended) {
                state.in_flight.swap_remove(at);
            }
            let outcome = state.outcome(intended);
            outcome.latency.saturating_record(micros(intended.elapsed()).max(1));
            if succeeded {
                outcome.completed += 1;
            } else {
                outcome.failed += 1;
            }
        }
        if result.is_err() {
            match Connection::open(to).await {
                Ok(new) => connection = new,
                Err(_) => return,
            }
        }
    }
}
