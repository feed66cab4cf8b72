//! What a scripted client does: plain data.

use std::time::Duration;

use super::{reply::Plan, wire::Fields};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http10,
    Http2,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Req {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) authority: String,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    pub(crate) version: Version,
    pub(crate) chunked: bool,
    /// The body is never finished.
    pub(crate) unfinished: bool,
    /// Between the head and the body.
    pub(crate) pause: Duration,
    /// The times whose order with the end of the answer is compared.
    pub(crate) marks: Vec<Duration>,
    /// Whether the names of the answer are compared as they were written.
    pub(crate) spelling: bool,
    /// Waits for what becomes of the connection after the answer.
    pub(crate) afterwards: bool,
    /// Bytes said after a switch of protocols; the answer to them is recorded.
    pub(crate) tunnel: Option<&'static str>,
    /// HTTP/2: the `:protocol` of an extended CONNECT.
    pub(crate) protocol: Option<&'static str>,
    /// HTTP/1: instead of everything above.
    pub(crate) raw: Option<Vec<u8>>,
    /// HTTP/1: over TLS. That of the first request on a connection counts.
    pub(crate) tls: Option<Tls>,
}

pub(crate) fn request(method: &str, target: &str) -> Req {
    Req {
        method: method.to_owned(),
        target: target.to_owned(),
        authority: "case.test".to_owned(),
        fields: Vec::new(),
        body: Vec::new(),
        trailers: Vec::new(),
        version: Version::Http1,
        chunked: false,
        unfinished: false,
        pause: Duration::ZERO,
        marks: Vec::new(),
        spelling: false,
        afterwards: false,
        tunnel: None,
        protocol: None,
        raw: None,
        tls: None,
    }
}

pub(crate) fn get(target: &str) -> Req {
    request("GET", target)
}

pub(crate) fn post(target: &str, body: &str) -> Req {
    request("POST", target).body(body)
}

/// A unary gRPC request over HTTP/2.
pub(crate) fn grpc_call(target: &str) -> Req {
    post(target, "\0\0\0\0\0").h2().header("content-type", "application/grpc").header("te", "trailers")
}

/// Bytes on a connection of their own; everything that comes back is recorded.
pub(crate) fn raw_bytes(bytes: &str) -> Req {
    let mut req = get("(raw)");
    req.raw = Some(bytes.as_bytes().to_vec());
    req.afterwards = true;
    req
}

impl Req {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn host(mut self, authority: &str) -> Self {
        self.authority = authority.to_owned();
        self
    }

    pub(crate) fn body(mut self, text: &str) -> Self {
        self.body = text.as_bytes().to_vec();
        self
    }

    pub(crate) fn trailer(mut self, name: &str, value: &str) -> Self {
        self.chunked = true;
        self.trailers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn h2(mut self) -> Self {
        self.version = Version::Http2;
        self
    }

    pub(crate) fn http10(mut self) -> Self {
        self.version = Version::Http10;
        self
    }

    pub(crate) fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    pub(crate) fn unfinished(mut self) -> Self {
        self.unfinished = true;
        self
    }

    /// The body follows the head after `ms`.
    pub(crate) fn pause(mut self, ms: u64) -> Self {
        self.pause = Duration::from_millis(ms);
        self
    }

    /// Compares whether the answer was complete before or after each of these times. Give them much room.
    pub(crate) fn timed(mut self, marks: &[u64]) -> Self {
        self.marks = marks.iter().map(|ms| Duration::from_millis(*ms)).collect();
        self
    }

    pub(crate) fn spelling(mut self) -> Self {
        self.spelling = true;
        self
    }

    pub(crate) fn afterwards(mut self) -> Self {
        self.afterwards = true;
        self
    }

    /// Over TLS with this certificate, or with none.
    pub(crate) fn tls(mut self, certificate: &'static str) -> Self {
        self.tls = Some(Tls { server_name: "case.test", alpn: &[], certificate });
        self
    }

    pub(crate) fn tunnel(mut self, text: &'static str) -> Self {
        self.tunnel = Some(text);
        self
    }

    /// Asks for this protocol with an extended CONNECT.
    pub(crate) fn extended(mut self, protocol: &'static str) -> Self {
        "CONNECT".clone_into(&mut self.method);
        self.protocol = Some(protocol);
        self.h2()
    }

    pub(crate) fn describe(&self) -> String {
        match &self.raw {
            Some(bytes) => format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(60)])),
            None => format!("{:?} {} {}", self.version, self.method, self.target),
        }
    }
}

/// What a script says over a plain connection.
#[derive(Clone, Debug)]
pub(crate) struct Talk {
    pub(crate) say: &'static str,
    /// Waits for this before it finishes.
    pub(crate) hear: &'static str,
    /// Ends its own direction, then reads on.
    pub(crate) finish: bool,
    pub(crate) tls: Option<Tls>,
}

/// A TLS handshake before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tls {
    pub(crate) server_name: &'static str,
    pub(crate) alpn: &'static [&'static str],
    /// The client's own certificate, by the name of its files; empty: none.
    pub(crate) certificate: &'static str,
}

/// One step of a case's script; steps follow each other.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Requests on one connection, one after the other.
    Requests(Vec<Req>),
    /// Each on a connection of its own, each begun once the one before has arrived upstream, waits, or was answered.
    Overlapping(Vec<Req>),
    /// The request so many times; only how often each kind of answer came is compared, as shares.
    Spread(usize, Vec<Req>),
    /// The request so many times; nothing is recorded.
    Warm(usize, Req),
    /// Repeats until the status comes; how often is nobody's business.
    Until(Req, u16),
    /// The host follows another plan from here on.
    Follow(&'static str, Plan),
    Talk(Talk),
    Talks(usize, Talk),
    Pause(Duration),
    /// What the proxy counted under names in which this follows the case's.
    Stats(&'static str),
}
