//! One series of each family: what is counted for one pair of peers and one outcome.

use std::{
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Instant,
};

use crate::telemetry::{
    flags::Flags,
    histogram::{Distribution, Histogram},
    metrics::{Block, Counter, Kind, Sharded},
};

/// How an exchange went, as far as labels tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// 0 where there was no response, or none is spoken of.
    pub code: u16,
    pub protocol: Protocol,
    pub flags: Flags,
}

/// What was spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http,
    /// With the call's status; -1 for one that does not exist.
    Grpc(Option<i8>),
    Tcp,
    /// Many of these: the outcome of what is beyond the bound.
    Any,
}

impl Protocol {
    /// The status of a call, as its peer wrote it.
    pub fn grpc(status: &[u8]) -> Self {
        let number = std::str::from_utf8(status).ok().and_then(|text| text.parse::<i8>().ok());
        Self::Grpc(Some(number.filter(|n| (0..=16).contains(n)).unwrap_or(-1)))
    }
}

impl Outcome {
    /// The labels after those of the pair.
    pub fn labels(&self) -> String {
        let (protocol, grpc) = match self.protocol {
            Protocol::Http => ("http", String::new()),
            Protocol::Grpc(status) => ("grpc", status.map(|s| s.to_string()).unwrap_or_default()),
            Protocol::Tcp => return format!(",request_protocol=\"tcp\",response_flags=\"{}\"", self.flags),
            Protocol::Any => {
                return ",request_protocol=\"overflow\",response_code=\"overflow\",grpc_response_status=\"overflow\",\
                        response_flags=\"overflow\""
                    .to_owned();
            }
        };
        format!(
            ",request_protocol=\"{protocol}\",response_code=\"{}\",grpc_response_status=\"{grpc}\",response_flags=\"{}\"",
            self.code, self.flags
        )
    }
}

/// Of requests; how many there were is how many have a duration.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct RequestCounts {
    pub duration: Histogram,
    pub request_bytes: Histogram,
    pub response_bytes: Histogram,
}

impl Block for RequestCounts {
    fn visit(&self, _: &mut dyn FnMut(&'static str, Kind, u64)) {}

    fn visit_histograms(&self, visitor: &mut dyn FnMut(&'static str, &Histogram)) {
        visitor("duration", &self.duration);
        visitor("request_bytes", &self.request_bytes);
        visitor("response_bytes", &self.response_bytes);
    }
}

/// Of connections.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct TcpCounts {
    pub opened: Counter,
    pub closed: Counter,
    pub received: Counter,
    pub sent: Counter,
}

impl Block for TcpCounts {
    fn visit(&self, visitor: &mut dyn FnMut(&'static str, Kind, u64)) {
        visitor("opened", Kind::Counter, self.opened.get());
        visitor("closed", Kind::Counter, self.closed.get());
        visitor("received", Kind::Counter, self.received.get());
        visitor("sent", Kind::Counter, self.sent.get());
    }
}

/// What was counted, all workers together.
#[allow(clippy::large_enum_variant, reason = "few at a time, and never on the way of a request")]
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    Requests { duration: Distribution, request_bytes: Distribution, response_bytes: Distribution },
    Connections { opened: u64, closed: u64, received: u64, sent: u64 },
}

/// Counts that a [`Sample`] can be taken of.
pub(super) trait Counted: Block {
    /// Whoever found a series has it until it has counted there for the last time, and then no more.
    const HELD: bool;

    fn sample(counts: &Sharded<Self>) -> Sample;

    /// Adds to `to` what came to the sample `before`.
    fn carry(counts: &Sharded<Self>, before: &Sample, to: &Self);
}

impl Counted for RequestCounts {
    const HELD: bool = false;

    fn sample(counts: &Sharded<Self>) -> Sample {
        let all = counts.distributions();
        let of = |name: &str| all.iter().find(|(n, _)| *n == name).map(|(_, values)| *values).unwrap_or_default();
        Sample::Requests {
            duration: of("duration"),
            request_bytes: of("request_bytes"),
            response_bytes: of("response_bytes"),
        }
    }

    fn carry(counts: &Sharded<Self>, before: &Sample, to: &Self) {
        if let (
            Sample::Requests { duration, request_bytes, response_bytes },
            Sample::Requests { duration: d, request_bytes: q, response_bytes: s },
        ) = (Self::sample(counts), before)
        {
            to.duration.merge(&duration.since(d));
            to.request_bytes.merge(&request_bytes.since(q));
            to.response_bytes.merge(&response_bytes.since(s));
        }
    }
}

impl Counted for TcpCounts {
    const HELD: bool = true;

    fn sample(counts: &Sharded<Self>) -> Sample {
        let all = counts.totals();
        let of = |name: &str| all.iter().find(|(n, ..)| *n == name).map_or(0, |(.., value)| *value);
        Sample::Connections { opened: of("opened"), closed: of("closed"), received: of("received"), sent: of("sent") }
    }

    fn carry(counts: &Sharded<Self>, before: &Sample, to: &Self) {
        if let (
            Sample::Connections { opened, closed, received, sent },
            Sample::Connections { opened: o, closed: c, received: r, sent: s },
        ) = (Self::sample(counts), before)
        {
            to.opened.add(opened.wrapping_sub(*o));
            to.closed.add(closed.wrapping_sub(*c));
            to.received.add(received.wrapping_sub(*r));
            to.sent.add(sent.wrapping_sub(*s));
        }
    }
}

impl Sample {
    /// Whether somebody is still to count here: a connection is open.
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Connections { opened, closed, .. } if opened != closed)
    }
}

/// A series of one family.
#[derive(Debug)]
pub(super) struct Series<T> {
    pub labels: Arc<str>,
    pub outcome: Outcome,
    pub counts: Sharded<T>,
    /// It was idle for too long and is no longer shown.
    pub retired: AtomicBool,
    /// What was last seen of it, and since when: kept by whoever looks at all series.
    pub seen: Mutex<Option<(Sample, Instant)>>,
}

impl<T> Series<T> {
    pub(super) fn new(labels: Arc<str>, outcome: Outcome) -> Self {
        Self { labels, outcome, counts: Sharded::default(), retired: AtomicBool::new(false), seen: Mutex::default() }
    }
}
