//! Clients that ask, and a server that remembers what it was asked.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use outrigger_tests::{Pod, wait::PATIENCE};

/// What came of many requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) admitted: u64,
    pub(crate) limited: u64,
    pub(crate) other: u64,
    pub(crate) elapsed: Duration,
}

impl Tally {
    pub(crate) fn rate(&self) -> f64 {
        self.admitted as f64 / self.elapsed.as_secs_f64()
    }
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self {
            admitted: a.admitted + b.admitted,
            limited: a.limited + b.limited,
            other: a.other + b.other,
            elapsed: a.elapsed.max(b.elapsed),
        })
    }
}

/// Until when to ask.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// So many answers.
    Answers(u64),
    /// Until the first refusal, then for so long; what was before the refusal is not counted.
    Refused(Duration),
}

/// Asks over `connections` connections at once, as an application of the Pod.
pub(crate) fn ask(pod: &Pod, (host, to): (&str, SocketAddr), connections: usize, until: Until) -> Tally {
    pod.within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let state = Arc::new(Mutex::new((Tally::default(), None::<Instant>)));
            let tasks: Vec<_> =
                (0..connections).map(|_| tokio::spawn(one((host.to_owned(), to), until, Arc::clone(&state)))).collect();
            for task in tasks {
                task.await.unwrap();
            }
            let (tally, _) = *state.lock().unwrap();
            tally
        })
    })
}

async fn one((host, to): (String, SocketAddr), until: Until, state: Arc<Mutex<(Tally, Option<Instant>)>>) {
    let mut sender = None;
    let deadline = Instant::now() + 4 * PATIENCE;
    loop {
        let asked = Instant::now();
        assert!(asked < deadline, "asking does not end: {:?}", state.lock().unwrap().0);
        let status = answer(&mut sender, (&host, to)).await;
        let (tally, refused) = &mut *state.lock().unwrap();
        if let Until::Refused(_) = until
            && refused.is_none()
        {
            if status == Some(429) {
                *refused = Some(Instant::now());
            }
            continue;
        }
        // What was asked before the count began may have been decided before, too.
        if refused.is_none_or(|at| asked >= at) {
            match status {
                Some(200) => tally.admitted += 1,
                Some(429) => tally.limited += 1,
                _ => tally.other += 1,
            }
        }
        let enough = match until {
            Until::Answers(number) => tally.admitted + tally.limited + tally.other >= number,
            Until::Refused(time) => refused.is_some_and(|at| {
                tally.elapsed = at.elapsed();
                tally.elapsed >= time
            }),
        };
        if enough {
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
