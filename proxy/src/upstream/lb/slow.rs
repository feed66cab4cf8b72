//! Slow start: a host that just came takes part of its weight only, rising over a window.
//!
//! Tables know full weights; a draw of a young host counts with the chance of its factor, else the draw is repeated.
//! That gives exactly the reduced weights for any policy that draws, and needs no rebuild while hosts grow up.

use std::time::Duration;

use super::SplitMix;
use crate::ir::balancing::SlowStart;

/// Since when each host is there.
#[derive(Debug)]
pub(super) struct Slow {
    config: SlowStart,
    since: Box<[Duration]>,
    /// When the youngest is grown up.
    until: Duration,
}

impl Slow {
    /// `None` when nobody is inside the window.
    pub(super) fn new(config: SlowStart, since: Box<[Duration]>, now: Duration) -> Option<Self> {
        let until = since.iter().max()?.saturating_add(config.window);
        (until > now).then_some(Self { config, since, until })
    }

    pub(super) fn over(&self, now: Duration) -> bool {
        now >= self.until
    }

    /// Since when the eldest of `hosts` is there: the others are young in relation to it.
    pub(super) fn eldest(&self, hosts: &[u32]) -> Duration {
        hosts.iter().map(|host| self.since[*host as usize]).min().unwrap_or_default()
    }

    fn factor(&self, since: Duration, now: Duration) -> f64 {
        let age = now.saturating_sub(since);
        if age >= self.config.window {
            return 1.0;
        }
        let time = age.as_secs_f64().max(0.001) / self.config.window.as_secs_f64();
        let aggression = self.config.aggression.get();
        let grown = if aggression == 1.0 { time } else { time.powf(1.0 / aggression) };
        grown.max(f64::from(self.config.min_permille) / 1000.0).min(1.0)
    }

    /// Whether a draw of `host` counts.
    pub(super) fn accepts(&self, host: u32, eldest: Duration, now: Duration, random: &mut SplitMix) -> bool {
        let (own, best) = (self.factor(self.since[host as usize], now), self.factor(eldest, now));
        own >= best || (random.next() >> 11) as f64 / (1u64 << 53) as f64 * best < own
    }
}
