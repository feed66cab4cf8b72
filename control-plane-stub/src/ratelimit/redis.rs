//! Counters that several replicas share, in Redis: one script per request, so that a decision is atomic.
//!
//! Owns the connection: one, multiplexed, kept up by a task of its own. Invariant: nobody waits longer than `answer`.
//! While Redis is away every decision fails at once, so that proxies can fall back; nothing is counted twice or later.

use std::{
    fmt,
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, Script, TlsCertificates, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::rate::{Algorithm, Ask, Hits, Verdict};

const CONNECT: Duration = Duration::from_secs(1);
/// How often an idle connection proves that it is one.
const PROBE: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Decisions under way at once; more would only wait for each other.
const AT_ONCE: usize = 4096;
const PREFIX: &str = "outrigger:ratelimit:";

/// Why there is no decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Away {
    #[error("redis is not connected")]
    NotConnected,
    #[error("redis did not answer in time")]
    TimedOut,
    #[error("redis answered with an error")]
    Refused,
    #[error("too many decisions wait for redis")]
    Busy,
}

impl Away {
    /// As a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotConnected => "not_connected",
            Self::TimedOut => "timeout",
            Self::Refused => "refused",
            Self::Busy => "busy",
        }
    }

    pub const ALL: [Self; 4] = [Self::NotConnected, Self::TimedOut, Self::Refused, Self::Busy];
}

/// How the connection does.
#[derive(Clone, Debug)]
pub struct Health {
    pub connected: bool,
    pub since: SystemTime,
    /// Why the last try failed; empty if it did not.
    pub error: String,
}

/// The shared counters.
pub struct Redis {
    client: Client,
    address: String,
    answer: Duration,
    script: Script,
    connection: Mutex<Slot<MultiplexedConnection>>,
    lost: Notify,
    connected: AtomicBool,
    health: Mutex<Health>,
    permits: Semaphore,
}

/// A connection, and which one since the start: an answer that comes late says nothing about a newer one.
pub(super) struct Slot<T> {
    generation: u64,
    held: Option<T>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { generation: 0, held: None }
    }
}

impl<T: Clone> Slot<T> {
    pub(super) fn fill(&mut self, held: T) {
        self.generation += 1;
        self.held = Some(held);
    }

    pub(super) fn current(&self) -> Option<(u64, T)> {
        Some((self.generation, self.held.clone()?))
    }

    /// Empties it, if what it holds is still of that generation.
    pub(super) fn lose(&mut self, generation: u64) -> bool {
        self.generation == generation && self.held.take().is_some()
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Redis {
    /// `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS, verified by `roots` or the system's.
    /// `answer`: how long a decision may take.
    pub fn new(url: &str, roots: Option<&Path>, answer: Duration) -> anyhow::Result<Self> {
        // The URL may hold a password: no error shows it.
        let Ok(info) = url.into_connection_info() else { bail!("--redis is not a redis:// or rediss:// URL") };
        let address = info.addr().to_string();
        let client = match roots {
            None => Client::open(info),
            Some(file) => {
                let pem = std::fs::read(file).with_context(|| format!("--redis-ca {}", file.display()))?;
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(pem) })
            }
        };
        let client = client.map_err(|e| anyhow::anyhow!("--redis {address}: {}", e.category()))?;
        Ok(Self {
            client,
            address,
            answer,
            script: Script::new(include_str!("decide.lua")),
            connection: Mutex::default(),
            lost: Notify::new(),
            connected: AtomicBool::new(false),
            health: Mutex::new(Health {
                connected: false,
                since: SystemTime::now(),
                error: "not connected yet".to_owned(),
            }),
            permits: Semaphore::new(AT_ONCE),
        })
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn is_connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    /// Decides one request, or says at once or soon that nobody can.
    pub async fn decide(&self, asks: &[Ask]) -> Result<Vec<Verdict>, Away> {
        let _permit = self.permits.try_acquire().map_err(|_| Away::Busy)?;
        let (generation, mut connection) = self.current().ok_or(Away::NotConnected)?;
        let mut call = self.script.prepare_invoke();
        for ask in asks {
            let hits = match ask.hits {
                Hits::Take(hits) => i64::try_from(hits).unwrap_or(i64::MAX),
                Hits::Return(hits) => i64::try_from(hits).map_or(i64::MIN, |hits| -hits),
            };
            let kind = match ask.rate.algorithm {
                Algorithm::FixedWindow => "w",
                Algorithm::Gcra => "g",
            };
            call.key(format!("{PREFIX}{}", ask.key));
            call.arg(kind).arg(ask.rate.requests).arg(ask.rate.period()).arg(ask.rate.burst);
            call.arg(hits).arg(u8::from(ask.enforced));
        }
        let answers: Vec<(u8, u64, u64)> = match timeout(self.answer, call.invoke_async(&mut connection)).await {
            Err(_) => return Err(self.lose(generation, "did not answer in time", Away::TimedOut)),
            Ok(Err(error)) if error.is_timeout() => {
                return Err(self.lose(generation, "did not answer in time", Away::TimedOut));
            }
            Ok(Err(error)) => return Err(self.lose(generation, &described(&error), Away::Refused)),
            Ok(Ok(answers)) => answers,
        };
        if answers.len() != asks.len() {
            return Err(Away::Refused);
        }
        let verdict = |(over, remaining, reset): (u8, u64, u64)| Verdict {
            over: over != 0,
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            reset: Duration::from_micros(reset),
        };
        Ok(answers.into_iter().map(verdict).collect())
    }

    /// Connects, and connects again, until shutdown.
    pub async fn keep_connected(&self, shutdown: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.connect().await {
                Ok(connection) => {
                    pause = FIRST_PAUSE;
                    // Told under the lock, or a loss right away could be told first.
                    let mut slot = self.slot();
                    slot.fill(connection);
                    self.report(true, String::new());
                }
                Err(error) => self.report(false, error),
            }
            while self.is_connected() {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = self.lost.notified() => {}
                    () = tokio::time::sleep(PROBE) => self.probe().await,
                }
            }
            let jittered = pause.mul_f64(0.5 + fastrand::f64());
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(jittered) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, String> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(self.answer))
            .set_pipeline_buffer_size(AT_ONCE);
        let connection = self.client.get_multiplexed_async_connection_with_config(&config);
        match timeout(2 * CONNECT, connection).await {
            Err(_) => Err("did not answer in time".to_owned()),
            Ok(connection) => connection.map_err(|error| described(&error)),
        }
    }

    async fn probe(&self) {
        let Some((generation, mut connection)) = self.current() else { return };
        let ping = redis::cmd("PING");
        match timeout(CONNECT.max(self.answer), ping.query_async::<()>(&mut connection)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => drop(self.lose(generation, &described(&error), Away::Refused)),
            Err(_) => drop(self.lose(generation, "did not answer in time", Away::TimedOut)),
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot<MultiplexedConnection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Option<(u64, MultiplexedConnection)> {
        self.slot().current()
    }

    /// Gives the connection of that generation up: what failed once is made anew before it is trusted again.
    fn lose(&self, generation: u64, why: &str, away: Away) -> Away {
        let mut slot = self.slot();
        if slot.lose(generation) {
            self.report(false, why.to_owned());
            self.lost.notify_one();
        }
        away
    }

    fn report(&self, connected: bool, error: String) {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if health.connected != connected || (!connected && health.error != error) {
            if connected {
                tracing::info!(redis = %self.address, "connected");
            } else {
                tracing::warn!(redis = %self.address, error, "rate limits: redis is away, proxies fall back");
            }
        }
        if health.connected != connected {
            health.since = SystemTime::now();
        }
        health.connected = connected;
        health.error = error;
        self.connected.store(connected, Relaxed);
    }
}

/// An error's kind, and Redis' own code where it gave one.
fn described(error: &redis::RedisError) -> String {
    match error.code() {
        Some(code) => format!("{} ({})", error.category(), code.chars().take(64).collect::<String>()),
        None => error.category().to_owned(),
    }
}
