//! The application of the demo and the tests: it knows nothing of any mesh.
//!
//! `outrigger-demo-app http ADDRESS NAME VERSION` answers every request, HTTP/1 or cleartext HTTP/2, with JSON about
//! itself and what it saw;
//! `outrigger-demo-app greet ADDRESS TEXT` is a server that speaks first, then echoes;
//! `outrigger-demo-app load URL [--requests N | --seconds N | --until FILE] [--connections N] [--new-connections]
//! [--pause-ms N] [--timeout-s N]` sends requests as fast as they are answered (or with a pause after each answer), counts the versions
//! that answered, and fails when a request failed. SIGTERM ends it as `--seconds` does; without another end in sight it
//! prints every 100 answers how many there are.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncWriteExt, copy},
    net::TcpListener,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["http", address, name, version] => http(TcpListener::bind(address).await?, name, version).await,
        ["greet", address, text] => greet(TcpListener::bind(address).await?, text).await,
        ["load", url, ref options @ ..] => load(url, &LoadOptions::parse(options)?).await,
        _ => anyhow::bail!(
            "usage: outrigger-demo-app http ADDRESS NAME VERSION | greet ADDRESS TEXT | load URL [OPTIONS]"
        ),
    }
}

async fn http(listener: TcpListener, name: &str, version: &str) -> anyhow::Result<()> {
    let (name, version) = (name.to_owned(), version.to_owned());
    loop {
        let (stream, peer) = listener.accept().await?;
        let (name, version) = (name.clone(), version.clone());
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let header = |key: &str| request.headers().get(key).and_then(|v| v.to_str().ok()).unwrap_or("-");
                let body = serde_json::json!({
                    "service": name,
                    "version": version,
                    "method": request.method().as_str(),
                    "path": request.uri().path(),
                    "host": header("host"),
                    "peer": peer.ip().to_string(),
                    "client_identity": header("x-forwarded-client-cert"),
                    "headers": headers(request.headers()),
                });
                let response = http::Response::builder()
                    .header("content-type", "application/json")
                    .body(Full::new(Bytes::from(format!("{body}\n"))));
                async move { Ok::<_, Infallible>(response.expect("static headers are valid")) }
            });
            let builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// All of them, for whoever wants to know what arrived; several lines of one name joined.
fn headers(map: &http::HeaderMap) -> BTreeMap<&str, String> {
    let mut all: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in map {
        let value = String::from_utf8_lossy(value.as_bytes());
        all.entry(name.as_str()).and_modify(|seen| *seen += &format!(",{value}")).or_insert_with(|| value.to_string());
    }
    all
}

async fn greet(listener: TcpListener, text: &str) -> anyhow::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let greeting = format!("{text}\r\n");
        tokio::spawn(async move {
            if stream.write_all(greeting.as_bytes()).await.is_ok() {
                let (mut read, mut write) = stream.split();
                let _ = copy(&mut read, &mut write).await;
            }
        });
    }
}

struct LoadOptions {
    requests: Option<usize>,
    duration: Option<Duration>,
    /// The load ends when this file appears.
    until: Option<std::path::PathBuf>,
    connections: usize,
    new_connections: bool,
    pause: Option<Duration>,
    timeout: Duration,
}

impl LoadOptions {
    fn parse(options: &[&str]) -> anyhow::Result<Self> {
        let mut parsed = Self {
            requests: None,
            duration: None,
            until: None,
            connections: 1,
            new_connections: false,
            pause: None,
            timeout: Duration::from_secs(10),
        };
        let mut options = options.iter();
        while let Some(option) = options.next() {
            let mut value = || options.next().with_context(|| format!("{option} needs a value"));
            match *option {
                "--requests" => parsed.requests = Some(value()?.parse()?),
                "--seconds" => parsed.duration = Some(Duration::from_secs(value()?.parse()?)),
                "--until" => parsed.until = Some(value()?.into()),
                "--connections" => parsed.connections = value()?.parse()?,
                "--new-connections" => parsed.new_connections = true,
                "--timeout-s" => parsed.timeout = Duration::from_secs(value()?.parse()?),
                "--pause-ms" => parsed.pause = Some(Duration::from_millis(value()?.parse()?)),
                other => anyhow::bail!("unknown option {other}"),
            }
        }
        Ok(parsed)
    }
}

/// What came back, over all connections.
#[derive(Default)]
struct Tally {
    versions: BTreeMap<String, usize>,
    failures: BTreeMap<String, usize>,
    sent: usize,
}

async fn load(url: &str, options: &LoadOptions) -> anyhow::Result<()> {
    let uri: http::Uri = url.parse()?;
    let host = uri.host().context("the URL has no host")?.to_owned();
    let address = (host.clone(), uri.port_u16().unwrap_or(80));
    let tally = std::rc::Rc::new(std::cell::RefCell::new(Tally::default()));
    let deadline = options.duration.map(|d| Instant::now() + d);
    let endless = options.requests.is_none() && options.duration.is_none() && options.until.is_none();
    let started = Instant::now();
    let told_to_stop = std::rc::Rc::new(std::cell::Cell::new(false));
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let local = tokio::task::LocalSet::new();
    let stop = told_to_stop.clone();
    local.spawn_local(async move {
        terminate.recv().await;
        stop.set(true);
    });
    let workers = (0..options.connections.max(1)).map(|_| {
        let (tally, uri, address, host) = (tally.clone(), uri.clone(), address.clone(), host.clone());
        let told_to_stop = told_to_stop.clone();
        async move {
            let mut sender = None;
            loop {
                {
                    let mut tally = tally.borrow_mut();
                    let enough = options.requests.is_some_and(|n| tally.sent >= n);
                    let told = told_to_stop.get() || options.until.as_ref().is_some_and(|file| file.exists());
                    if enough || told || deadline.is_some_and(|d| Instant::now() >= d) {
                        return;
                    }
                    tally.sent += 1;
                }
                let result = tokio::time::timeout(options.timeout, one(&mut sender, &address, &uri, &host)).await;
                {
                    let mut tally = tally.borrow_mut();
                    match result.unwrap_or_else(|_| Err(anyhow::anyhow!("timeout"))) {
                        Ok(version) => *tally.versions.entry(version).or_default() += 1,
                        Err(error) => {
                            sender = None;
                            *tally.failures.entry(format!("{error:#}")).or_default() += 1;
                        }
                    }
                    let answered = tally.versions.values().sum::<usize>();
                    if endless && answered > 0 && answered.is_multiple_of(100) {
                        println!("answered {answered}");
                    }
                }
                if options.new_connections {
                    sender = None;
                }
                if let Some(pause) = options.pause {
                    tokio::time::sleep(pause).await;
                }
            }
        }
    });
    local.run_until(futures_util::future::join_all(workers)).await;
    let tally = tally.borrow();
    let failed: usize = tally.failures.values().sum();
    println!("{} requests in {:.1?}, {failed} failed, answered by {:?}", tally.sent, started.elapsed(), tally.versions);
    tally.failures.iter().for_each(|(error, count)| println!("{count} x {error}"));
    anyhow::ensure!(failed == 0, "{failed} requests failed");
    Ok(())
}

type Sender = hyper::client::conn::http1::SendRequest<Empty<Bytes>>;

/// Sends one request, over the connection there is or a new one, and names the version that answered.
async fn one(
    sender: &mut Option<Sender>,
    address: &(String, u16),
    uri: &http::Uri,
    host: &str,
) -> anyhow::Result<String> {
    let mut ready = match sender.take() {
        Some(sender) if !sender.is_closed() => sender,
        _ => {
            let stream = tokio::net::TcpStream::connect(address).await.context("connect")?;
            let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            sender
        }
    };
    ready.ready().await.context("connection")?;
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let request = http::Request::get(path).header("host", host).body(Empty::new())?;
    let response = ready.send_request(request).await.context("send")?;
    let status = response.status();
    let body = response.into_body().collect().await.context("body")?.to_bytes();
    anyhow::ensure!(status.is_success(), "status {status}: {}", String::from_utf8_lossy(&body));
    let answer: serde_json::Value = serde_json::from_slice(&body).context("answer")?;
    *sender = Some(ready);
    Ok(answer["version"].as_str().unwrap_or("?").to_owned())
}
