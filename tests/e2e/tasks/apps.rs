//! Stand-ins for the pages' applications and for their callers: plain HTTP/1 and lines over TCP, in threads of this
//! process but with the network of their Pods.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use outrigger_tests::{Pod, exchange::values, wait::PATIENCE};
use socket2::SockRef;

/// A request's or response's head and body.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Message {
    /// A response.
    pub(crate) fn answer(status: u16, body: impl Into<String>) -> Self {
        let body = body.into();
        Self { head: format!("HTTP/1.1 {status} -\r\ncontent-length: {}\r\n", body.len()), body }
    }

    /// The first value of a header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        values(&self.head, name).first().copied().unwrap_or_default()
    }

    fn word(&self, index: usize) -> &str {
        self.head.split_whitespace().nth(index).unwrap_or_default()
    }

    /// Of a request.
    pub(crate) fn path(&self) -> &str {
        self.word(1)
    }

    /// Of a response; 0 when none came.
    pub(crate) fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or(0)
    }

    fn read(reader: &mut impl BufRead) -> Option<Self> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let before = head.len();
            reader.read_line(&mut head).ok().filter(|_| head.len() > before)?;
        }
        let mut message = Self { head, body: String::new() };
        if message.header("transfer-encoding") == "chunked" {
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).ok()?;
                let size = usize::from_str_radix(line.trim(), 16).ok()?;
                let mut chunk = vec![0; size + 2];
                reader.read_exact(&mut chunk).ok()?;
                message.body += &String::from_utf8_lossy(&chunk[..size]);
                if size == 0 {
                    return Some(message);
                }
            }
        }
        let mut body = vec![0; message.header("content-length").parse().unwrap_or(0)];
        reader.read_exact(&mut body).ok()?;
        message.body = String::from_utf8_lossy(&body).into_owned();
        Some(message)
    }
}

/// A server in a Pod; it stops accepting when dropped.
pub(crate) struct App {
    listener: Arc<TcpListener>,
    requests: Arc<Mutex<Vec<Message>>>,
}

impl App {
    /// Serves HTTP on a port: what `handle` says to each request.
    pub(crate) fn http(pod: &Pod, port: u16, handle: impl Fn(&Message) -> Message + Send + Sync + 'static) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let listener = accept_on(pod, port, move |stream| {
            let mut writer = stream.try_clone().unwrap();
            let mut reader = BufReader::new(stream);
            while let Some(request) = Message::read(&mut reader) {
                let answer = handle(&request);
                seen.lock().unwrap().push(request);
                if write!(writer, "{}\r\n{}", answer.head, answer.body).is_err() {
                    return;
                }
            }
        });
        Self { listener, requests }
    }

    /// Answers each line with itself behind `prefix`.
    pub(crate) fn lines(pod: &Pod, port: u16, prefix: &'static str) -> Self {
        Self::raw(pod, port, move |stream| {
            let mut writer = stream.try_clone().unwrap();
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if writeln!(writer, "{prefix} {line}").is_err() {
                    return;
                }
            }
        })
    }

    /// Gives each connection to `serve`.
    pub(crate) fn raw(pod: &Pod, port: u16, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self { listener: accept_on(pod, port, serve), requests: Arc::default() }
    }

    /// What was asked so far.
    pub(crate) fn requests(&self) -> Vec<Message> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // Wakes the thread that accepts.
        let _ = SockRef::from(&*self.listener).shutdown(Shutdown::Both);
    }
}

fn accept_on(pod: &Pod, port: u16, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Arc<TcpListener> {
    let listener = Arc::new(pod.listen(port));
    let (accepting, serve) = (listener.clone(), Arc::new(serve));
    std::thread::spawn(move || {
        while let Ok((stream, _)) = accepting.accept() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    listener
}

/// Asks `host` (also the `Host` header) at its address; status 0 when no whole answer comes within `patience`.
pub(crate) fn ask_within(
    pod: &Pod,
    (address, host): (SocketAddr, &str),
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    patience: Duration,
) -> Message {
    let exchange = || {
        let mut stream = pod.try_connect(address).ok()?;
        stream.set_read_timeout(Some(patience)).ok()?;
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = if method == "GET" { "" } else { "content-length: 0\r\n" };
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: {host}\r\n{headers}{length}connection: close\r\n\r\n")
            .ok()?;
        Message::read(&mut BufReader::new(stream))
    };
    exchange().unwrap_or_default()
}

/// A GET with all the patience there is.
pub(crate) fn get(
    pod: &Pod,
    address: impl Into<SocketAddr>,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Message {
    ask_within(pod, (address.into(), host), ("GET", path), headers, PATIENCE)
}

/// Sends one line; the line that comes back, empty when none does.
pub(crate) fn say_line(pod: &Pod, address: impl Into<SocketAddr>, line: &str) -> String {
    let exchange = || {
        let mut stream = pod.try_connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        writeln!(stream, "{line}").ok()?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).ok()?;
        Some(answer.trim_end().to_owned())
    };
    exchange().unwrap_or_default()
}
