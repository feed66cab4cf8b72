//! A proxy between a client and an upstream, over sockets that lead nowhere else.
//!
//! Nobody waits for time to pass: the peers go on as soon as [`quiet`] sees that nothing moves. What does not end when
//! both of them are gone hangs.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use outrigger_proxy::{
    drain,
    ir::listener::Direction,
    l7::{Engine, server},
    live::{LiveHcm, LiveTerminal, Publisher, Reader},
    net::io::{Plain, Stream},
    telemetry::record::ConnInfo,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    runtime::Runtime,
    task::{JoinSet, LocalSet, spawn_local, yield_now},
    time::{sleep, timeout},
};

use super::{fixture, upstream};

/// So many turns of the event loop without a byte: nothing more will happen soon.
const STILL: u32 = 12;
/// Longer than a retry waits.
const PATIENCE: Duration = Duration::from_millis(4);
const FOR_EVER: Duration = Duration::from_secs(20);
const MOST_READ: u64 = 32 << 20;

/// How upstreams behave during one exchange.
#[derive(Clone, Debug, Default)]
pub(super) enum Upstream {
    /// Looks closely at what it is asked, and answers.
    #[default]
    Strict,
    /// Says this to whoever asks, and ends.
    Says(Rc<[u8]>),
}

pub(super) struct Stage {
    runtime: Runtime,
    local: LocalSet,
    listener: Rc<UnixListener>,
    plain: Arc<LiveHcm>,
    rich: Arc<LiveHcm>,
    engine: Rc<Engine>,
}

thread_local! {
    static STAGE: RefCell<Option<Stage>> = const { RefCell::new(None) };
}

/// What the client was told.
pub(super) struct Told {
    pub(super) bytes: Vec<u8>,
}

/// Plays `client` against the proxy and says what it was told. Panics if the proxy does not come to an end.
///
/// Of `options` the first bit chooses the configuration with everything on it, the last one the patience to see retries.
pub(super) fn play(options: u8, client: &[u8], upstream: Upstream) -> Told {
    STAGE.with_borrow_mut(|stage| stage.get_or_insert_with(Stage::new).play(options, client, upstream))
}

impl Stage {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("@outrigger-fuzz-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let live = fixture::live(&include_str!("../proxy.yaml").replace("$upstream", &name));
        let manager = |name: &str| match &live.listener(name).expect("the fixture has it").chains[0].terminal {
            LiveTerminal::Http(manager) => manager.clone(),
            LiveTerminal::Tcp(_) => panic!("a chain of the fixture is for HTTP"),
        };
        let (plain, rich) = (manager("plain"), manager("rich"));
        let publisher = Arc::new(Publisher::default());
        publisher.publish(Arc::new(live));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = {
            let _in_runtime = runtime.enter();
            UnixListener::bind(name.replace('@', "\0")).expect("a socket")
        };
        let engine = Rc::new(Engine::new(Reader::new(publisher)));
        Self { runtime, local: LocalSet::new(), listener: Rc::new(listener), plain, rich, engine }
    }

    fn play(&mut self, options: u8, client: &[u8], upstream: Upstream) -> Told {
        let manager = if options & 1 == 1 { &self.rich } else { &self.plain };
        let patience = (options & 0x80 != 0).then_some(PATIENCE);
        let exchange =
            exchange(client, patience, upstream, manager.clone(), self.engine.clone(), self.listener.clone());
        self.local.block_on(&self.runtime, exchange)
    }
}

async fn exchange(
    client: &[u8],
    patience: Option<Duration>,
    upstream: Upstream,
    manager: Arc<LiveHcm>,
    engine: Rc<Engine>,
    listener: Rc<UnixListener>,
) -> Told {
    let moved = Rc::new(Cell::new(0));
    let mut upstreams = JoinSet::new();
    let theirs = moved.clone();
    upstreams.spawn_local(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            theirs.set(theirs.get() + 1);
            connections.spawn_local(upstream::serve(stream, upstream.clone(), theirs.clone()));
        }
    });
    let (process, chain) = (drain::Source::default(), drain::Source::default());
    let (near, far) = UnixStream::pair().expect("two sockets");
    let io = Plain::new(Stream::Unix(far), Default::default()).into();
    let signal = drain::Signal::new(&process, &chain);
    let serving = spawn_local(server::serve(io, Rc::new(conn_info()), manager, engine.clone(), signal));
    let (mut reader, mut writer) = near.into_split();
    let told = moved.clone();
    let hearing = spawn_local(async move {
        let (mut bytes, mut part) = (Vec::new(), vec![0; 16 << 10]);
        while let Ok(n @ 1..) = reader.read(&mut part).await {
            told.set(told.get() + n as u64);
            bytes.extend_from_slice(&part[..n]);
            assert!((bytes.len() as u64) < MOST_READ, "an answer without end");
        }
        bytes
    });
    let half = client.len() / 2;
    for part in [&client[..half], &client[half..]] {
        // The proxy may be gone, or read no more before somebody else reads.
        let _ = timeout(FOR_EVER, writer.write_all(part)).await;
        quiet(&moved).await;
    }
    if let Some(patience) = patience {
        sleep(patience).await;
        quiet(&moved).await;
    }
    let _ = writer.shutdown().await;
    quiet(&moved).await;
    upstreams.shutdown().await;
    quiet(&moved).await;
    drop(writer);
    if timeout(FOR_EVER, serving).await.is_err() {
        panic!("the connection does not end");
    }
    let bytes = timeout(FOR_EVER, hearing).await.expect("the socket is closed").expect("no panic");
    // What is left over for later requests must not meet the next input.
    engine.sweep(Instant::now());
    quiet(&moved).await;
    Told { bytes }
}

/// Waits until nothing moves any more.
async fn quiet(moved: &Cell<u64>) {
    let (mut last, mut still) = (moved.get(), 0);
    while still < STILL {
        yield_now().await;
        let now = moved.get();
        still = if now == last { still + 1 } else { 0 };
        last = now;
    }
}

fn conn_info() -> ConnInfo {
    let address = |text: &str| text.parse().expect("an address");
    ConnInfo {
        id: 1,
        remote: address("10.0.0.9:40000"),
        local: address("10.0.0.1:80"),
        original_dst: None,
        direction: Direction::Outbound,
        listener: "listener".into(),
        chain: "chain".into(),
        server_name: None,
        tls: None,
        started: SystemTime::now(),
        started_at: Instant::now(),
        buffer_limit: 1 << 20,
        metadata: Default::default(),
    }
}
