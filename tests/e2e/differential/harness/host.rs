//! A scripted upstream host: a port of its own, its plan, and a record of what arrived.

use std::{
    collections::HashMap,
    net::TcpListener,
    sync::{Arc, Mutex, MutexGuard},
};

use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;

use super::{
    reply::{Plan, Reply, Serve},
    server_http1, server_http2, server_tcp,
    wire::{Body, Fields},
};

/// A request (or connection) that arrived.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Protocol, method and path.
    pub(crate) line: String,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    /// How the request ended; empty as long as it has not.
    pub(crate) end: String,
    /// What the proxy did after the request, if it did not just wait for the answer.
    pub(crate) after: Option<String>,
}

#[derive(Default)]
struct State {
    plan: Plan,
    seen: Vec<Seen>,
    counts: HashMap<String, usize>,
    connections: usize,
    active: usize,
}

pub(crate) struct Host {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    serve: Serve,
    state: Mutex<State>,
    /// Holds the port where nothing listens, and what fills the queue where nobody accepts.
    _held: Vec<Socket>,
}

/// Counts a request as going on until it is dropped.
pub(crate) struct Active(Arc<Host>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.lock().active -= 1;
    }
}

impl Host {
    /// Takes a port; serving begins with [`Host::start`].
    pub(crate) fn bind(name: &'static str, serve: Serve) -> (Arc<Self>, Option<TcpListener>) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let address: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
        socket.bind(&address.into()).expect("port 0 is free");
        let port = socket.local_addr().ok().and_then(|a| a.as_socket()).expect("it is bound").port();
        let (mut held, mut listener) = (Vec::new(), None);
        match serve {
            Serve::Nothing => held.push(socket),
            Serve::BlackHole => {
                socket.listen(0).expect("a bound socket");
                held = fill_queue(port);
                held.push(socket);
            }
            Serve::Http1(_) | Serve::Http2(_) | Serve::Tcp(_) | Serve::Bytes(_) => {
                socket.listen(1024).expect("a bound socket");
                let plain: TcpListener = socket.into();
                plain.set_nonblocking(true).expect("a socket");
                listener = Some(plain);
            }
        }
        let host = Self { name, port, serve, state: Mutex::default(), _held: held };
        host.restart();
        (Arc::new(host), listener)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    /// Forgets what it saw and begins its plan anew.
    pub(crate) fn restart(&self) {
        let mut state = self.lock();
        let active = state.active;
        *state = State { active, ..State::default() };
        if let Serve::Http1(plan) | Serve::Http2(plan) = &self.serve {
            state.plan = plan.clone();
        }
    }

    /// Follows another plan from the next request on.
    pub(crate) fn follow(&self, plan: Plan) {
        let mut state = self.lock();
        state.counts.clear();
        state.plan = plan;
    }

    /// Accepts until the runtime ends.
    pub(crate) fn start(self: &Arc<Self>, listener: TcpListener) {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        let host = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                host.lock().connections += 1;
                tokio::spawn(host.clone().connection(stream));
            }
        });
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        match &self.serve {
            Serve::Http1(_) => server_http1::serve(self, stream).await,
            Serve::Http2(_) => server_http2::serve(self, stream).await,
            Serve::Tcp(greeting) => server_tcp::talk(self.clone(), stream, greeting).await,
            Serve::Bytes(bytes) => server_tcp::bytes(self.clone(), stream, bytes).await,
            Serve::Nothing | Serve::BlackHole => {}
        }
    }

    /// A request arrived: what to answer, and where to note the rest.
    pub(crate) fn arrive(self: &Arc<Self>, seen: Seen, path: &str) -> (usize, Reply, Active) {
        let mut state = self.lock();
        let path = path.split('?').next().unwrap_or_default();
        let count = state.counts.entry(path.to_owned()).or_default();
        let n = *count;
        *count += 1;
        state.active += 1;
        state.seen.push(seen);
        let reply = state.plan.reply(path, n);
        (state.seen.len() - 1, reply, Active(self.clone()))
    }

    pub(crate) fn ended(&self, index: usize, body: Body) {
        // A restart may have come between.
        if let Some(seen) = self.lock().seen.get_mut(index) {
            seen.end = body.end.to_string();
            seen.body = body.data;
            seen.trailers = body.trailers;
        }
    }

    pub(crate) fn afterwards(&self, index: usize, what: &str) {
        if let Some(seen) = self.lock().seen.get_mut(index) {
            seen.after = Some(what.to_owned());
        }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    pub(crate) fn requests(&self) -> usize {
        self.lock().seen.len()
    }

    pub(crate) fn active(&self) -> usize {
        self.lock().active
    }

    pub(crate) fn connections(&self) -> usize {
        self.lock().connections
    }
}

/// The kernel answers no further connection once the queue of a listener is full.
fn fill_queue(port: u16) -> Vec<Socket> {
    let address: std::net::SocketAddr = ([127, 0, 0, 1], port).into();
    let connect = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        // In progress, or queued for ever: both fill.
        let _ = socket.connect(&address.into());
        socket
    };
    (0..4).map(connect).collect()
}
