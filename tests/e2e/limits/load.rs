//! Clients that ask, and a server that remembers what it was asked.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use outrigger_tests::{Pod, wait::PATIENCE};

use crate::held::Asked;

/// What came of many requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) admitted: u64,
    pub(crate) limited: u64,
    pub(crate) other: u64,
}

/// Asks over `connections` connections at once, as an application of the Pod, until there are so many answers.
pub(crate) fn ask(pod: &Pod, (host, to): (&str, SocketAddr), connections: usize, answers: u64) -> Tally {
    let tally = Arc::new(Mutex::new(Tally::default()));
    let count = Arc::clone(&tally);
    let enough = move |asked: Asked| {
        let mut tally = count.lock().unwrap();
        match asked.status {
            Some(200) => tally.admitted += 1,
            Some(429) => tally.limited += 1,
            _ => tally.other += 1,
        }
        tally.admitted + tally.limited + tally.other >= answers
    };
    asking(pod, (host, to), connections, enough);
    *tally.lock().unwrap()
}

/// As [`ask`], for so long after the first refusal that anybody hears of.
pub(crate) fn press(
    pod: &Pod,
    (host, to): (&str, SocketAddr),
    connections: usize,
    (refused, time): (&Arc<OnceLock<Instant>>, Duration),
) -> Vec<Asked> {
    let all = Arc::<Mutex<Vec<Asked>>>::default();
    let (seen, refused) = (Arc::clone(&all), Arc::clone(refused));
    let enough = move |asked: Asked| {
        seen.lock().unwrap().push(asked);
        if asked.status == Some(429) {
            refused.get_or_init(|| asked.answered);
        }
        refused.get().is_some_and(|at| at.elapsed() >= time)
    };
    asking(pod, (host, to), connections, enough);
    std::mem::take(&mut *all.lock().unwrap())
}

/// Asks until an answer is enough, on each connection.
fn asking(
    pod: &Pod,
    (host, to): (&str, SocketAddr),
    connections: usize,
    enough: impl Fn(Asked) -> bool + Clone + Send + Sync + 'static,
) {
    pod.within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let one = || tokio::spawn(one((host.to_owned(), to), enough.clone()));
            let tasks: Vec<_> = (0..connections).map(|_| one()).collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
    });
}

async fn one((host, to): (String, SocketAddr), enough: impl Fn(Asked) -> bool) {
    let mut sender = None;
    let deadline = Instant::now() + 4 * PATIENCE;
    loop {
        let sent = Instant::now();
        assert!(sent < deadline, "asking does not end");
        let status = answer(&mut sender, (&host, to)).await;
        if enough(Asked { sent, answered: Instant::now(), status }) {
            return;
        }
    }
}

async fn answer(sender: &mut Option<SendRequest<Empty<Bytes>>>, (host, to): (&str, SocketAddr)) -> Option<u16> {
    let mut ready = match sender.take() {
        Some(ready) => ready,
        None => {
            let stream = tokio::net::TcpStream::connect(to).await.ok()?;
            let (ready, connection) = handshake(TokioIo::new(stream)).await.ok()?;
            tokio::spawn(connection);
            ready
        }
    };
    ready.ready().await.ok()?;
    let request = http::Request::get("/").header("host", host).body(Empty::new()).unwrap();
    let response = tokio::time::timeout(PATIENCE, ready.send_request(request)).await.ok()?.ok()?;
    let status = response.status().as_u16();
    response.into_body().collect().await.ok()?;
    *sender = Some(ready);
    Some(status)
}

/// An HTTP/1 server that answers 200 and keeps the heads of requests.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    pub(crate) fn start(pod: &Pod, port: u16) -> Self {
        let (recorder, listener) = (Self::default(), pod.listen(port));
        let own = recorder.clone();
        std::thread::spawn(move || own.accept(&listener));
        recorder
    }

    fn accept(&self, listener: &TcpListener) {
        while let Ok((mut stream, _)) = listener.accept() {
            let own = self.clone();
            std::thread::spawn(move || {
                let (mut held, mut buffer) = (Vec::new(), [0; 4096]);
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    held.extend_from_slice(&buffer[..length]);
                    while let Some(end) = held.windows(4).position(|four| four == b"\r\n\r\n") {
                        let head: Vec<u8> = held.drain(..end + 4).collect();
                        own.0.lock().unwrap().push(String::from_utf8_lossy(&head).to_ascii_lowercase());
                        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
                            return;
                        }
                    }
                }
            });
        }
    }

    pub(crate) fn heads(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}
