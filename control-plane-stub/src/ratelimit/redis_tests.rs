//! Against Debian's redis-server. Skipped, and said so, where there is none.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{
    rate::{Algorithm, Ask, Cell, Hits, Rate, Unit, decide},
    redis::{Away, Redis, Slot},
};

/// Long, as machines are slow; one test is about this time.
const ANSWER: Duration = Duration::from_secs(20);
const DEADLINE: Duration = Duration::from_secs(60);

struct Server {
    process: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Server {
    fn start(arguments: &[&str]) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::start_at(port, arguments)
    }

    fn start_at(port: u16, arguments: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()])
            .args(arguments)
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .spawn();
        match process {
            Ok(process) => Some(Self { process, port, dir }),
            Err(_) => {
                println!("skipped: no redis-server on this machine (Debian has one)");
                None
            }
        }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.process.id() as i32), signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(self.dir.path());
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

async fn replica(url: &str) -> Arc<Redis> {
    replica_that_waits(url, ANSWER).await
}

async fn replica_that_waits(url: &str, answer: Duration) -> Arc<Redis> {
    let redis = Arc::new(Redis::new(url, None, answer).unwrap());
    let kept = Arc::clone(&redis);
    tokio::spawn(async move { kept.keep_connected(CancellationToken::new()).await });
    until("connected", || redis.is_connected()).await;
    redis
}

fn ask(key: &str, requests: u32, unit: Unit, algorithm: Algorithm) -> Ask {
    let rate = Rate { requests, unit, burst: requests, algorithm };
    Ask { key: key.to_owned(), rate, hits: Hits::Take(1), enforced: true }
}

#[tokio::test]
async fn two_replicas_share_one_limit() {
    let Some(server) = Server::start(&[]) else { return };
    let replicas = [replica(&server.url()).await, replica(&server.url()).await];
    for algorithm in [Algorithm::FixedWindow, Algorithm::Gcra] {
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..600 {
            let redis = Arc::clone(&replicas[n % 2]);
            // A month: the test does not last until the next one, nor until the next hit fits.
            let ask = ask(&format!("{algorithm:?}"), 123, Unit::Year, algorithm);
            calls.spawn(async move { redis.decide(&[ask]).await.map(|verdicts| verdicts[0].over) });
        }
        let over = calls.join_all().await;
        assert_eq!(over.iter().filter(|over| **over == Ok(false)).count(), 123, "{algorithm:?}");
        assert_eq!(over.iter().filter(|over| **over == Ok(true)).count(), 600 - 123, "{algorithm:?}");
    }
}

#[tokio::test]
async fn redis_gone_is_an_error_at_once_and_exact_again_when_it_is_back() {
    let Some(server) = Server::start(&[]) else { return };
    let redis = replica(&server.url()).await;
    let port = server.port;
    let day = |key: &str| [ask(key, 2, Unit::Year, Algorithm::Gcra)];
    assert!(!redis.decide(&day("a")).await.unwrap()[0].over);
    drop(server);
    until("noticed", || !redis.is_connected()).await;
    assert_eq!(redis.decide(&day("a")).await, Err(Away::NotConnected));
    assert!(!redis.health().error.is_empty());
    let Some(_server) = Server::start_at(port, &[]) else { return };
    until("connected again", || redis.is_connected()).await;
    assert_eq!(redis.health().error, "");
    let mut over = Vec::new();
    for _ in 0..4 {
        over.push(redis.decide(&day("a")).await.unwrap()[0].over);
    }
    assert_eq!(over, [false, false, true, true]);
}

#[tokio::test]
async fn redis_that_hangs_is_given_up_in_bounded_time() {
    let Some(server) = Server::start(&[]) else { return };
    let redis = replica_that_waits(&server.url(), Duration::from_millis(300)).await;
    let asks = [ask("a", 5, Unit::Year, Algorithm::Gcra)];
    server.signal(nix::sys::signal::Signal::SIGSTOP);
    assert_eq!(redis.decide(&asks).await, Err(Away::TimedOut));
    assert_eq!(redis.decide(&asks).await, Err(Away::NotConnected), "nobody else waits");
    server.signal(nix::sys::signal::Signal::SIGCONT);
    until("connected again", || redis.is_connected()).await;
    assert!(redis.decide(&asks).await.is_ok());
}

#[test]
fn an_answer_that_comes_late_says_nothing_about_the_next_connection() {
    let mut slot = Slot::default();
    slot.fill("first");
    let (first, _) = slot.current().unwrap();
    assert!(slot.lose(first) && !slot.lose(first), "of many that wait, one loses it");
    slot.fill("second");
    assert!(!slot.lose(first));
    let (second, held) = slot.current().unwrap();
    assert_eq!(held, "second");
    assert!(slot.lose(second) && slot.current().is_none());
}

#[tokio::test]
async fn passwords_are_used_and_never_shown() {
    let Some(server) = Server::start(&["--requirepass", "s3cret"]) else { return };
    let right = format!("redis://:s3cret@127.0.0.1:{}/3", server.port);
    let redis = replica(&right).await;
    assert!(!redis.decide(&[ask("a", 1, Unit::Day, Algorithm::Gcra)]).await.unwrap()[0].over);
    assert!(!format!("{redis:?} {}", redis.address()).contains("s3cret"));
    let wrong = Arc::new(Redis::new(&format!("redis://:guess@127.0.0.1:{}", server.port), None, ANSWER).unwrap());
    let kept = Arc::clone(&wrong);
    tokio::spawn(async move { kept.keep_connected(CancellationToken::new()).await });
    until("refused", || wrong.health().error != "not connected yet").await;
    assert!(!wrong.is_connected() && !wrong.health().error.contains("guess"), "{}", wrong.health().error);
    let error = Redis::new("http://:s3cret@host", None, ANSWER).unwrap_err().to_string();
    assert!(!error.contains("s3cret"), "{error}");
}

/// The script with a clock of the test's, against the arithmetic it repeats.
#[tokio::test]
async fn the_script_decides_as_the_arithmetic_does() {
    let Some(server) = Server::start(&[]) else { return };
    drop(replica(&server.url()).await);
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    // Expiry is real time's: here nothing expires.
    let text = include_str!("decide.lua")
        .replace("redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}")
        .replace("local ttl = ", "local ttl, _ = '100000000', ");
    assert!(!text.contains("TIME') ") && text.contains("'100000000'"), "{text}");
    let script = redis::Script::new(&text);
    let random = &mut fastrand::Rng::with_seed(7);
    let rates = [
        Rate { requests: 5, unit: Unit::Second, burst: 5, algorithm: Algorithm::FixedWindow },
        Rate { requests: 7, unit: Unit::Second, burst: 3, algorithm: Algorithm::Gcra },
        Rate { requests: 40, unit: Unit::Minute, burst: 60, algorithm: Algorithm::Gcra },
        Rate { requests: 0, unit: Unit::Hour, burst: 2, algorithm: Algorithm::Gcra },
        Rate { requests: 100, unit: Unit::Minute, burst: 0, algorithm: Algorithm::FixedWindow },
    ];
    let mut now = 1_700_000_000_000_000u64;
    let mut cells: [Option<Cell>; 5] = [None; 5];
    for step in 0..1500 {
        now += random.u64(0..400_000);
        let chosen: Vec<usize> = (0..5).filter(|_| random.bool()).collect();
        let asks: Vec<Ask> = chosen
            .iter()
            .map(|at| {
                let hits = match random.u8(0..10) {
                    0 => Hits::Take(0),
                    1 => Hits::Return(random.u64(1..4)),
                    2 => Hits::Take(random.u64(2..9)),
                    _ => Hits::Take(1),
                };
                Ask { key: at.to_string(), rate: rates[*at], hits, enforced: random.u8(0..4) > 0 }
            })
            .collect();
        let mut call = script.prepare_invoke();
        for ask in &asks {
            let hits = match ask.hits {
                Hits::Take(hits) => hits as i64,
                Hits::Return(hits) => -(hits as i64),
            };
            let kind = if ask.rate.algorithm == Algorithm::Gcra { "g" } else { "w" };
            call.key(&ask.key).arg(kind).arg(ask.rate.requests).arg(ask.rate.unit.seconds() * 1_000_000);
            call.arg(ask.rate.burst).arg(hits).arg(u8::from(ask.enforced));
        }
        call.arg(now / 1_000_000).arg(now % 1_000_000);
        let answers: Vec<(u8, u64, u64)> = call.invoke_async(&mut connection).await.unwrap();
        let mut own: Vec<Option<Cell>> = chosen.iter().map(|at| cells[*at]).collect();
        let wanted: Vec<(u8, u64, u64)> = decide(&asks, &mut own, now)
            .iter()
            .map(|v| (u8::from(v.over), v.remaining.into(), v.reset.as_micros() as u64))
            .collect();
        for (at, cell) in chosen.iter().zip(own) {
            cells[*at] = cell;
        }
        assert_eq!(answers, wanted, "step {step}: {asks:?}");
    }
}

#[tokio::test]
async fn tls_is_verified_by_the_given_roots() {
    let files = tempfile::tempdir().unwrap();
    let at = |name: &str| files.path().join(name).display().to_string();
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(at("cert.pem"), signed.cert.pem()).unwrap();
    std::fs::write(at("key.pem"), signed.signing_key.serialize_pem()).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (cert, key) = (at("cert.pem"), at("key.pem"));
    let tls =
        ["--tls-port", &port.to_string(), "--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-auth-clients", "no"];
    let Some(_server) = Server::start_at(0, &tls) else { return };
    let url = format!("rediss://localhost:{port}");
    let start = |roots: Option<&str>| {
        let redis = Arc::new(Redis::new(&url, roots.map(std::path::Path::new), ANSWER).unwrap());
        let kept = Arc::clone(&redis);
        tokio::spawn(async move { kept.keep_connected(CancellationToken::new()).await });
        redis
    };
    let trusted = start(Some(&cert));
    until("connected", || trusted.is_connected()).await;
    assert!(!trusted.decide(&[ask("a", 1, Unit::Day, Algorithm::Gcra)]).await.unwrap()[0].over);
    let stranger = start(None);
    until("refused", || stranger.health().error != "not connected yet").await;
    assert!(!stranger.is_connected());
}
