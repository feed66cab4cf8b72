use std::time::Duration;

use super::rate::{Algorithm, Ask, Cell, Hits, Rate, Unit, Verdict, decide};

const SECOND: u64 = 1_000_000;
/// Not at the begin of any window.
const START: u64 = 1_700_000_000 * SECOND + 345_678;

fn rate(requests: u32, unit: Unit, algorithm: Algorithm, burst: u32) -> Rate {
    Rate { requests, unit, burst, algorithm }
}

fn ask(rate: Rate, hits: Hits) -> Ask {
    Ask { key: "k".into(), rate, hits, enforced: true }
}

/// One limit alone over time.
struct One {
    rate: Rate,
    cells: [Option<Cell>; 1],
}

impl One {
    fn new(rate: Rate) -> Self {
        Self { rate, cells: [None] }
    }

    fn hits(&mut self, hits: Hits, now: u64) -> Verdict {
        decide(&[ask(self.rate, hits)], &mut self.cells, now)[0]
    }

    fn admits(&mut self, now: u64) -> bool {
        !self.hits(Hits::Take(1), now).over
    }
}

#[test]
fn a_window_admits_exactly_its_limit() {
    let mut one = One::new(rate(5, Unit::Second, Algorithm::FixedWindow, 0));
    let window = START - START % SECOND;
    for second in 0..4 {
        let begin = window + second * SECOND;
        let admitted = (0..100).filter(|n| one.admits(begin + n * 10_000)).count();
        assert_eq!(admitted, 5, "second {second}");
    }
}

#[test]
fn a_window_tells_what_is_left_and_until_when() {
    let mut one = One::new(rate(3, Unit::Minute, Algorithm::FixedWindow, 0));
    let minute = START - START % (60 * SECOND);
    let verdict = one.hits(Hits::Take(1), minute + 15 * SECOND);
    assert_eq!(verdict, Verdict { over: false, remaining: 2, reset: Duration::from_secs(45) });
    one.hits(Hits::Take(2), minute + 16 * SECOND);
    let verdict = one.hits(Hits::Take(1), minute + 20 * SECOND);
    assert_eq!(verdict, Verdict { over: true, remaining: 0, reset: Duration::from_secs(40) });
    assert!(one.admits(minute + 60 * SECOND));
}

#[test]
fn gcra_admits_the_burst_and_then_evenly() {
    for (requests, burst) in [(100, 1), (100, 7), (7, 7), (3, 10), (1000, 50)] {
        let mut one = One::new(rate(requests, Unit::Second, Algorithm::Gcra, burst));
        // Ten seconds, asked every 100 microseconds.
        let admitted = (0..=100_000).filter(|n| one.admits(START + n * 100)).count() as u64;
        assert_eq!(admitted, u64::from(burst) + 10 * u64::from(requests), "{requests} burst {burst}");
    }
}

#[test]
fn gcra_says_when_to_come_back() {
    let mut one = One::new(rate(10, Unit::Second, Algorithm::Gcra, 2));
    assert_eq!(
        one.hits(Hits::Take(2), START),
        Verdict { over: false, remaining: 0, reset: Duration::from_millis(200) }
    );
    let refused = one.hits(Hits::Take(1), START + 30_000);
    assert_eq!(refused, Verdict { over: true, remaining: 0, reset: Duration::from_millis(70) });
    assert!(one.hits(Hits::Take(1), START + 99_999).over);
    assert!(one.admits(START + 100_000));
}

#[test]
fn nothing_per_unit_is_nothing() {
    for algorithm in [Algorithm::FixedWindow, Algorithm::Gcra] {
        let mut one = One::new(rate(0, Unit::Second, algorithm, 5));
        assert!((0..50).all(|n| !one.admits(START + n * SECOND)), "{algorithm:?}");
    }
}

#[test]
fn several_hits_that_do_not_fit_take_what_is_left() {
    for algorithm in [Algorithm::FixedWindow, Algorithm::Gcra] {
        let mut one = One::new(rate(10, Unit::Day, algorithm, 10));
        assert!(!one.hits(Hits::Take(7), START).over);
        let refused = one.hits(Hits::Take(4), START);
        assert!(refused.over && refused.remaining == 0, "{algorithm:?} {refused:?}");
        assert!(one.hits(Hits::Take(1), START).over);
        // To look takes nothing, and is refused where nothing is left.
        assert!(one.hits(Hits::Take(0), START).over);
        assert!(!one.hits(Hits::Return(3), START).over);
        assert_eq!(one.hits(Hits::Take(0), START).remaining, 3, "{algorithm:?}");
        assert_eq!(one.hits(Hits::Return(50), START).remaining, 10, "{algorithm:?}");
    }
}

#[test]
fn what_one_limit_refuses_takes_nothing_from_the_others() {
    let wide = rate(10, Unit::Hour, Algorithm::Gcra, 10);
    let narrow = rate(1, Unit::Hour, Algorithm::FixedWindow, 0);
    let told = Ask { enforced: false, ..ask(rate(2, Unit::Hour, Algorithm::FixedWindow, 0), Hits::Take(1)) };
    let asks = [ask(wide, Hits::Take(1)), ask(narrow, Hits::Take(1)), told];
    let mut cells = [None; 3];
    let over: Vec<Vec<bool>> =
        (0..3).map(|n| decide(&asks, &mut cells, START + n).iter().map(|v| v.over).collect()).collect();
    assert_eq!(over, [[false, false, false], [false, true, false], [false, true, false]]);
    let left = decide(&[ask(wide, Hits::Take(0))], &mut cells[..1], START)[0].remaining;
    assert_eq!(left, 9);
}

#[test]
fn a_limit_that_only_tells_counts_like_one_that_is_enforced() {
    for algorithm in [Algorithm::FixedWindow, Algorithm::Gcra] {
        let count = |enforced| {
            let mut cells = [None];
            let asks = [Ask { enforced, ..ask(rate(9, Unit::Second, algorithm, 4), Hits::Take(1)) }];
            (0..3000).filter(|n| decide(&asks, &mut cells, START + n * 1234)[0].over).count()
        };
        assert_eq!(count(true), count(false), "{algorithm:?}");
    }
}

#[test]
fn a_clock_that_goes_back_gives_nothing_away() {
    let mut one = One::new(rate(5, Unit::Second, Algorithm::Gcra, 5));
    assert_eq!((0..10).filter(|_| one.admits(START)).count(), 5);
    assert_eq!((0..10).filter(|_| one.admits(START - 3600 * SECOND)).count(), 0);
    assert_eq!((0..10).filter(|_| one.admits(START + SECOND)).count(), 5);
}

#[test]
fn the_largest_limits_do_not_overflow() {
    for algorithm in [Algorithm::FixedWindow, Algorithm::Gcra] {
        let mut one = One::new(rate(u32::MAX, Unit::Year, algorithm, u32::MAX));
        assert!(!one.hits(Hits::Take(u32::MAX.into()), START).over);
        assert!(one.hits(Hits::Take(u64::from(u32::MAX) * 64), START).over);
        assert!(!one.hits(Hits::Return(u64::from(u32::MAX) * 64), START).over);
    }
    let mut slow = One::new(rate(1, Unit::Year, Algorithm::Gcra, u32::MAX));
    assert!(!slow.hits(Hits::Take(u32::MAX.into()), START).over);
    assert!(slow.hits(Hits::Take(1), u64::MAX).over || slow.hits(Hits::Take(1), u64::MAX).remaining > 0);
}
