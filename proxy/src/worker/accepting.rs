//! What a worker does with listening sockets: accept, spread over the workers, start serving, and stop.
//!
//! Knows neither filter chains nor protocols. Invariant: what was accepted is served or counted as refused.

use std::{
    fmt,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tokio::sync::{mpsc, oneshot};

use super::{
    Command, Handed, LONGEST_QUEUE, Shared, Worker,
    balance::{Balance, Pace, Place},
};
use crate::{
    conn,
    l7::Pressure,
    live::{Claim, LiveListener},
    net::{listener::Acceptor, socket},
};

/// Starts accepting on a socket.
pub(super) fn listen(
    worker: &Rc<Worker>,
    claim: Claim,
    socket: std::net::TcpListener,
    balance: Arc<Balance>,
    accepting: Arc<()>,
) -> std::io::Result<oneshot::Sender<bool>> {
    let (stop, stopped) = oneshot::channel();
    // A second handle, to empty the queue without waiting once the loop has ended.
    let queue = socket.try_clone()?;
    let socket = tokio::net::TcpListener::from_std(socket)?;
    let accept = accept(worker.clone(), (socket, queue), balance, Rc::new(claim), stopped);
    tokio::task::spawn_local(async move {
        accept.await;
        // All that it accepted counts by now.
        drop(accepting);
    });
    Ok(stop)
}

async fn accept(
    worker: Rc<Worker>,
    (socket, queue): (tokio::net::TcpListener, std::net::TcpListener),
    balance: Arc<Balance>,
    claim: Rc<Claim>,
    mut stopped: oneshot::Receiver<bool>,
) {
    let failing = (worker.clone(), claim.clone());
    let mut acceptor = Acceptor::new(socket, move |_error: &std::io::Error| {
        on_listener(&failing.0, &failing.1, |listener| listener.stats.local().accept_error.inc());
    });
    let pace = Pace::new(Instant::now());
    let place = || balance.place(worker.index, pace.few(Instant::now()));
    let leave = loop {
        tokio::select! {
            biased;
            leave = &mut stopped => break leave.unwrap_or(false),
            accepted = acceptor.accept() => distribute(&worker, accepted, &claim, place()),
        }
    };
    drop(acceptor);
    if leave {
        return;
    }
    // Closing resets what waits in the queue, though those clients were told that they are connected.
    let waiting = std::iter::from_fn(|| queue.accept().ok()).take(LONGEST_QUEUE);
    take(&worker, waiting, &claim, place);
}

/// Serves what was accepted elsewhere.
pub(super) fn take(
    worker: &Rc<Worker>,
    accepted: impl Iterator<Item = (std::net::TcpStream, SocketAddr)>,
    claim: &Rc<Claim>,
    place: impl Fn() -> Place,
) {
    for (stream, peer) in accepted {
        if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| tokio::net::TcpStream::from_std(stream)) {
            distribute(worker, (stream, socket::canonical(peer)), claim, place());
        }
    }
}

/// Serves a connection here, or has the worker serve it that its place is with. From here on it counts.
fn distribute(worker: &Rc<Worker>, accepted: (tokio::net::TcpStream, SocketAddr), claim: &Rc<Claim>, place: Place) {
    if worker.engine.pressure.get() >= Pressure::Shed {
        on_listener(worker, claim, |listener| listener.stats.local().downstream_cx_overload_reject.inc());
        return;
    }
    let Some(serving) = Serving::new(&worker.shared) else {
        on_listener(worker, claim, |listener| listener.stats.local().downstream_global_cx_overflow.inc());
        return;
    };
    let counted = (serving, place);
    let place = &counted.1;
    let peers = worker.shared.peers.get();
    let Some(other) = peers.filter(|_| place.worker() != worker.index).and_then(|p| p.get(place.worker())) else {
        return start(worker, accepted, claim, counted);
    };
    let (stream, peer) = accepted;
    let claim = (**claim).clone();
    match stream.into_std() {
        Ok(stream) => {
            let sent = other.send(Command::Serve(Box::new(Handed { stream, peer, claim, counted })));
            if let Err(mpsc::error::SendError(Command::Serve(handed))) = sent {
                // That worker ends, as this one will.
                take_over(worker, *handed);
            }
        }
        Err(error) => tracing::debug!(%peer, %error, "a connection was lost between workers"),
    }
}

pub(super) fn take_over(worker: &Rc<Worker>, handed: Handed) {
    let Handed { stream, peer, claim, counted } = handed;
    match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => start(worker, (stream, peer), &Rc::new(claim), counted),
        Err(error) => tracing::warn!(%peer, %error, "cannot serve a connection"),
    }
}

/// Serves a connection in a task of its own.
fn start(
    worker: &Rc<Worker>,
    accepted: (tokio::net::TcpStream, SocketAddr),
    claim: &Rc<Claim>,
    counted: (Serving, Place),
) {
    let held = worker.engine.held.hold();
    let (worker, claim) = (worker.clone(), claim.clone());
    // A panic ends this task and with it this connection only: the runtime catches it, the hook reports and counts it.
    tokio::task::spawn_local(async move {
        conn::serve(worker, accepted, claim).await;
        drop((counted, held));
    });
}

fn on_listener(worker: &Worker, claim: &Claim, act: impl FnOnce(&LiveListener)) {
    if let Some(listener) = worker.engine.live.get().bound(claim) {
        act(listener);
    }
}

/// Counts a connection being served.
pub(super) struct Serving(Arc<Shared>);

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Serving")
    }
}

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
