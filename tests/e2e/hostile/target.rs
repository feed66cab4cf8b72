//! What is attacked: a client and a server with their proxies, the same application behind as for everybody.

use std::{io::Read, net::SocketAddr, time::Duration};

use outrigger_tests::{Exchange, Pair, Process, mesh::bin, pair};

/// How much more memory an attack may leave behind in a proxy, in kB. Buffers and pools of 1000 connections are below.
const GROWTH_KB: u64 = 40 * 1024;

pub(crate) struct Target {
    pub(crate) pair: Pair,
    _application: Process,
    before: [u64; 2],
}

impl Target {
    /// A mesh with an HTTP service on port 80.
    pub(crate) fn new() -> Self {
        let pair = pair::pair(&[("http", 80, 9080), ("auto", 81, 9080), ("tcp", 7000, 9080)]);
        let line = format!("{} http [::]:9080 app v1", bin("outrigger-demo-app").display());
        let application = pair.server.pod.serve("app", 9080, &line);
        let mut target = Self { pair, _application: application, before: [0; 2] };
        target.serves("before any attack");
        target.before = target.memory();
        target
    }

    fn memory(&self) -> [u64; 2] {
        [&self.pair.client, &self.pair.server].map(|w| w.proxy.resident_kb())
    }

    /// A well-formed request is answered through both proxies.
    pub(crate) fn answers(&self, after: &str) {
        let mut client = self.pair.client.pod.connect(pair::by4(80));
        client.say("GET /well-formed HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n");
        let answer = String::from_utf8(client.hear_end()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "after {after}: {answer}");
        assert!(answer.contains(r#""path":"/well-formed""#), "after {after}: {answer}");
        assert!(answer.contains("sa/client"), "after {after}: {answer}");
    }

    /// As [`Target::answers`], and both proxies are sound.
    pub(crate) fn serves(&mut self, after: &str) {
        self.answers(after);
        self.pair.assert_sound();
        assert!(self.pair.mesh.control().is_running(), "after {after}: {}", self.pair.mesh.control().output());
        let said = self.pair.mesh.control().output();
        assert!(!said.contains("panicked"), "after {after}: {said}");
    }

    /// As [`Target::serves`], and memory went back to nearly what it was.
    pub(crate) fn unharmed(&mut self, after: &str) {
        self.serves(after);
        for (workload, before) in [&self.pair.client, &self.pair.server].into_iter().zip(self.before) {
            let now = workload.proxy.resident_kb();
            let name = &workload.pod.name;
            assert!(now < before + GROWTH_KB, "after {after}: the proxy of {name} went from {before} to {now} kB");
        }
    }
}

/// Sends everything, whatever happens, and reads for as long as something comes: all bytes if the other side ended the
/// connection, `Err` with them if it still stands after `patience`.
pub(crate) fn throw(mut stream: std::net::TcpStream, bytes: &[u8], patience: Duration) -> Result<Vec<u8>, Vec<u8>> {
    use std::io::Write;
    stream.set_write_timeout(Some(patience)).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    let _ = stream.write_all(bytes);
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(heard),
            Ok(n) => heard.extend_from_slice(&buffer[..n]),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                return Err(heard);
            }
            Err(_) => return Ok(heard),
        }
    }
}

/// Repeatable randomness (xorshift64*): a failure can be run again.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 32) as u8).collect()
    }
}

/// A port of a Pod by loopback.
pub(crate) fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}
