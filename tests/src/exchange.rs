//! Exact bytes over plain blocking sockets, for where a library at either end would tidy up what is being tested.

use std::{
    cell::RefCell,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use crate::wait::PATIENCE;

/// Makes reads and writes give up instead of hanging the test.
pub fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).expect("PATIENCE is not zero");
    stream.set_write_timeout(Some(PATIENCE)).expect("PATIENCE is not zero");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
}

/// The next connection of a listener, or a failed test.
pub fn accept(listener: &TcpListener) -> TcpStream {
    try_accept(listener).expect("a connection should have arrived")
}

/// The next connection, or `None` after [`PATIENCE`].
pub fn try_accept(listener: &TcpListener) -> Option<TcpStream> {
    listener.set_nonblocking(true).expect("a TCP socket");
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).expect("a TCP socket");
                return Some(patient(stream));
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::park_timeout(Duration::from_millis(2));
            }
            Err(_) => return None,
        }
    }
}

/// An HTTP/1 server that is told what to answer. Proxies reuse and open connections as they like, so the next request
/// is taken from whichever connection it comes on.
pub struct Server {
    listener: TcpListener,
    open: RefCell<Vec<TcpStream>>,
}

impl Server {
    pub fn new(listener: TcpListener) -> Self {
        listener.set_nonblocking(true).expect("a TCP socket");
        Self { listener, open: RefCell::default() }
    }

    /// Looks at none of the connections so far for further requests.
    pub fn forget(&self) {
        self.open.borrow_mut().clear();
    }

    /// The next request's connection and head; a body is still to be read from it.
    pub fn request(&self) -> (TcpStream, String) {
        self.try_request(PATIENCE).expect("a request should have arrived")
    }

    /// As [`Server::request`], `None` when there is none for that long.
    pub fn try_request(&self, patience: Duration) -> Option<(TcpStream, String)> {
        let deadline = Instant::now() + patience;
        let mut open = self.open.borrow_mut();
        while Instant::now() < deadline {
            while let Ok((stream, _)) = self.listener.accept() {
                open.push(stream);
            }
            let mut ready = None;
            open.retain(|stream| {
                stream.set_nonblocking(true).expect("a TCP socket");
                let seen = stream.peek(&mut [0]);
                stream.set_nonblocking(false).expect("a TCP socket");
                match seen {
                    Ok(0) => false,
                    Ok(_) => {
                        ready.get_or_insert_with(|| stream.try_clone().expect("a file can be shared"));
                        true
                    }
                    Err(e) => e.kind() == ErrorKind::WouldBlock,
                }
            });
            if let Some(stream) = ready {
                let mut stream = patient(stream);
                let head = stream.head();
                return Some((stream, head));
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        None
    }
}

/// The values of all header lines of that name, any case.
pub fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
    lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
}

/// Whether the head has exactly this line.
pub fn has_line(head: &str, line: &str) -> bool {
    head.split("\r\n").any(|l| l == line)
}

/// Reads and writes in the terms of a protocol's script. Each fails the test with what it saw so far.
pub trait Exchange {
    /// Sends these bytes.
    fn say(&mut self, bytes: impl AsRef<[u8]>);
    /// Reads up to and including `end`, and nothing beyond.
    fn hear_until(&mut self, end: &str) -> String;
    /// Reads exactly as many bytes.
    fn hear(&mut self, count: usize) -> Vec<u8>;
    /// Reads until the peer has closed its direction properly.
    fn hear_end(&mut self) -> Vec<u8>;
    /// Reads until the connection is over in any way.
    fn hear_out(&mut self) -> Vec<u8>;
    /// Closes the own direction.
    fn finish(&mut self);
    /// Reads the head of an HTTP/1 message, blank line included.
    fn head(&mut self) -> String {
        self.hear_until("\r\n\r\n")
    }
    /// Reads a chunked body with trailers: (data, trailer section without the last blank line).
    fn chunked(&mut self) -> (Vec<u8>, String) {
        let mut data = Vec::new();
        loop {
            let line = self.hear_until("\r\n");
            let size = usize::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16)
                .unwrap_or_else(|e| panic!("chunk size {line:?}: {e}"));
            if size == 0 {
                break;
            }
            data.extend(self.hear(size));
            assert_eq!(self.hear(2), b"\r\n", "the end of a chunk");
        }
        let mut trailers = String::new();
        loop {
            let line = self.hear_until("\r\n");
            if line == "\r\n" {
                return (data, trailers);
            }
            trailers += &line;
        }
    }
}

impl Exchange for TcpStream {
    fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.write_all(bytes).unwrap_or_else(|e| panic!("sending {:?}: {e}", shown(bytes)));
    }

    fn hear_until(&mut self, end: &str) -> String {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(end.as_bytes()) {
            match self.read(&mut byte) {
                Ok(1) => seen.push(byte[0]),
                Ok(_) => panic!("closed before {end:?}, after {:?}", shown(&seen)),
                Err(e) => panic!("{e} before {end:?}, after {:?}", shown(&seen)),
            }
            assert!(seen.len() < 1 << 20, "no {end:?} in a megabyte");
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    fn hear(&mut self, count: usize) -> Vec<u8> {
        let mut seen = vec![0; count];
        let mut have = 0;
        while have < count {
            match self.read(&mut seen[have..]) {
                Ok(0) => panic!("closed after {have} of {count} bytes: {:?}", shown(&seen[..have])),
                Ok(n) => have += n,
                Err(e) => panic!("{e} after {have} of {count} bytes: {:?}", shown(&seen[..have])),
            }
        }
        seen
    }

    fn hear_end(&mut self) -> Vec<u8> {
        let mut seen = Vec::new();
        self.read_to_end(&mut seen).unwrap_or_else(|e| panic!("{e} instead of an end, after {:?}", shown(&seen)));
        seen
    }

    fn hear_out(&mut self) -> Vec<u8> {
        let mut seen = Vec::new();
        if let Err(e) = self.read_to_end(&mut seen) {
            let timeout = matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            assert!(!timeout, "neither closed nor reset within {PATIENCE:?}; after {:?}", shown(&seen));
        }
        seen
    }

    fn finish(&mut self) {
        self.shutdown(Shutdown::Write).expect("connected");
    }
}

fn shown(bytes: &[u8]) -> String {
    let cut = bytes.len().min(400);
    format!("{}{}", String::from_utf8_lossy(&bytes[..cut]), if cut < bytes.len() { "..." } else { "" })
}
