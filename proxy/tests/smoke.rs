//! The built program with a bootstrap file: traffic, admin interface, exit codes. Nothing but loopback is needed.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const PATIENCE: Duration = Duration::from_secs(60);

fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Serves every connection in a thread.
fn server(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
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

fn echo(mut stream: TcpStream) {
    let mut reader = stream.try_clone().unwrap();
    let _ = std::io::copy(&mut reader, &mut stream);
}

/// Answers one request and closes.
fn web(mut stream: TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        head.push(byte[0]);
    }
    let body = format!("{} bytes of head", head.len());
    let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
}

fn cluster(name: &str, address: SocketAddr) -> String {
    format!(
        "  - name: {name}\n    load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: \
         {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]}}\n",
        address.ip(),
        address.port()
    )
}

/// Two listeners on ports the kernel chooses, `tcp` and `web`, and the admin interface on a third.
fn bootstrap(admin: u16) -> String {
    format!(
        r#"
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}
static_resources:
  listeners:
  - name: tcp
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    traffic_direction: OUTBOUND
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: echo
  - name: web
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    traffic_direction: INBOUND
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{prefix: /here}}
                direct_response: {{status: 418, body: {{inline_string: teapot}}}}
              - match: {{prefix: /}}
                route: {{cluster: web}}
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
{}{}"#,
        cluster("echo", server(echo)),
        cluster("web", server(web))
    )
}

struct Proxy {
    child: Child,
    admin: SocketAddr,
    dir: tempfile::TempDir,
}

fn command(dir: &tempfile::TempDir, text: &str) -> Command {
    let file = dir.path().join("bootstrap.yaml");
    fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger-proxy"));
    command.arg("-c").arg(file).stdin(Stdio::null());
    command
}

fn output(text: &str, arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    command(&dir, text).args(arguments).output().unwrap()
}

impl Proxy {
    fn start(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut command = command(&dir, &bootstrap(admin.port()));
        command.args(["--concurrency", "2"]).args(arguments).stdout(log.try_clone().unwrap()).stderr(log);
        let mut proxy = Self { child: command.spawn().unwrap(), admin, dir };
        eventually("ready", || {
            assert!(proxy.child.try_wait().unwrap().is_none(), "it ended:\n{}", proxy.log());
            proxy.admin("GET", "/ready").filter(|(status, _)| *status == 200)
        });
        proxy
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn admin(&self, method: &str, path: &str) -> Option<(u16, String)> {
        http(self.admin, method, path)
    }

    fn address(&self, listener: &str) -> SocketAddr {
        let (_, text) = self.admin("GET", "/listeners").unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix(&format!("{listener}::")).map(str::to_owned));
        line.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        eventually("its end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// Status and body; `None` when nobody answers.
fn http(address: SocketAddr, method: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn echoes(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, text);
}

#[test]
fn a_bootstrap_file_is_served_and_sigterm_ends_it_in_order() {
    // A connection without a request may wait for its first one until the deadline.
    let mut proxy = Proxy::start(&["--drain-time-s", "1"]);
    echoes(&mut connect(proxy.address("tcp")), b"through the proxy");
    let web = proxy.address("web");
    assert_eq!(http(web, "GET", "/here"), Some((418, "teapot".to_owned())));
    let (status, body) = http(web, "GET", "/there").unwrap();
    assert!(status == 200 && body.ends_with("bytes of head"), "{status} {body}");
    let (_, stats) = proxy.admin("GET", "/stats?usedonly").unwrap();
    assert!(stats.contains("cluster.web.upstream_rq_2xx: 1\n"), "{stats}");
    assert!(stats.contains("server.live: 1\n"), "{stats}");
    let (_, dump) = proxy.admin("GET", "/config_dump").unwrap();
    assert!(dump.contains("BootstrapConfigDump"), "{dump}");
    let mut idle = connect(web);
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.end().code(), Some(0), "{}", proxy.log());
    assert!(matches!(idle.read(&mut [0; 1]), Ok(0) | Err(_)));
    assert!(!proxy.log().contains("panic"), "{}", proxy.log());
}

#[test]
fn an_open_connection_is_waited_for_and_a_second_signal_cuts_it() {
    let mut proxy = Proxy::start(&["--drain-time-s", "3600", "--min-drain-time-s", "0"]);
    let mut open = connect(proxy.address("tcp"));
    echoes(&mut open, b"before");
    proxy.signal(Signal::SIGTERM);
    eventually("draining", || proxy.admin("GET", "/ready").filter(|(status, _)| *status == 503));
    echoes(&mut open, b"while draining");
    assert!(proxy.child.try_wait().unwrap().is_none());
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.end().code(), Some(0), "{}", proxy.log());
    assert!(open.read(&mut [0; 1]).is_err(), "cut, and seen to be cut");
}

#[test]
fn quitquitquit_answers_and_then_ends() {
    let mut proxy = Proxy::start(&[]);
    assert_eq!(proxy.admin("GET", "/quitquitquit").unwrap().0, 405);
    assert_eq!(proxy.admin("POST", "/quitquitquit"), Some((200, "OK\n".to_owned())));
    assert_eq!(proxy.end().code(), Some(0), "{}", proxy.log());
}

#[test]
fn validation_says_what_is_wrong_and_where() {
    let good = bootstrap(0);
    let checked = output(&good, &["--mode", "validate"]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    assert!(String::from_utf8_lossy(&checked.stdout).ends_with("configuration OK\n"), "{checked:?}");
    let unsupported = format!("{good}stats_sinks: [{{name: envoy.stat_sinks.statsd}}]\n");
    let checked = output(&unsupported, &["--mode", "validate"]);
    assert!(String::from_utf8_lossy(&checked.stdout).contains("stats_sinks[0]"), "{checked:?}");
    for (wrong, says) in [
        (good.replace("prefix: /here", "prefiks: /here"), "prefiks"),
        (good.replace("prefix: /here", "safe_regex: {regex: '('}"), "route_config"),
        ("[".to_owned(), "bootstrap.yaml"),
    ] {
        for mode in ["validate", "serve"] {
            let refused = output(&wrong, &["--mode", mode]);
            assert_eq!(refused.status.code(), Some(64), "{refused:?}");
            assert!(String::from_utf8_lossy(&refused.stderr).contains(says), "{says}: {refused:?}");
        }
    }
    let duplicate = good.replace(
        "  - name: web\n    address",
        "    - filters: [{name: t, typed_config: {\"@type\": \
         type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: echo}}]\n  - \
         name: web\n    address",
    );
    let refused = output(&duplicate, &["--mode", "validate"]);
    assert_eq!(refused.status.code(), Some(64), "{refused:?}");
}
