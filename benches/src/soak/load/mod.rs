//! The clients: each kind of work at a rate of its own, all on one thread in the client's Pod.

mod http1;
mod http2;
mod raw;
mod vanish;

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context as _;
use tokio::time::Instant;

use super::{
    pushes::Told,
    stage,
    tally::{End, Tally},
};

/// No piece of work takes longer, whatever happens.
const PATIENCE: Duration = Duration::from_secs(20);

/// What all clients share.
#[derive(Clone)]
pub(super) struct Clients {
    pub(super) tally: Arc<Tally>,
    pub(super) stop: Arc<AtomicBool>,
    /// What the applications and the mesh were last told to do.
    pub(super) told: Arc<Told>,
    /// All rates are multiplied by it.
    pub(super) rate: f64,
}

/// Connections that were refused at first.
pub(super) fn refused() -> u64 {
    http1::refused()
}

/// The addresses of the services.
fn app(port: u16) -> SocketAddr {
    (stage::APP, port).into()
}

fn flaky() -> SocketAddr {
    (stage::FLAKY, 80).into()
}

/// A kind of work: its name, how many do it, how often in all of them together (a second).
#[derive(Clone, Copy, Debug)]
struct Kind {
    name: &'static str,
    workers: u32,
    rate: f64,
}

const fn kind(name: &'static str, workers: u32, rate: f64) -> Kind {
    Kind { name, workers, rate }
}

/// Runs until it is told to stop.
pub(super) async fn run(clients: Clients) -> anyhow::Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    let all = &clients;
    start(&mut tasks, all, kind("http1-kept", 16, 300.0), |c| http1::Kept::new(c, app(80), "app"), http1::Kept::mixed);
    start(&mut tasks, all, kind("http1-new", 4, 40.0), |_| (), async |_: &mut ()| http1::fresh().await);
    start(&mut tasks, all, kind("http1-told", 2, 20.0), |c| http1::Kept::new(c, app(80), "app"), http1::Kept::told);
    start(&mut tasks, all, kind("http1-flaky", 8, 40.0), |c| http1::Kept::new(c, flaky(), "flaky"), http1::Kept::flaky);
    start(&mut tasks, all, kind("http2", 8, 150.0), |_| http2::Shared::new("/http2"), http2::Shared::call);
    start(&mut tasks, all, kind("grpc", 8, 150.0), |_| http2::Shared::new("/soak.Echo/Unary"), http2::Shared::call);
    start(&mut tasks, all, kind("grpc-stream", 20, 1.0), |_| (), async |_: &mut ()| http2::stream().await);
    start(&mut tasks, all, kind("tcp-short", 4, 30.0), |_| (), async |_: &mut ()| raw::short().await);
    start(&mut tasks, all, kind("tcp-long", 20, 1.0), |_| (), async |_: &mut ()| raw::long().await);
    start(&mut tasks, all, kind("websocket", 20, 1.0), |_| (), async |_: &mut ()| raw::websocket().await);
    start(&mut tasks, all, kind("vanished", 4, 10.0), |_| 0usize, vanish::one);
    while let Some(ended) = tasks.join_next().await {
        ended.context("a client panicked")?;
    }
    Ok(())
}

/// Starts the workers of a kind. Each has a `state` of its own and does `work` when its time comes; what takes longer
/// than the time between two is followed at once by the next, and none is made up for.
fn start<S, W>(
    tasks: &mut tokio::task::JoinSet<()>,
    clients: &Clients,
    kind: Kind,
    state: impl Fn(&Clients) -> S,
    work: W,
) where
    S: 'static,
    W: AsyncFn(&mut S) -> anyhow::Result<End> + 'static,
{
    let work = Rc::new(work);
    let every = Duration::from_secs_f64(f64::from(kind.workers) / (kind.rate * clients.rate));
    for worker in 0..kind.workers {
        let (clients, mut state, work) = (clients.clone(), state(clients), work.clone());
        tasks.spawn_local(async move {
            let mut next = Instant::now() + every.mul_f64(f64::from(worker) / f64::from(kind.workers));
            while !clients.stop.load(Relaxed) {
                tokio::time::sleep_until(next).await;
                next = (next + every).max(Instant::now());
                if clients.stop.load(Relaxed) {
                    return;
                }
                let done = tokio::time::timeout(limit(kind.name), (*work)(&mut state));
                let done = tokio::select! {
                    done = done => done,
                    // What lives for long has no end of its own now.
                    () = stopped(&clients), if is_long(kind.name) => return,
                };
                let done = done.unwrap_or_else(|_| Err(anyhow::anyhow!("no end within {:?}", limit(kind.name))));
                clients.tally.count(kind.name, &done);
            }
        });
    }
}

fn is_long(name: &str) -> bool {
    matches!(name, "grpc-stream" | "tcp-long" | "websocket")
}

fn limit(name: &str) -> Duration {
    if is_long(name) { raw::LIFE + PATIENCE } else { PATIENCE }
}

async fn stopped(clients: &Clients) {
    while !clients.stop.load(Relaxed) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
