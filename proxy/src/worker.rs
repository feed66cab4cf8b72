//! A worker: one thread, one runtime, its own listening sockets and upstream pools. Connections never leave it.
//!
//! The control thread sends it sockets to accept on; everything else it reads from the published snapshot.

use std::{
    cell::Cell,
    collections::HashMap,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::LocalSet,
};

use crate::{
    conn::{self, Directions},
    drain,
    l7::Engine,
    live::{Claim, LiveListener, Publisher, Reader},
    net::{listener::Acceptor, socket},
    telemetry::metrics,
    upstream,
};

/// Most connections taken from a queue that is being closed; more than any backlog holds.
const LONGEST_QUEUE: usize = 1 << 17;

/// How often a worker looks for pooled connections that are stale.
const SWEEP: Duration = Duration::from_secs(1);

/// Destinations of `ORIGINAL_DST` clusters are looked over every so many sweeps: Envoy's `cleanup_interval` of 5 s.
const SWEEPS_PER_ORIGINAL_DST: u32 = 5;

/// What the control thread tells a worker.
#[derive(Debug)]
pub enum Command {
    /// Accept on `socket` for whichever listener has `claim` at the moment of each connection.
    Listen { id: u64, claim: Claim, socket: std::net::TcpListener },
    /// Take what waits in the socket's queue and close it.
    Unlisten { id: u64 },
    /// End the thread; connections still open are cut.
    Stop,
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
    next_connection: AtomicU64,
    /// Gives freed memory of the calling thread back to the kernel.
    give_back: fn(),
}

impl Shared {
    pub fn new(publisher: Arc<Publisher>, max_connections: Option<u64>) -> Self {
        Self {
            publisher,
            drains: Directions::default(),
            open: Directions::default(),
            connections: AtomicU64::new(0),
            max_connections: max_connections.unwrap_or(u64::MAX),
            next_connection: AtomicU64::new(1),
            give_back: || {},
        }
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
    shared: Arc<Shared>,
    /// Connection ids are taken from the shared counter in blocks.
    ids: Cell<(u64, u64)>,
}

/// Connection ids a worker takes at once.
const ID_BLOCK: u64 = 1024;

impl Worker {
    fn new(shared: Arc<Shared>) -> Self {
        let engine = Rc::new(Engine::new(Reader::new(shared.publisher.clone())));
        Self { engine, shared, ids: Cell::new((0, 0)) }
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

/// Starts worker `index` (from 0).
pub fn spawn(index: usize, shared: Arc<Shared>) -> std::io::Result<Handle> {
    let (commands, receiver) = mpsc::unbounded_channel();
    let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        metrics::set_shard(index + 1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("epoll is available");
        let tasks = LocalSet::new();
        let running = AssertUnwindSafe(|| tasks.block_on(&runtime, run(shared, receiver)));
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
    /// Dropping it ends the accept loop.
    _stop: oneshot::Sender<()>,
}

async fn run(shared: Arc<Shared>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let worker = Rc::new(Worker::new(shared));
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
            Some(Command::Listen { id, claim, socket }) => match listen(&worker, claim.clone(), socket) {
                Ok(stop) => drop(listening.insert(id, Listening { _stop: stop })),
                Err(error) => tracing::error!(?claim, %error, "cannot accept on a socket"),
            },
            Some(Command::Unlisten { id }) => drop(listening.remove(&id)),
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
    if worker.engine.held.fell() {
        (worker.shared.give_back)();
    }
}

/// Starts accepting on a socket.
fn listen(worker: &Rc<Worker>, claim: Claim, socket: std::net::TcpListener) -> std::io::Result<oneshot::Sender<()>> {
    let (stop, stopped) = oneshot::channel();
    // A second handle, to empty the queue without waiting once the loop has ended.
    let queue = socket.try_clone()?;
    let socket = tokio::net::TcpListener::from_std(socket)?;
    tokio::task::spawn_local(accept(worker.clone(), socket, queue, Rc::new(claim), stopped));
    Ok(stop)
}

async fn accept(
    worker: Rc<Worker>,
    socket: tokio::net::TcpListener,
    queue: std::net::TcpListener,
    claim: Rc<Claim>,
    mut stopped: oneshot::Receiver<()>,
) {
    let failing = (worker.clone(), claim.clone());
    let mut acceptor = Acceptor::new(socket, move |_error: &std::io::Error| {
        on_listener(&failing.0, &failing.1, |listener| listener.stats.local().accept_error.inc());
    });
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            accepted = acceptor.accept() => start(&worker, accepted, &claim),
        }
    }
    drop(acceptor);
    // Closing resets what waits in the queue, though those clients were told that they are connected.
    for _ in 0..LONGEST_QUEUE {
        let Ok((stream, peer)) = queue.accept() else { return };
        if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| tokio::net::TcpStream::from_std(stream)) {
            start(&worker, (stream, socket::canonical(peer)), &claim);
        }
    }
}

/// Serves a connection in a task of its own.
fn start(worker: &Rc<Worker>, accepted: (tokio::net::TcpStream, SocketAddr), claim: &Rc<Claim>) {
    let Some(serving) = Serving::new(&worker.shared) else {
        on_listener(worker, claim, |listener| listener.stats.local().downstream_global_cx_overflow.inc());
        return;
    };
    let held = worker.engine.held.hold();
    let (worker, claim) = (worker.clone(), claim.clone());
    // A panic ends this task and with it this connection only: the runtime catches it, the hook reports and counts it.
    tokio::task::spawn_local(async move {
        conn::serve(worker, accepted, claim).await;
        drop((serving, held));
    });
}

fn on_listener(worker: &Worker, claim: &Claim, act: impl FnOnce(&LiveListener)) {
    if let Some(listener) = worker.engine.live.get().bound(claim) {
        act(listener);
    }
}

/// Counts a connection being served.
struct Serving(Arc<Shared>);

impl Serving {
    /// `None` when the process serves as many connections as it may.
    fn new(shared: &Arc<Shared>) -> Option<Self> {
        let max = shared.max_connections;
        let within = |n: u64| (n < max).then(|| n + 1);
        shared.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).ok()?;
        Some(Self(shared.clone()))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
