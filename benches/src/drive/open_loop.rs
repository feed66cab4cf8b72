//! Requests at a fixed rate whatever the answers do, and latency from the moment each one should have been sent.
//!
//! A closed loop stops asking while the server stalls and so hides the stall (coordinated omission). Here the schedule
//! goes on: a request that finds no free connection waits, and its waiting is part of its latency. Requests unanswered
//! at the end are counted with the time they waited so far.

use std::{
    cell::RefCell,
    collections::VecDeque,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

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

struct State {
    due: VecDeque<Instant>,
    idle: Vec<Rc<Notify>>,
    /// Intended moments of the requests that were sent and not answered yet.
    in_flight: Vec<Instant>,
    outcome: Outcome,
}

/// Runs the load to its end.
pub(crate) async fn run(load: Load, request: Rc<[u8]>) -> anyhow::Result<Outcome> {
    let outcome = Outcome { latency: histogram(), lateness: histogram(), completed: 0, failed: 0 };
    let state = Rc::new(RefCell::new(State { due: VecDeque::new(), idle: Vec::new(), in_flight: Vec::new(), outcome }));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..load.connections {
        let mut connection = Connection::open(load.to).await?;
        // The first exchange pays for whatever is made lazily.
        connection.exchange(&request).await?;
        tasks.spawn_local(serve(connection, load.to, request.clone(), state.clone()));
    }
    tokio::task::yield_now().await;
    let mut pacer = Pacer::new()?;
    let count = (load.rate * load.length.as_secs_f64()) as u64;
    let start = Instant::now();
    for n in 0..count {
        let intended = start + Duration::from_secs_f64(n as f64 / load.rate);
        pacer.until(intended).await?;
        due(&mut state.borrow_mut(), intended);
        if n % 16 == 0 {
            // When behind schedule nothing above waits, and the connections must run too.
            tokio::task::yield_now().await;
        }
    }
    let deadline = Instant::now() + GRACE;
    while Instant::now() < deadline && !(state.borrow().due.is_empty() && state.borrow().in_flight.is_empty()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tasks.shutdown().await;
    let state = Rc::into_inner(state).expect("the tasks are gone").into_inner();
    let mut outcome = state.outcome;
    outcome.failed += (state.due.len() + state.in_flight.len()) as u64;
    for intended in state.due.into_iter().chain(state.in_flight) {
        outcome.latency.saturating_record(micros(intended.elapsed()));
    }
    Ok(outcome)
}

/// A request is to be sent: a free connection is told.
fn due(state: &mut State, intended: Instant) {
    state.due.push_back(intended);
    if let Some(free) = state.idle.pop() {
        state.outcome.lateness.saturating_record(micros(intended.elapsed()).max(1));
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
            state.outcome.latency.saturating_record(micros(intended.elapsed()).max(1));
            if succeeded {
                state.outcome.completed += 1;
            } else {
                state.outcome.failed += 1;
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
