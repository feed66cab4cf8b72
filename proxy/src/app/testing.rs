//! Workers, sockets and peers for tests: everything but the control plane is real.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use super::sockets::{Sockets, Unbound};
use crate::{
    drain::{Phase, Source},
    live::{Builder, Publisher, Resolved, testing},
    worker::{self, Shared},
};

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

pub(super) struct Rig {
    pub(super) builder: Builder,
    pub(super) shared: Arc<Shared>,
    pub(super) sockets: Option<Sockets>,
    retired: Vec<Arc<Source>>,
    version: u64,
}

impl Rig {
    pub(super) fn new(workers: usize, max_connections: Option<u64>) -> Self {
        Self::bounded(workers, max_connections, None)
    }

    pub(super) fn bounded(workers: usize, max_connections: Option<u64>, max_requests: Option<u64>) -> Self {
        let shared = Shared::new(Arc::new(Publisher::default()), max_connections);
        let shared = Arc::new(shared.bounding_requests(max_requests));
        let workers = worker::spawn_all(workers, &shared).unwrap();
        Self {
            builder: testing::builder(),
            shared,
            sockets: Some(Sockets::new(workers)),
            retired: Vec::new(),
            version: 0,
        }
    }

    pub(super) fn sockets(&mut self) -> &mut Sockets {
        self.sockets.as_mut().unwrap()
    }

    /// Puts static resources in force.
    pub(super) fn apply(&mut self, yaml: &str) -> Vec<Unbound> {
        self.version += 1;
        let previous = self.shared.publisher.current();
        let snapshot = testing::snapshot(self.version, yaml);
        let (live, problems) = self.builder.build(&snapshot, &Resolved::default(), &previous);
        assert_eq!(problems, []);
        let live = Arc::new(live);
        self.shared.publisher.publish(live.clone());
        self.retired.iter().for_each(|source| source.wake());
        for chain in previous.removed_chains(&live) {
            chain.drain.advance(Phase::Drain);
            self.retired.push(chain.drain.clone());
        }
        self.reconcile()
    }

    pub(super) fn reconcile(&mut self) -> Vec<Unbound> {
        let live = self.shared.publisher.current();
        self.sockets().reconcile(&live)
    }

    /// Where a listener accepts.
    pub(super) fn address(&mut self, listener: &str) -> SocketAddr {
        self.sockets().bound()[listener][0]
    }

    pub(super) fn connect(&mut self, listener: &str) -> TcpStream {
        client(self.address(listener))
    }

    /// A statistic of a listener or TCP proxy.
    pub(super) fn stat(&self, scope: &str, owner: &str, metric: &str) -> u64 {
        let mut found = 0;
        self.builder.registry.visit(&mut |s, o, m, _, value| {
            if (s, &**o, m) == (scope, owner, metric) {
                found = value;
            }
        });
        found
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let Some(sockets) = self.sockets.take() else { return };
        for worker in sockets.into_workers() {
            worker.send(worker::Command::Stop);
            worker.join();
        }
    }
}

pub(super) fn client(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends and expects the same back.
pub(super) fn echoes(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, text.as_bytes());
}

/// Whether the peer closed or reset the connection, without a byte.
pub(super) fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(n) => n == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

/// A server that serves every connection in a thread, for as long as the test runs.
pub(super) fn server(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

pub(super) fn echo_server() -> SocketAddr {
    server(|mut stream| {
        let mut reader = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut reader, &mut stream);
        let _ = stream.shutdown(std::net::Shutdown::Write);
    })
}

/// A port that was free a moment ago.
pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A listener of one HTTP chain on a free port that sends everything to `cluster`; logs status and flags to `log`.
pub(super) fn http_listener(name: &str, cluster: &str, log: Option<&std::path::Path>) -> String {
    let log = log.map_or(String::new(), |path| {
        format!(
            r#"access_log: [{{name: f, typed_config: {{"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: "{}", log_format: {{text_format_source: {{inline_string: "%RESPONSE_CODE% %RESPONSE_FLAGS%\n"}}}}}}}}], "#,
            path.display()
        )
    });
    format!(
        r#"
  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters: [{{name: hcm, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: h, {log}route_config: {{virtual_hosts: [{{name: v, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}]}}]}}, http_filters: [{{name: r, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}]
"#
    )
}
