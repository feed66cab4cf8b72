//! How long a host takes to answer, as one word that all workers update: the peak counts at once and wears off.
//!
//! No clock: `now` is the time since an epoch that every caller shares. Invariant: an estimate never exceeds the
//! longest answer and, without further answers, only falls.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// The estimate in microseconds (upper half, a float) and when it was made in milliseconds (lower half, wrapping).
/// All zero: nothing is known.
#[derive(Debug, Default)]
pub struct Latency(AtomicU64);

fn stamp(now: Duration) -> u32 {
    now.as_millis() as u32
}

fn pack(micros: f64, now: Duration) -> u64 {
    u64::from((micros.clamp(1.0, 1e12) as f32).to_bits()) << 32 | u64::from(stamp(now))
}

/// What is left after `then`, and the share of it.
fn decayed(word: u64, now: Duration, decay: Duration) -> (f64, f64) {
    let age = stamp(now).wrapping_sub(word as u32);
    // Another worker may have been ahead of our look at the clock.
    let age = if age > u32::MAX / 2 { 0.0 } else { f64::from(age) };
    let kept = (-age / (decay.as_secs_f64() * 1e3).max(1.0)).exp();
    (f64::from(f32::from_bits((word >> 32) as u32)) * kept, kept)
}

impl Latency {
    /// Takes an answer into account.
    pub fn observe(&self, took: Duration, now: Duration, decay: Duration) {
        let micros = took.as_secs_f64() * 1e6;
        let next = |word: u64| {
            if word == 0 {
                return pack(micros, now);
            }
            let (left, kept) = decayed(word, now, decay);
            // A peak is believed at once; what is faster, the more the longer nothing was heard.
            pack(if micros > left { micros } else { left * kept + micros * (1.0 - kept) }, now)
        };
        let _ = self.0.fetch_update(Relaxed, Relaxed, |word| Some(next(word)));
    }

    /// In milliseconds; `None` without a single answer.
    pub fn estimate(&self, now: Duration, decay: Duration) -> Option<f64> {
        match self.0.load(Relaxed) {
            0 => None,
            word => Some(decayed(word, now, decay).0 / 1e3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(10);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn peaks_count_at_once_and_wear_off() {
        let latency = Latency::default();
        assert_eq!(latency.estimate(ms(0), DECAY), None);
        latency.observe(ms(5), ms(1), DECAY);
        assert!((latency.estimate(ms(1), DECAY).unwrap() - 5.0).abs() < 1e-3);
        latency.observe(ms(500), ms(2), DECAY);
        assert!((latency.estimate(ms(2), DECAY).unwrap() - 500.0).abs() < 1e-3, "a peak");
        latency.observe(ms(5), ms(3), DECAY);
        assert!(latency.estimate(ms(3), DECAY).unwrap() > 490.0, "one fast answer changes little");
        let later = latency.estimate(ms(10_003), DECAY).unwrap();
        assert!((later - 500.0 / std::f64::consts::E).abs() < 2.0, "one time constant later: {later}");
        for i in 0..600 {
            latency.observe(ms(5), ms(10_003 + i * 100), DECAY);
        }
        let recovered = latency.estimate(ms(70_000), DECAY).unwrap();
        assert!(recovered < 6.0, "many fast answers do: {recovered}");
    }

    #[test]
    fn clocks_that_disagree_and_wrap_do_no_harm() {
        let latency = Latency::default();
        latency.observe(ms(7), ms(100), DECAY);
        assert!((latency.estimate(ms(90), DECAY).unwrap() - 7.0).abs() < 1e-3, "from before the last answer");
        let near = ms(u64::from(u32::MAX) - 5);
        latency.observe(ms(900), near, DECAY);
        let after = latency.estimate(near + ms(20), DECAY).unwrap();
        assert!((after - 900.0).abs() < 3.0, "49 days: {after}");
        latency.observe(Duration::MAX, near, DECAY);
        assert!(latency.estimate(near, DECAY).unwrap().is_finite());
    }

    #[test]
    fn estimates_stay_between_none_and_the_longest() {
        let mut random = super::super::SplitMix(1);
        for _ in 0..200 {
            let (latency, mut now, mut longest) = (Latency::default(), Duration::ZERO, Duration::ZERO);
            for _ in 0..50 {
                now += ms(random.next() % 3_000);
                let took = ms(1 + random.next() % 5_000);
                longest = longest.max(took);
                latency.observe(took, now, DECAY);
                let estimate = latency.estimate(now, DECAY).unwrap();
                assert!(estimate > 0.0 && estimate <= longest.as_secs_f64() * 1e3 + 1.0);
                assert!(latency.estimate(now + ms(50), DECAY).unwrap() <= estimate);
            }
        }
    }
}
