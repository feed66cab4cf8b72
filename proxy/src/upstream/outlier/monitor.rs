//! What the workers count of one host, by atomics that all of them share.
//!
//! A success is one addition and one look at the streaks (two additions where local origins are told apart). Only a
//! failure that completes a streak, or the answer to a probe, is anything the control thread hears of; what it has not
//! taken yet is not raised twice, so a host has at most one notice on its way.

use std::sync::atomic::{
    AtomicU8, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};

use super::{Kind, Probes, rate::Window};
use crate::ir::outlier::OutlierDetection;

/// How a request or connection to a host went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The host answered with this HTTP status (that of gRPC mapped to HTTP's).
    Response(u16),
    /// It took the connection, and nobody looks at what it answers.
    Connected,
    /// It did not take the connection, or reset.
    Failed,
    /// It did not connect, or answer, in time.
    TimedOut,
    /// It broke an answer off whose head is counted already.
    BrokeOff,
}

impl Outcome {
    /// Whether the host did what it should.
    pub fn is_good(self) -> bool {
        match self {
            Self::Response(status) => status < 500,
            Self::Connected => true,
            Self::Failed | Self::TimedOut | Self::BrokeOff => false,
        }
    }
}

/// The counts of one host.
#[derive(Debug)]
pub struct Monitor {
    /// Failures in a row: 5xx in the upper half, gateway failures in the lower.
    streaks: AtomicU64,
    local_streak: AtomicU32,
    /// Answers broken off with no whole one in between: their heads keep ending the streaks above.
    broken: AtomicU32,
    /// Requests of this interval in the upper half, successful ones in the lower.
    external: AtomicU64,
    local: AtomicU64,
    /// What the control thread is to hear of.
    raised: AtomicU8,
    /// Success rates of the last interval for display, `f64` bits; below 0: too few requests.
    rates: [AtomicU64; 2],
    pub probes: Probes,
}

impl Default for Monitor {
    fn default() -> Self {
        let none = || AtomicU64::new((-1f64).to_bits());
        Self {
            streaks: AtomicU64::new(0),
            local_streak: AtomicU32::new(0),
            broken: AtomicU32::new(0),
            external: AtomicU64::new(0),
            local: AtomicU64::new(0),
            raised: AtomicU8::new(0),
            rates: [none(), none()],
            probes: Probes::default(),
        }
    }
}

const FIVE: u8 = 1;
const GATEWAY: u8 = 2;
const LOCAL: u8 = 4;
const PROBED: u8 = 8;

/// What a monitor had to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raised(u8);

impl Raised {
    /// Streaks that were completed.
    pub fn streaks(self) -> impl Iterator<Item = Kind> {
        let kinds = [
            (GATEWAY, Kind::ConsecutiveGatewayFailure),
            (FIVE, Kind::Consecutive5xx),
            (LOCAL, Kind::ConsecutiveLocalOriginFailure),
        ];
        kinds.into_iter().filter(move |(bit, _)| self.0 & bit != 0).map(|(_, kind)| kind)
    }

    /// Whether probes were answered.
    pub fn probed(self) -> bool {
        self.0 & PROBED != 0
    }
}

impl Monitor {
    /// Counts an outcome; true when the control thread is to be told, now.
    #[must_use]
    pub fn record(&self, config: &OutlierDetection, outcome: Outcome) -> bool {
        let split = config.split_local_origin;
        let bits = match outcome {
            Outcome::Response(status) => self.answered(config, status) | if split { self.reached() } else { 0 },
            Outcome::Connected if split => self.reached(),
            Outcome::Connected => self.answered(config, 200),
            Outcome::Failed | Outcome::TimedOut if split => self.unreached(config),
            Outcome::Failed => self.answered(config, 503),
            Outcome::TimedOut => self.answered(config, 504),
            Outcome::BrokeOff if split => self.unreached(config) | self.broke_off(LOCAL, config),
            Outcome::BrokeOff => self.answered(config, 503) | self.broke_off(FIVE, config),
        };
        self.raise(bits)
    }

    /// Counts the answer to a probe; as [`Self::record`].
    #[must_use]
    pub fn probe_answered(&self, round: u32, good: bool) -> bool {
        self.probes.answered(round, good) && self.raise(PROBED)
    }

    /// Counts an answer that came to its end.
    pub fn completed(&self) {
        if self.broken.load(Relaxed) != 0 {
            self.broken.store(0, Relaxed);
        }
    }

    /// As a streak of the kind that `bit` stands for.
    fn broke_off(&self, bit: u8, config: &OutlierDetection) -> u8 {
        let kind = if bit == LOCAL { &config.consecutive_local_origin_failure } else { &config.consecutive_5xx };
        let now = self.broken.fetch_add(1, Relaxed).wrapping_add(1);
        if now == kind.threshold { bit } else { 0 }
    }

    fn raise(&self, bits: u8) -> bool {
        bits != 0 && self.raised.fetch_or(bits, AcqRel) == 0
    }

    fn answered(&self, config: &OutlierDetection, status: u16) -> u8 {
        if status < 500 {
            self.external.fetch_add(1 << 32 | 1, Relaxed);
            if self.streaks.load(Relaxed) != 0 {
                self.streaks.store(0, Relaxed);
            }
            return 0;
        }
        self.external.fetch_add(1 << 32, Relaxed);
        let gateway = matches!(status, 502..=504);
        let longer = |streaks: u64| {
            let (five, other) = ((streaks >> 32) as u32, streaks as u32);
            let other = if gateway { other.saturating_add(1) } else { 0 };
            u64::from(five.saturating_add(1)) << 32 | u64::from(other)
        };
        let before = self.streaks.fetch_update(Relaxed, Relaxed, |s| Some(longer(s))).unwrap_or_default();
        let now = longer(before);
        let five = (now >> 32) as u32 == config.consecutive_5xx.threshold;
        let gateway = gateway && now as u32 == config.consecutive_gateway_failure.threshold;
        (u8::from(five) * FIVE) | (u8::from(gateway) * GATEWAY)
    }

    fn reached(&self) -> u8 {
        self.local.fetch_add(1 << 32 | 1, Relaxed);
        if self.local_streak.load(Relaxed) != 0 {
            self.local_streak.store(0, Relaxed);
        }
        0
    }

    fn unreached(&self, config: &OutlierDetection) -> u8 {
        self.local.fetch_add(1 << 32, Relaxed);
        let now = self.local_streak.fetch_add(1, Relaxed).wrapping_add(1);
        if now == config.consecutive_local_origin_failure.threshold { LOCAL } else { 0 }
    }

    /// Whether something is to be heard.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Relaxed) != 0
    }

    /// Takes what is to be heard.
    pub fn take_raised(&self) -> Raised {
        Raised(self.raised.swap(0, AcqRel))
    }

    /// Takes the interval's requests, external and local.
    pub fn take_windows(&self) -> [Window; 2] {
        [&self.external, &self.local].map(|counter| {
            let value = counter.swap(0, Relaxed);
            Window { total: (value >> 32) as u32, success: value as u32 }
        })
    }

    /// Begins the count of one kind of streak anew.
    pub fn reset(&self, kind: Kind) {
        match kind {
            Kind::Consecutive5xx => {
                self.streaks.fetch_and(u64::from(u32::MAX), Relaxed);
                self.broken.store(0, Relaxed);
            }
            Kind::ConsecutiveGatewayFailure => drop(self.streaks.fetch_and(!u64::from(u32::MAX), Relaxed)),
            Kind::ConsecutiveLocalOriginFailure => {
                self.local_streak.store(0, Relaxed);
                self.broken.store(0, Relaxed);
            }
            Kind::SuccessRate
            | Kind::LocalOriginSuccessRate
            | Kind::FailurePercentage
            | Kind::LocalOriginFailurePercentage => {}
        }
    }

    /// Begins all streaks anew.
    pub fn reset_all(&self) {
        self.streaks.store(0, Relaxed);
        self.local_streak.store(0, Relaxed);
        self.broken.store(0, Relaxed);
    }

    pub fn set_rate(&self, origin: usize, rate: f64) {
        self.rates[origin].store(rate.to_bits(), Relaxed);
    }

    /// The last interval's success rates, external and local; below 0: too few requests.
    pub fn rates(&self) -> [f64; 2] {
        [0, 1].map(|origin| f64::from_bits(self.rates[origin].load(Acquire)))
    }
}
