//! Whether what should be flat is flat: a line fitted through what was seen after the warm-up.

use super::watch::{Look, Seen};
use crate::result::stats;

/// The first part of a run, which is for finding the level, and the least of it in seconds.
const WARM_UP: (f64, f64) = (0.1, 120.0);
/// A run of less seconds has not found its level: it is shown how flat it was, and no more.
const SHORTEST: f64 = 900.0;

/// What may not grow, and how much of noise it has: as part of its mean, or absolute where that is more.
struct Flat {
    what: &'static str,
    of: fn(&Look) -> f64,
    part: f64,
    least: f64,
}

const FLAT: &[Flat] = &[
    Flat { what: "RSS kB", of: |look| look.rss_kb as f64, part: 0.05, least: 1024.0 },
    Flat { what: "descriptors", of: |look| look.fds as f64, part: 0.05, least: 8.0 },
    Flat { what: "threads", of: |look| look.threads as f64, part: 0.0, least: 1.0 },
    Flat { what: "series", of: |look| look.series as f64, part: 0.05, least: 8.0 },
];

/// One line of the result.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) text: String,
    pub(super) good: bool,
}

/// Every process, by everything that may not grow.
pub(super) fn flatness(seen: &Seen) -> Vec<Judged> {
    let of_process = |(name, looks): &(String, Vec<Look>)| {
        let end = looks.last().map_or(0.0, |look| look.seconds);
        let warm_up = (end * WARM_UP.0).max(WARM_UP.1.min(end / 2.0));
        let settled: Vec<&Look> = looks.iter().filter(|look| look.seconds >= warm_up).collect();
        FLAT.iter().map(|flat| judge(name, flat, &settled, end)).collect::<Vec<_>>()
    };
    seen.looks.iter().flat_map(of_process).collect()
}

fn judge(name: &str, flat: &Flat, looks: &[&Look], end: f64) -> Judged {
    let points: Vec<(f64, f64)> = looks.iter().map(|look| (look.seconds, (flat.of)(look))).collect();
    let values = points.iter().map(|(_, value)| *value);
    let (low, high) = values.clone().fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
    let mean = values.sum::<f64>() / points.len().max(1) as f64;
    let length = points.last().zip(points.first()).map_or(0.0, |(last, first)| last.0 - first.0);
    let slope = stats::slope(&points);
    let (rise, most) = (slope * length, (flat.part * mean).max(flat.least));
    let short = end < SHORTEST;
    let good = points.len() >= 3 && low > 0.0 && (rise <= most || short);
    let text = format!(
        "{name:8} {:12} mean {mean:>9.0}  range {low:.0}..{high:.0}  rise of the fitted line {rise:+.1} (at most {most:.0}){}",
        flat.what,
        if short { ", too short a run to be judged" } else { "" },
    );
    Judged { text, good }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(rss: impl Fn(f64) -> f64) -> Seen {
        let look = |n: u32| {
            let seconds = f64::from(n) * 10.0;
            Look { seconds, rss_kb: rss(seconds) as u64, fds: 100, threads: 4, series: 50, ..Look::default() }
        };
        Seen { looks: vec![("client".into(), (0..361).map(look).collect())], ..Seen::default() }
    }

    fn good(seen: &Seen) -> bool {
        flatness(seen).iter().all(|judged| judged.good)
    }

    #[test]
    fn what_finds_its_level_is_flat_and_what_leaks_is_not() {
        assert!(good(&seen(|t| if t < 300.0 { 20_000.0 + t * 30.0 } else { 30_000.0 + (t % 70.0) * 20.0 })));
        assert!(!good(&seen(|t| 30_000.0 + t)), "a kilobyte a second");
        assert!(!good(&seen(|_| 0.0)), "a process that is gone");
        let mut short = seen(|t| 30_000.0 + t);
        short.looks[0].1.truncate(20);
        assert!(good(&short), "three minutes tell nothing of an hour");
        assert!(!good(&Seen { looks: vec![("client".into(), Vec::new())], ..Seen::default() }));
    }
}
