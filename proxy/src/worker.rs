//! A worker: one thread, one runtime, its own listening sockets and upstream pools. Connections never leave it.
//!
//! The control thread sends it sockets to accept on; everything else it reads from the published snapshot.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
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
    conn::{self, Drains},
    ir::Name,
    l7::Engine,
    live::{Publisher, Reader},
    net::listener::Acceptor,
    telemetry::metrics,
    upstream,
};

/// How often a worker looks for pooled connections that are stale.
const SWEEP: Duration = Duration::from_secs(1);

/// Destinations of `ORIGINAL_DST` clusters are looked over every so many sweeps: Envoy's `cleanup_interval` of 5 s.
const SWEEPS_PER_ORIGINAL_DST: u32 = 5;

/// What the control thread tells a worker.
#[derive(Debug)]
pub enum Command {
    /// Accept on `socket` for the listener `name`.
    Listen { id: u64, name: Name, socket: std::net::TcpListener },
    /// The socket now belongs to the listener `name`: its address moved there.
    Rename { id: u64, name: Name },
    /// Stop accepting and close the socket.
    Unlisten { id: u64 },
    /// End the thread; connections still open are cut.
    Stop,
}

/// What workers share with the control thread.
pub struct Shared {
    pub publisher: Arc<Publisher>,
    pub drains: Drains,
    /// Connections being served, over all workers.
    pub connections: AtomicU64,
    next_connection: AtomicU64,
}

impl Shared {
    pub fn new(publisher: Arc<Publisher>) -> Self {
        Self {
            publisher,
            drains: Drains::default(),
            connections: AtomicU64::new(0),
            next_connection: AtomicU64::new(1),
        }
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

    pub fn drains(&self) -> &Drains {
        &self.shared.drains
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

    /// Ends the worker and waits for its thread.
    pub fn stop(mut self) {
        self.send(Command::Stop);
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
        tasks.block_on(&runtime, run(shared, receiver));
    })?;
    Ok(Handle { commands, thread: Some(thread) })
}

struct Listening {
    name: Rc<RefCell<Name>>,
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
                worker.engine.sweep(Instant::now());
                sweeps += 1;
                if sweeps.is_multiple_of(SWEEPS_PER_ORIGINAL_DST) {
                    upstream::sweep_original_dst();
                }
                continue;
            }
        };
        match command {
            Some(Command::Listen { id, name, socket }) => {
                let name = Rc::new(RefCell::new(name));
                let (stop, stopped) = oneshot::channel();
                match tokio::net::TcpListener::from_std(socket) {
                    Ok(socket) => {
                        tokio::task::spawn_local(accept(worker.clone(), socket, name.clone(), stopped));
                        listening.insert(id, Listening { name, _stop: stop });
                    }
                    Err(error) => tracing::error!(listener = %name.borrow(), %error, "cannot accept on a socket"),
                }
            }
            Some(Command::Rename { id, name }) => {
                if let Some(entry) = listening.get(&id) {
                    *entry.name.borrow_mut() = name;
                }
            }
            Some(Command::Unlisten { id }) => {
                listening.remove(&id);
            }
            Some(Command::Stop) | None => return,
        }
    }
}

async fn accept(
    worker: Rc<Worker>,
    socket: tokio::net::TcpListener,
    name: Rc<RefCell<Name>>,
    mut stopped: oneshot::Receiver<()>,
) {
    let failing = (worker.clone(), name.clone());
    let mut acceptor =
        Acceptor::new(socket, move |_error: &std::io::Error| count_accept_error(&failing.0, &failing.1.borrow()));
    loop {
        let (stream, _) = tokio::select! {
            biased;
            _ = &mut stopped => return,
            stream = acceptor.accept() => stream,
        };
        let listener = name.borrow().clone();
        let serving = Serving::new(&worker.shared);
        let worker = worker.clone();
        // A panic ends this task and with it this connection only: the runtime catches it, the hook reports it.
        tokio::task::spawn_local(async move {
            conn::serve(worker, stream, listener).await;
            drop(serving);
        });
    }
}

fn count_accept_error(worker: &Worker, listener: &str) {
    if let Some(listener) = worker.engine.live.get().listener(listener) {
        listener.stats.local().accept_error.inc();
    }
}

/// Counts a connection being served.
struct Serving(Arc<Shared>);

impl Serving {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        Self(shared.clone())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
