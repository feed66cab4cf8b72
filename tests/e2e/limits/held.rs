//! What a bucket lets pass while more is asked of it than it has.
//!
//! Pure. When a decision was made is known only as between question and answer, so everything is counted twice: what
//! was surely decided within a time, and what may have been. At a refusal less than one request is left in the bucket,
//! so between two of them exactly as much passes as came, give or take that one.

use std::time::{Duration, Instant};

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) sent: Instant,
    pub(crate) answered: Instant,
    /// `None` without an answer.
    pub(crate) status: Option<u16>,
}

/// A bucket that is full at first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    pub(crate) rate: f64,
    pub(crate) burst: f64,
}

/// Of what passed.
const ACCURACY: f64 = 0.01;

impl Bucket {
    /// One of so many that make up this one.
    pub(crate) fn share(self, of: u32) -> Self {
        Self { rate: self.rate / f64::from(of), burst: self.burst / f64::from(of) }
    }

    /// Says what is wrong with what came of these requests, or what is right; nothing where they do not tell: half of
    /// `time` is the least to judge by.
    pub(crate) fn judge(self, all: &[Asked], time: Duration) -> Result<Option<String>, String> {
        let Self { rate, burst } = self;
        let with = |status: u16| all.iter().filter(move |asked| asked.status == Some(status));
        if with(200).count() + with(429).count() < all.len() {
            return Err("neither admitted nor refused".to_owned());
        }
        let mut refused: Vec<&Asked> = with(429).collect();
        refused.sort_by_key(|asked| asked.answered);
        let (begin, end) = (all.iter().map(|a| a.sent).min(), all.iter().map(|a| a.answered).max());
        let (Some(begin), Some(end), Some(after)) = (begin, end, refused.first()) else {
            return Ok(None);
        };
        let admitted = with(200).count();
        let most = burst + rate * seconds(begin, end);
        if admitted as f64 > most * (1.0 + ACCURACY) {
            return Err(format!("{admitted} admitted, {most:.1} at most with the burst"));
        }

        // Any two refusals will do: those are taken of which the moment is known best.
        let doubt = |asked: &&&Asked| {
            let beside = with(200).filter(|a| a.sent < asked.answered && a.answered > asked.sent).count();
            (1000.0 * (beside as f64 + rate * seconds(asked.sent, asked.answered))) as u64
        };
        let (early, late) = (after.answered + time / 10, end - time / 10);
        let first = refused.iter().filter(|asked| asked.answered <= early).min_by_key(doubt).unwrap_or(after);
        let Some(last) = refused.iter().filter(|asked| asked.sent >= late).min_by_key(doubt) else {
            return Ok(None);
        };
        let surely = with(200).filter(|a| a.sent >= first.answered && a.answered <= last.sent).count();
        let most = rate * seconds(first.sent, last.answered);
        if surely as f64 > most * (1.0 + ACCURACY) + 1.0 {
            return Err(format!("{surely} admitted after the burst, {most:.1} at most"));
        }
        let maybe = with(200).filter(|a| a.answered >= first.sent && a.sent <= last.answered).count();
        // A bucket that is not asked for longer than it takes to fill gains nothing any more.
        let full = |pair: &[&Asked]| (seconds(pair[0].sent, pair[1].answered) - burst / rate).max(0.0);
        let lost: f64 = refused.windows(2).map(full).sum();
        let span = seconds(first.answered, last.sent) - lost;
        if span < time.as_secs_f64() / 2.0 {
            return Ok(None);
        }
        let least = rate * span;
        if (maybe as f64) < least * (1.0 - ACCURACY) - 1.0 {
            return Err(format!("{maybe} admitted after the burst, {least:.1} at least"));
        }
        Ok(Some(format!("{admitted} admitted; after the burst {surely} to {maybe} of {least:.1} to {most:.1}")))
    }
}

fn seconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64()
}

/// A bucket asked every `pause` milliseconds, with answers after `latency`; decided `decided` milliseconds after the question.
#[cfg(test)]
fn asked(bucket: Bucket, (pause, latency, decided): (u64, u64, u64), stall: std::ops::Range<u64>) -> Vec<Asked> {
    let origin = Instant::now();
    let at = |millis: u64| origin + Duration::from_millis(millis);
    let (mut tokens, mut seen) = (bucket.burst, 0);
    let mut all = Vec::new();
    for now in (0..15_000).step_by(usize::try_from(pause).unwrap()) {
        if stall.contains(&now) {
            continue;
        }
        let moment = now + decided;
        tokens = (tokens + bucket.rate * (moment - seen) as f64 / 1000.0).min(bucket.burst);
        seen = moment;
        let passes = tokens >= 1.0;
        tokens -= f64::from(u8::from(passes));
        all.push(Asked { sent: at(now), answered: at(now + latency), status: Some(if passes { 200 } else { 429 }) });
    }
    all
}

#[test]
fn an_exact_bucket_is_found_exact_and_others_are_not() {
    const LIMIT: Bucket = Bucket { rate: 20.0, burst: 40.0 };
    let judge = |all: &[Asked]| LIMIT.judge(all, Duration::from_secs(10));
    for timing in [(5, 3, 1), (7, 90, 0), (7, 90, 90), (20, 40, 20)] {
        judge(&asked(LIMIT, timing, 0..0)).unwrap().unwrap();
        // Shorter than the bucket takes to fill, and longer.
        judge(&asked(LIMIT, timing, 8000..9500)).unwrap().unwrap();
        judge(&asked(LIMIT, timing, 8000..10_500)).unwrap().unwrap();
        for (rate, burst) in [(21.0, 40.0), (19.0, 40.0), (20.0, 47.0), (40.0, 40.0), (10.0, 40.0)] {
            let wrong = asked(Bucket { rate, burst }, timing, 0..0);
            assert!(judge(&wrong).is_err(), "{rate}/s and {burst} with {timing:?}: {:?}", judge(&wrong));
        }
    }
    for rate in [20.5, 19.5] {
        assert!(judge(&asked(Bucket { rate, ..LIMIT }, (5, 3, 1), 0..0)).is_err(), "{rate}/s");
    }
    let idle = asked(LIMIT, (60, 3, 1), 0..0);
    assert_eq!(judge(&idle), Ok(None), "less is asked than there is");
    assert_eq!(judge(&asked(LIMIT, (5, 3, 1), 1000..13_500)), Ok(None), "a long stall");
    let mut lost = asked(LIMIT, (5, 3, 1), 0..0);
    lost[7].status = None;
    assert!(judge(&lost).is_err());
}
