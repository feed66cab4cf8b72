use std::sync::atomic::Ordering;

use super::*;
use crate::{
    app::testing::{client, echo_server, echoes, is_closed, until},
    drain::Phase,
    live::testing::{builder, cluster, statics, tcp_listener},
    worker,
};

mod health;

const LONG: Duration = Duration::from_secs(3600);

/// xDS that never connects.
#[derive(Debug)]
struct Nowhere;

impl xds::Transport for Nowhere {
    fn connect(
        self: Arc<Self>,
        _: &str,
    ) -> futures_util::future::BoxFuture<'static, Result<Box<dyn xds::Connection>, String>> {
        Box::pin(async { Err("nowhere".to_owned()) })
    }
}

struct Rig {
    shared: Arc<Shared>,
    requests: mpsc::UnboundedSender<Request>,
    state: Arc<admin::State>,
    control: tokio::task::JoinHandle<Vec<Handle>>,
}

/// A control loop over static resources.
fn start(yaml: &str, times: ending::Times) -> Rig {
    let shared = Arc::new(Shared::new(Arc::new(Publisher::default()), None));
    let workers = worker::spawn_all(2, &shared).unwrap();
    let (bootstrap, _) = crate::bootstrap::load(yaml, None).unwrap();
    let config = xds::StartConfig {
        statics: xds::Statics {
            listeners: bootstrap.listeners,
            clusters: bootstrap.clusters,
            secrets: bootstrap.secrets,
            routes: Vec::new(),
        },
        ..xds::StartConfig::default()
    };
    let subscription = xds::start(config, Arc::new(Nowhere));
    let state = Arc::new(admin::State::new("info"));
    let times = Times { end: times, chain_drain: LONG, hold: None };
    let overload = Overload::new(0, Default::default());
    let beside = Beside {
        application: Application::default(),
        overload,
        reload: Arc::default(),
        handover: None,
        supervisor: None,
    };
    let sockets = Sockets::new(workers);
    let control = Control::new(builder(), subscription, sockets, state.clone(), shared.clone(), times, beside);
    let (requests, asked) = mpsc::unbounded_channel();
    Rig { shared, requests, state, control: tokio::spawn(control.run(asked)) }
}

impl Rig {
    async fn address(&self, listener: &str) -> std::net::SocketAddr {
        loop {
            if let Some(address) = self.state.bound(listener).first() {
                return *address;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Waits for the end of the loop.
    async fn end(self) {
        let workers =
            tokio::time::timeout(Duration::from_secs(20), self.control).await.expect("the loop ends").unwrap();
        let join = move || {
            workers.iter().for_each(|worker| worker.send(worker::Command::Stop));
            workers.into_iter().for_each(Handle::join);
        };
        tokio::task::spawn_blocking(join).await.unwrap();
        assert_eq!(self.shared.connections.load(Ordering::Relaxed), 0);
    }
}

/// Runs blocking socket calls while the loop goes on.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn directed(name: &str, direction: &str) -> String {
    tcp_listener(name, "127.0.0.1", 0, "c", &format!("traffic_direction: {direction}"))
}

#[tokio::test]
async fn a_signal_in_an_end_that_was_asked_for_otherwise_cuts_nothing() {
    let yaml = statics(&[directed("l", "INBOUND")], &[cluster("c", echo_server())]);
    let rig = start(&yaml, ending::Times { total: LONG, accepting: Duration::ZERO });
    let address = rig.address("l").await;
    let mut open = blocking(move || {
        let mut open = client(address);
        echoes(&mut open, "served");
        open
    })
    .await;
    rig.requests.send(Request::Stop).unwrap();
    rig.requests.send(Request::Signal).unwrap();
    while !rig.state.bound("l").is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.shared.drains.inbound.phase(), Phase::Drain);
    blocking(move || echoes(&mut open, "still served")).await;
    rig.end().await;
}

#[tokio::test]
async fn an_idle_proxy_stops_at_once() {
    let yaml = statics(&[directed("l", "INBOUND")], &[cluster("c", echo_server())]);
    let rig = start(&yaml, ending::Times { total: LONG, accepting: LONG });
    let address = rig.address("l").await;
    blocking(move || echoes(&mut client(address), "served")).await;
    while rig.shared.connections.load(Ordering::Relaxed) > 0 {
        tokio::task::yield_now().await;
    }
    rig.requests.send(Request::Stop).unwrap();
    rig.end().await;
    let refused = blocking(move || std::net::TcpStream::connect(address).is_err()).await;
    assert!(refused);
}

#[tokio::test]
async fn inbound_ends_first_and_outbound_serves_until_then() {
    let listeners = [directed("in", "INBOUND"), directed("out", "OUTBOUND")];
    let yaml = statics(&listeners, &[cluster("c", echo_server())]);
    let rig = start(&yaml, ending::Times { total: LONG, accepting: Duration::ZERO });
    let (inbound, outbound) = (rig.address("in").await, rig.address("out").await);
    let mut open = client(inbound);
    let mut open = blocking(move || {
        echoes(&mut open, "served");
        open
    })
    .await;
    rig.requests.send(Request::Signal).unwrap();
    while !rig.state.bound("in").is_empty() {
        tokio::task::yield_now().await;
    }
    blocking(move || {
        until("nobody comes in any more", || std::net::TcpStream::connect(inbound).is_err());
        echoes(&mut client(outbound), "the application's last call");
        echoes(&mut open, "a connection that is open goes on");
    })
    .await;
    rig.end().await;
}

#[tokio::test]
async fn a_second_signal_cuts_what_is_left_with_a_reset() {
    let yaml = statics(&[directed("l", "INBOUND")], &[cluster("c", echo_server())]);
    let rig = start(&yaml, ending::Times { total: LONG, accepting: LONG });
    let address = rig.address("l").await;
    let mut open = blocking(move || {
        let mut open = client(address);
        echoes(&mut open, "served");
        open
    })
    .await;
    rig.requests.send(Request::Signal).unwrap();
    let mut late = blocking(move || {
        let mut late = client(address);
        echoes(&mut late, "still accepted: callers do not know yet");
        late
    })
    .await;
    rig.requests.send(Request::Stop).unwrap();
    rig.requests.send(Request::Signal).unwrap();
    rig.end().await;
    blocking(move || {
        for stream in [&mut open, &mut late] {
            let error = std::io::Read::read(stream, &mut [0; 1]).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "cut off must not look complete");
        }
    })
    .await;
}

#[tokio::test]
async fn at_the_deadline_the_rest_is_cut() {
    let yaml = statics(&[directed("l", "OUTBOUND")], &[cluster("c", echo_server())]);
    let rig = start(&yaml, ending::Times { total: Duration::ZERO, accepting: LONG });
    let address = rig.address("l").await;
    let mut open = blocking(move || {
        let mut open = client(address);
        echoes(&mut open, "served");
        open
    })
    .await;
    rig.requests.send(Request::Stop).unwrap();
    rig.end().await;
    assert!(blocking(move || is_closed(&mut open)).await);
}

#[tokio::test]
async fn draining_listeners_inbound_leaves_the_others_open() {
    let listeners = [directed("in", "INBOUND"), directed("out", "OUTBOUND"), directed("any", "UNSPECIFIED")];
    let yaml = statics(&listeners, &[cluster("c", echo_server())]);
    let rig = start(&yaml, ending::Times { total: LONG, accepting: LONG });
    let (outbound, any) = (rig.address("out").await, rig.address("any").await);
    rig.requests.send(Request::DrainListeners { inbound_only: true, graceful: false }).unwrap();
    while !rig.state.bound("in").is_empty() {
        tokio::task::yield_now().await;
    }
    blocking(move || {
        echoes(&mut client(outbound), "outbound");
        echoes(&mut client(any), "unspecified");
    })
    .await;
    assert_eq!(rig.shared.drains.unspecified.phase(), Phase::Run);
    rig.requests.send(Request::Cut).unwrap();
    rig.end().await;
}
