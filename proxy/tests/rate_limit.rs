//! The built program under load: what two workers admit together is what the rate allows, dry run counts the same.
//!
//! Admitted requests are compared with the time that was measured, so a slow machine changes nothing: over any period a
//! bucket gives what was in it and what came since, as long as it never overflows, which takes silence of many seconds.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(120);

/// Requests per second, and how many the bucket holds: what comes in ten seconds.
const RATE: u32 = 200;
const BURST: u32 = 10 * RATE;

const MANAGER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const LIMIT: &str = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";

/// Two listeners that answer by themselves: one enforces the limit, the other only counts.
fn bootstrap(admin: u16) -> String {
    let listener = |name: &str, enforced: u32| {
        format!(
            r#"
  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/{MANAGER}
          stat_prefix: {name}
          route_config:
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, direct_response: {{status: 200}}}}]}}
          http_filters:
          - name: limit
            typed_config:
              "@type": type.googleapis.com/{LIMIT}
              stat_prefix: {name}
              token_bucket: {{max_tokens: {BURST}, tokens_per_fill: {}, fill_interval: 0.25s}}
              filter_enabled: {{default_value: {{numerator: 100}}}}
              filter_enforced: {{default_value: {{numerator: {enforced}}}}}
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}"#,
            RATE / 4
        )
    };
    format!(
        "admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}\nstatic_resources:\n  \
         listeners:{}{}\n",
        listener("enforced", 100),
        listener("counted", 0)
    )
}

struct Proxy {
    child: Child,
    admin: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Proxy {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let file = dir.path().join("bootstrap.yaml");
        fs::write(&file, bootstrap(admin.port())).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger-proxy"));
        command.arg("-c").arg(file).args(["--concurrency", "2"]).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let proxy = Self { child: command.spawn().unwrap(), admin, _dir: dir };
        let deadline = Instant::now() + PATIENCE;
        while proxy.ask("/ready").is_none_or(|text| !text.starts_with("HTTP/1.1 200")) {
            assert!(Instant::now() < deadline, "not ready");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        proxy
    }

    fn ask(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.admin).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    }

    fn address(&self, listener: &str) -> SocketAddr {
        let text = self.ask("/listeners").unwrap();
        text.lines().find_map(|l| l.strip_prefix(&format!("{listener}::"))).unwrap().parse().unwrap()
    }

    fn counter(&self, name: &str) -> u64 {
        let text = self.ask("/stats").unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A keep-alive connection.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    fn get(&mut self) -> u16 {
        self.0.get_mut().write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        let (mut line, mut length) = (String::new(), 0);
        self.0.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        loop {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            let head = line.trim_end();
            if head.is_empty() {
                break;
            }
            if let Some(value) = head.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
        }
        self.0.read_exact(&mut vec![0; length]).unwrap();
        status
    }
}

#[test]
fn two_workers_admit_what_the_rate_allows() {
    let proxy = Proxy::start();
    let address = proxy.address("enforced");
    let (begun, over) = (Instant::now(), AtomicBool::new(false));
    // New connections again and again: both workers get some.
    let counts: Vec<(u64, u64)> = std::thread::scope(|scope| {
        let load = || {
            let (mut admitted, mut refused) = (0, 0);
            while !over.load(Ordering::Relaxed) {
                let mut client = Client::new(address);
                for _ in 0..50 {
                    match client.get() {
                        200 => admitted += 1,
                        429 => refused += 1,
                        other => panic!("status {other}"),
                    }
                }
            }
            (admitted, refused)
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
        // The burst first, then ten seconds at the rate; and until somebody is refused, which shows an empty bucket.
        let refused = || proxy.counter("enforced.http_local_rate_limit.rate_limited");
        while begun.elapsed() < Duration::from_secs(10) || refused() == 0 {
            assert!(begun.elapsed() < PATIENCE, "the bucket is never empty");
            std::thread::park_timeout(Duration::from_millis(100));
        }
        over.store(true, Ordering::Relaxed);
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let elapsed = begun.elapsed().as_secs_f64();
    let (admitted, refused) = counts.iter().fold((0, 0), |(a, r), (admitted, refused)| (a + admitted, r + refused));
    let expected = f64::from(BURST) + elapsed * f64::from(RATE);
    // What came between the last refusal and the end is not used: every client asks to the end, so it is little.
    let difference = (admitted as f64 - expected).abs();
    assert!(difference <= expected / 100.0, "{admitted} admitted, {refused} refused, {expected:.0} expected");
    assert_eq!(proxy.counter("enforced.http_local_rate_limit.ok"), admitted);
    assert_eq!(proxy.counter("enforced.http_local_rate_limit.enforced"), refused);
}

#[test]
fn a_dry_run_counts_like_the_limit_and_denies_nothing() {
    let proxy = Proxy::start();
    for listener in ["enforced", "counted"] {
        let mut client = Client::new(proxy.address(listener));
        let requests = u64::from(BURST) + 1000;
        let denied = (0..requests).filter(|_| client.get() == 429).count() as u64;
        let counter = |name: &str| proxy.counter(&format!("{listener}.http_local_rate_limit.{name}"));
        assert_eq!((counter("enabled"), counter("ok") + counter("rate_limited")), (requests, requests));
        assert_eq!(counter("enforced"), denied);
        let would = counter("rate_limited");
        assert_eq!(denied, if listener == "enforced" { would } else { 0 });
    }
}
