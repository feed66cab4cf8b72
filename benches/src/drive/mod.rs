//! The bench's own generators and servers, for what the well-kept ones cannot do.
//!
//! They run on threads of this process inside a Pod's namespace, so that what they measure needs no way back. None of
//! them knows what it talks to.

pub(crate) mod ads;
pub(crate) mod bulk;
pub(crate) mod churn;
pub(crate) mod faulty;
pub(crate) mod grpc;
pub(crate) mod http1;
pub(crate) mod idle;
pub(crate) mod open_loop;
pub(crate) mod otlp;
mod pacer;

use std::{net::TcpListener, sync::Arc, thread::JoinHandle};

use hdrhistogram::Histogram;
use tokio::sync::Notify;

/// A server on a thread of its own; ended by drop.
pub(crate) struct Service {
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Runs `serve` on `listener`.
    pub(crate) fn start<F>(
        listener: TcpListener,
        serve: impl FnOnce(tokio::net::TcpListener) -> F + Send + 'static,
    ) -> anyhow::Result<Self>
    where
        F: Future<Output = ()> + 'static,
    {
        listener.set_nonblocking(true)?;
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let runtime = runtime()?;
        let thread = std::thread::spawn(move || {
            runtime.block_on(tokio::task::LocalSet::new().run_until(async {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                tokio::select! {
                    () = stopped.notified() => {}
                    () = serve(listener) => {}
                }
            }));
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Runs a generator to its end on this thread.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    runtime()?.block_on(tokio::task::LocalSet::new().run_until(work))
}

/// Latencies in microseconds, up to two minutes, three significant digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("the bounds are valid")
}

pub(crate) fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
