//! A worker: one thread, one runtime, its own listening sockets and upstream pools. A connection never leaves the one
//! that serves it, which is not always the one that accepted it ([`balance`]).
//!
//! The control thread sends it sockets to accept on; everything else it reads from the published snapshot.

mod accepting;
mod balance;

use std::{
    cell::Cell,
    collections::HashMap,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::LocalSet,
};

pub use balance::Balance;

use self::{
    accepting::{Serving, listen, take, take_over},
    balance::Place,
};
use crate::{
    conn::Directions,
    drain,
    l4::idle::Relays,
    l7::{Engine, Pressure, RequestBound},
    live::{Claim, Publisher, Reader},
    telemetry::metrics,
    upstream,
};

/// Most connections taken from a queue that is being closed; more than any backlog holds.
pub const LONGEST_QUEUE: usize = 1 << 17;

/// How often a worker looks for pooled connections that are stale.
const SWEEP: Duration = Duration::from_secs(1);

/// Destinations of `ORIGINAL_DST` clusters are looked over every so many sweeps: Envoy's `cleanup_interval` of 5 s.
const SWEEPS_PER_ORIGINAL_DST: u32 = 5;

/// How many sweeps apart it is noted which connections idle.
const SWEEPS_PER_LOOK: u32 = 5;

/// What the control thread tells a worker.
#[derive(Debug)]
pub enum Command {
    /// Serve what was `held`, and accept on `socket`, for whichever listener has `claim` at the moment of each connection.
    Listen {
        id: u64,
        claim: Claim,
        socket: std::net::TcpListener,
        balance: Arc<Balance>,
        held: Vec<(std::net::TcpStream, SocketAddr)>,
        /// Held for as long as connections may still be accepted on it.
        accepting: Arc<()>,
    },
    /// Serve what another worker accepted.
    Serve(Box<Handed>),
    /// Take what waits in the socket's queue and close it; or `leave` it to another process that has the socket, too.
    Unlisten { id: u64, leave: bool },
    /// How short the process is of memory or descriptors from now on.
    Pressure(Pressure),
    /// End the thread; connections still open are cut.
    Stop,
}

/// A connection on its way from the worker that accepted it to the one that will serve it.
#[derive(Debug)]
pub struct Handed {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    claim: Claim,
    counted: (Serving, Place),
}

/// What workers share with the control thread.
pub struct Shared {
    pub publisher: Arc<Publisher>,
    /// The process's own reasons to end connections: inbound drains first, outbound stays up for the application's
    /// last calls.
    pub drains: Directions<drain::Source>,
    /// Connections past their connection limit, by the direction of their listener, over all workers.
    pub open: Directions<AtomicU64>,
    /// Connections being served, over all workers.
    pub connections: AtomicU64,
    /// Bound on `connections`.
    max_connections: u64,
    /// Bound on requests under way.
    requests: Option<Arc<RequestBound>>,
    next_connection: AtomicU64,
    /// Gives freed memory of the calling thread back to the kernel.
    give_back: fn(),
    /// The workers, in order, once all of them run.
    peers: OnceLock<Box<[mpsc::UnboundedSender<Command>]>>,
}

impl Shared {
    pub fn new(publisher: Arc<Publisher>, max_connections: Option<u64>) -> Self {
        Self {
            publisher,
            drains: Directions::default(),
            open: Directions::default(),
            connections: AtomicU64::new(0),
            max_connections: max_connections.unwrap_or(u64::MAX),
            requests: None,
            next_connection: AtomicU64::new(1),
            give_back: || {},
            peers: OnceLock::new(),
        }
    }

    /// Bounds the requests under way.
    pub fn bounding_requests(mut self, max: Option<u64>) -> Self {
        self.requests = max.map(|max| Arc::new(RequestBound::new(max)));
        self
    }

    /// Whether no further connection is served.
    pub fn is_full(&self) -> bool {
        self.connections.load(Ordering::Relaxed) >= self.max_connections
    }

    /// Says how a worker gives memory back after many connections ended.
    pub fn giving_back(mut self, give_back: fn()) -> Self {
        self.give_back = give_back;
        self
    }
}

/// A worker's state, handed to every connection.
pub struct Worker {
    pub engine: Rc<Engine>,
    /// Connections of `tcp_proxy`.
    pub relays: Rc<Relays>,
    shared: Arc<Shared>,
    /// Connection ids are taken from the shared counter in blocks.
    ids: Cell<(u64, u64)>,
    index: usize,
}

/// Connection ids a worker takes at once.
const ID_BLOCK: u64 = 1024;

impl Worker {
    fn new(shared: Arc<Shared>, index: usize) -> Self {
        let engine = Rc::new(Engine::new(Reader::new(shared.publisher.clone())).bounded(shared.requests.clone()));
        Self { engine, relays: Rc::default(), shared, ids: Cell::new((0, 0)), index }
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// A uniform draw.
    pub fn random(&self) -> u64 {
        fastrand::u64(..)
    }

    pub fn next_connection_id(&self) -> u64 {
        let (mut next, mut end) = self.ids.get();
        if next == end {
            next = self.shared.next_connection.fetch_add(ID_BLOCK, Ordering::Relaxed);
            end = next + ID_BLOCK;
        }
        self.ids.set((next + 1, end));
        next
    }
}

/// The control thread's end of a worker.
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// A worker that is gone (it never ends by itself) ignores commands.
    pub fn send(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    /// Waits for the thread of a worker that was told to stop.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a worker thread panicked");
        }
    }
}

/// Starts workers that know each other.
pub fn spawn_all(count: usize, shared: &Arc<Shared>) -> std::io::Result<Vec<Handle>> {
    let workers = (0..count).map(|index| spawn(index, shared.clone())).collect::<std::io::Result<Vec<_>>>()?;
    // Only once per process: a second time would be the same workers.
    let _ = shared.peers.set(workers.iter().map(|worker| worker.commands.clone()).collect());
    Ok(workers)
}

/// Starts worker `index` (from 0).
fn spawn(index: usize, shared: Arc<Shared>) -> std::io::Result<Handle> {
    let (commands, receiver) = mpsc::unbounded_channel();
    let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        metrics::set_shard(index + 1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("epoll is available");
        let tasks = LocalSet::new();
        let running = AssertUnwindSafe(|| tasks.block_on(&runtime, run(shared, index, receiver)));
        if catch_unwind(running).is_err() {
            // Not a connection, those end alone: the loop that accepts. Its sockets would go on being offered
            // connections that nobody serves; a restart is the smaller harm.
            tracing::error!("a worker cannot go on; ending the process");
            std::process::abort();
        }
    })?;
    Ok(Handle { commands, thread: Some(thread) })
}

struct Listening {
    /// Ends the accept loop, also when it is dropped. True: what waits in the queue is somebody else's.
    stop: oneshot::Sender<bool>,
}

async fn run(shared: Arc<Shared>, index: usize, mut commands: mpsc::UnboundedReceiver<Command>) {
    let worker = Rc::new(Worker::new(shared, index));
    let mut listening: HashMap<u64, Listening> = HashMap::new();
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sweeps = 0u32;
    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            _ = sweep.tick() => {
                sweeps = sweeps.wrapping_add(1);
                clean(&worker, sweeps);
                continue;
            }
        };
        match command {
            Some(Command::Listen { id, claim, socket, balance, held, accepting }) => {
                if !held.is_empty() {
                    let place = || balance.place(worker.index, false);
                    take(&worker, held.into_iter(), &Rc::new(claim.clone()), place);
                }
                match listen(&worker, claim.clone(), socket, balance, accepting) {
                    Ok(stop) => drop(listening.insert(id, Listening { stop })),
                    Err(error) => tracing::error!(?claim, %error, "cannot accept on a socket"),
                }
            }
            Some(Command::Serve(handed)) => take_over(&worker, *handed),
            Some(Command::Unlisten { id, leave }) => {
                // A loop that ended already has nothing left to be told.
                let _ = listening.remove(&id).map(|listening| listening.stop.send(leave));
            }
            Some(Command::Pressure(pressure)) => {
                worker.engine.press(pressure);
                if pressure == Pressure::Tight {
                    worker.engine.pool.close_idle();
                    end_idle(&worker);
                    (worker.shared.give_back)();
                }
            }
            Some(Command::Stop) | None => return,
        }
    }
}

/// The work of every second.
fn clean(worker: &Worker, sweeps: u32) {
    // A worker without traffic would hold on to an old snapshot.
    drop(worker.engine.live.get());
    let swept = catch_unwind(AssertUnwindSafe(|| {
        worker.engine.sweep(Instant::now());
        if sweeps.is_multiple_of(SWEEPS_PER_ORIGINAL_DST) {
            upstream::sweep_original_dst();
        }
    }));
    if swept.is_err() {
        tracing::error!("cleaning up upstream connections failed");
    }
    if worker.engine.pressure.get() == Pressure::Tight {
        end_idle(worker);
    } else if sweeps.is_multiple_of(SWEEPS_PER_LOOK) {
        worker.relays.look(Instant::now());
    }
    if worker.engine.held.fell() {
        (worker.shared.give_back)();
    }
}

/// Closes connections that idle longest; with every further second of shortage more of them.
fn end_idle(worker: &Worker) {
    let ended = worker.relays.end_idle(Instant::now());
    if ended > 0 {
        tracing::warn!(ended, "idle connections are closed for want of memory or descriptors");
    }
}
