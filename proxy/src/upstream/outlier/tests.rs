//! Envoy's rules, one by one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::*;
use crate::ir::outlier::{Consecutive, OutlierDetection};

fn config() -> OutlierDetection {
    OutlierDetection { max_ejection_percent: 50, ..OutlierDetection::default() }
}

fn detector(hosts: u32) -> (Detector<u32>, Arc<OutlierStats>) {
    let stats = Arc::<OutlierStats>::default();
    let mut detector = Detector::new(stats.clone());
    detector.sync(&(0..hosts).collect::<Vec<_>>());
    (detector, stats)
}

fn stat(stats: &OutlierStats, name: &str) -> u64 {
    let mut found = None;
    stats.visit(&mut |n, _, value| {
        if n.strip_prefix("outlier_detection.") == Some(name) {
            found = Some(value);
        }
    });
    found.unwrap()
}

/// Every chance is taken, no jitter is drawn.
fn zero() -> u64 {
    0
}

const FIVE: Kind = Kind::Consecutive5xx;

#[test]
fn streaks_are_raised_once_and_broken_by_a_success() {
    let (monitor, config) = (Monitor::default(), config());
    for _ in 0..4 {
        assert!(!monitor.record(&config, Outcome::Response(500)));
    }
    assert!(!monitor.record(&config, Outcome::Response(404)), "not the host's failure");
    for _ in 0..4 {
        assert!(!monitor.record(&config, Outcome::Response(503)));
    }
    assert!(monitor.record(&config, Outcome::Failed), "a failed connect is a 503");
    assert!(!monitor.record(&config, Outcome::TimedOut), "raised already");
    let raised = monitor.take_raised();
    assert_eq!(raised.streaks().collect::<Vec<_>>(), [Kind::ConsecutiveGatewayFailure, FIVE]);
    assert_eq!(monitor.take_raised().streaks().count(), 0);
    assert_eq!(monitor.take_windows(), [Window { total: 11, success: 1 }, Window::default()]);
    assert_eq!(monitor.take_windows(), [Window::default(); 2]);
}

#[test]
fn other_server_errors_break_a_streak_of_gateway_failures() {
    let monitor = Monitor::default();
    let config = OutlierDetection {
        consecutive_5xx: Consecutive { threshold: 0, enforcing: 100 },
        consecutive_gateway_failure: Consecutive { threshold: 2, enforcing: 100 },
        ..config()
    };
    for status in [502, 500, 504, 501, 503] {
        assert!(!monitor.record(&config, Outcome::Response(status)), "{status}");
    }
    assert!(monitor.record(&config, Outcome::Response(502)));
    assert_eq!(monitor.take_raised().streaks().collect::<Vec<_>>(), [Kind::ConsecutiveGatewayFailure]);
    monitor.reset(Kind::ConsecutiveGatewayFailure);
    assert!(!monitor.record(&config, Outcome::Response(502)));
    assert!(monitor.record(&config, Outcome::Response(502)));
}

#[test]
fn local_failures_are_told_apart_when_asked_for() {
    let monitor = Monitor::default();
    let config = OutlierDetection {
        split_local_origin: true,
        consecutive_5xx: Consecutive { threshold: 2, enforcing: 100 },
        consecutive_local_origin_failure: Consecutive { threshold: 3, enforcing: 100 },
        ..config()
    };
    assert!(!monitor.record(&config, Outcome::Failed));
    assert!(!monitor.record(&config, Outcome::TimedOut));
    assert!(!monitor.record(&config, Outcome::Response(500)), "reached: the local streak is over, another begins");
    assert!(!monitor.record(&config, Outcome::Failed));
    assert!(!monitor.record(&config, Outcome::Failed));
    assert!(monitor.record(&config, Outcome::Failed));
    assert_eq!(monitor.take_raised().streaks().collect::<Vec<_>>(), [Kind::ConsecutiveLocalOriginFailure]);
    assert!(monitor.record(&config, Outcome::Response(503)));
    assert_eq!(monitor.take_raised().streaks().collect::<Vec<_>>(), [FIVE]);
    assert_eq!(monitor.take_windows(), [Window { total: 2, success: 0 }, Window { total: 7, success: 2 }]);
}

#[test]
fn answers_that_keep_breaking_off_are_a_streak_although_their_heads_are_good() {
    let config = config();
    let split = OutlierDetection {
        split_local_origin: true,
        consecutive_local_origin_failure: Consecutive { threshold: 5, enforcing: 100 },
        ..config.clone()
    };
    for (config, kind) in [(&config, FIVE), (&split, Kind::ConsecutiveLocalOriginFailure)] {
        let monitor = Monitor::default();
        let breaks = || {
            assert!(!monitor.record(config, Outcome::Response(200)));
            monitor.record(config, Outcome::BrokeOff)
        };
        assert!((0..4).all(|_| !breaks()));
        monitor.completed();
        assert!((0..4).all(|_| !breaks()), "a whole answer came in between");
        assert!(breaks());
        assert_eq!(monitor.take_raised().streaks().collect::<Vec<_>>(), [kind]);
        monitor.reset(kind);
        assert!((0..4).all(|_| !breaks()));
        assert!(breaks());
    }
}

#[test]
fn no_more_than_the_percentage_is_ejected_but_one_may_always_be() {
    let now = Instant::now();
    let (mut three, stats) = detector(3);
    assert_eq!(three.streak(&config(), 0, FIVE, now, &mut zero), Some(Change::Eject(0, FIVE)));
    assert_eq!(three.streak(&config(), 0, FIVE, now, &mut zero), None, "it is out already");
    assert_eq!(three.streak(&config(), 1, FIVE, now, &mut zero), None, "two of three are more than half");
    assert_eq!(three.streak(&config(), 7, FIVE, now, &mut zero), None, "not of this cluster");
    assert_eq!(stat(&stats, "ejections_active"), 1);
    assert_eq!(stat(&stats, "ejections_overflow"), 1);
    assert_eq!(stat(&stats, "ejections_detected_consecutive_5xx"), 2);
    assert_eq!(stat(&stats, "ejections_enforced_consecutive_5xx"), 1);
    assert_eq!(stat(&stats, "ejections_enforced_total"), 1);
    // Ten percent, the default, are none of three.
    let strict = OutlierDetection::default();
    let (mut three, stats) = detector(3);
    assert_eq!(three.streak(&strict, 0, FIVE, now, &mut zero), None);
    assert_eq!(stat(&stats, "ejections_overflow"), 1);
    let always = OutlierDetection { always_eject_one_host: true, ..strict };
    assert_eq!(three.streak(&always, 0, FIVE, now, &mut zero), Some(Change::Eject(0, FIVE)));
    assert_eq!(three.streak(&always, 1, FIVE, now, &mut zero), None);
    three.sync(&[1, 2]);
    assert_eq!(stat(&stats, "ejections_active"), 0, "what discovery took away is not out");
    assert_eq!(three.streak(&always, 1, FIVE, now, &mut zero), Some(Change::Eject(1, FIVE)));
}

#[test]
fn enforcement_is_a_matter_of_chance() {
    let now = Instant::now();
    let (mut hosts, stats) = detector(10);
    let config = OutlierDetection { consecutive_5xx: Consecutive { threshold: 5, enforcing: 30 }, ..config() };
    assert_eq!(hosts.streak(&config, 0, FIVE, now, &mut || 30), None);
    assert!(hosts.streak(&config, 0, FIVE, now, &mut || 129).is_some());
    assert_eq!(stat(&stats, "ejections_detected_consecutive_5xx"), 2);
    assert_eq!(stat(&stats, "ejections_enforced_total"), 1);
}

/// Runs the intervals of `seconds` and says when (in seconds from `start`) something happened.
fn intervals(
    hosts: &mut Detector<u32>,
    config: &OutlierDetection,
    start: Instant,
    seconds: std::ops::RangeInclusive<u64>,
) -> Vec<(u64, Change<u32>)> {
    let mut all = Vec::new();
    for second in seconds {
        let (changes, _) = hosts.interval(config, &[], start + Duration::from_secs(second), &mut zero);
        all.extend(changes.into_iter().map(|c| (second, c)));
    }
    all
}

#[test]
fn each_ejection_lasts_longer_up_to_the_maximum_and_good_times_forget() {
    let start = Instant::now();
    let config = OutlierDetection {
        base_ejection_time: Duration::from_secs(10),
        max_ejection_time: Duration::from_secs(25),
        ..config()
    };
    let (mut hosts, _) = detector(4);
    let mut at = 0;
    for lasts in [10, 20, 25, 25] {
        let now = start + Duration::from_secs(at);
        // The host comes back and fails its first request but one.
        if hosts.is_out(0) {
            let [.., (_, Change::HalfOpen(0, round))] = intervals(&mut hosts, &config, start, at..=at)[..] else {
                panic!("half-open at {at}")
            };
            assert_eq!(hosts.probed(&config, 0, (round, 1, 1), now, &mut zero), None);
            assert_eq!(hosts.probed(&config, 0, (round, 0, 1), now, &mut zero), Some(Change::Eject(0, FIVE)));
        } else {
            hosts.streak(&config, 0, FIVE, now, &mut zero).unwrap();
        }
        assert_eq!(intervals(&mut hosts, &config, start, at + 1..=at + lasts - 1), [], "{lasts}");
        at += lasts;
    }
    let [(_, Change::HalfOpen(0, round))] = intervals(&mut hosts, &config, start, at..=at)[..] else { panic!() };
    let now = start + Duration::from_secs(at);
    assert_eq!(hosts.probed(&config, 0, (round, 2, 1), now, &mut zero), None);
    assert_eq!(hosts.probed(&config, 0, (round, 1, 0), now, &mut zero), Some(Change::Return(0)));
    assert!(!hosts.is_out(0));
    // As many intervals as it was ejected too often.
    assert_eq!(intervals(&mut hosts, &config, start, at + 1..=at + 4), []);
    let now = start + Duration::from_secs(at + 4);
    hosts.streak(&config, 0, FIVE, now, &mut zero).unwrap();
    let changes = intervals(&mut hosts, &config, start, at + 5..=at + 14);
    assert!(matches!(changes[..], [(when, Change::HalfOpen(0, _))] if when == at + 14), "{changes:?}");
}

#[test]
fn jitter_prolongs_an_ejection() {
    let start = Instant::now();
    let config = OutlierDetection { max_ejection_time_jitter: Duration::from_secs(3), ..config() };
    let (mut hosts, _) = detector(4);
    let mut draws = [0u64, 2000].into_iter();
    hosts.streak(&config, 0, FIVE, start, &mut || draws.next().unwrap()).unwrap();
    let changes = intervals(&mut hosts, &config, start, 1..=32);
    assert!(matches!(changes[..], [(32, Change::HalfOpen(0, _))]), "{changes:?}");
}

#[test]
fn a_half_open_host_nobody_asks_for_returns() {
    let start = Instant::now();
    let (mut hosts, stats) = detector(4);
    hosts.streak(&config(), 0, FIVE, start, &mut zero).unwrap();
    let changes = intervals(&mut hosts, &config(), start, 1..=100);
    assert!(matches!(changes[..], [(30, Change::HalfOpen(0, _)), (60, Change::Return(0))]), "{changes:?}");
    assert_eq!((stat(&stats, "ejections_active"), stat(&stats, "hosts_half_open")), (0, 0));
}

#[test]
fn answers_of_another_round_do_not_count() {
    let start = Instant::now();
    let (mut hosts, _) = detector(4);
    hosts.streak(&config(), 0, FIVE, start, &mut zero).unwrap();
    let [(_, Change::HalfOpen(_, round))] = intervals(&mut hosts, &config(), start, 30..=30)[..] else { panic!() };
    assert_eq!(hosts.probed(&config(), 0, (round + 1, 3, 0), start, &mut zero), None);
    assert_eq!(hosts.probed(&config(), 0, (round, 3, 0), start, &mut zero), Some(Change::Return(0)));
    let probes = Probes::default();
    assert_eq!(probes.take(), None);
    probes.open(5, 2);
    assert_eq!([probes.take(), probes.take(), probes.take()], [Some(5), Some(5), None]);
    probes.give_back(4);
    assert_eq!(probes.take(), None, "a slot of another round");
    probes.give_back(5);
    assert_eq!(probes.take(), Some(5));
    assert!(probes.answered(5, true) && probes.answered(5, false) && !probes.answered(4, true));
    assert_eq!(probes.take_answers(), (5, 1, 1));
    assert_eq!(probes.take_answers(), (5, 0, 0));
    probes.close();
    probes.give_back(5);
    assert_eq!(probes.take(), None, "the round is over");
}

#[test]
fn a_passed_active_check_returns_a_host_unless_told_otherwise() {
    let now = Instant::now();
    let (mut hosts, _) = detector(4);
    hosts.streak(&config(), 0, FIVE, now, &mut zero).unwrap();
    let stubborn = OutlierDetection { active_check_unejects: false, ..config() };
    assert_eq!(hosts.passed_check(&stubborn, 0), None);
    assert_eq!(hosts.passed_check(&config(), 0), Some(Change::Return(0)));
    assert_eq!(hosts.passed_check(&config(), 0), None);
    hosts.streak(&config(), 1, FIVE, now, &mut zero).unwrap();
    assert_eq!(hosts.end(), [Change::Return(1)]);
}

fn windows(rates: &[(u32, u32)]) -> Vec<(u32, [Window; 2])> {
    let window = |(total, success): &(u32, u32)| [Window { total: *total, success: *success }, Window::default()];
    (0..).zip(rates.iter().map(window)).collect()
}

#[test]
fn hosts_whose_success_rate_falls_out_of_line_are_ejected() {
    let now = Instant::now();
    let (mut hosts, stats) = detector(6);
    // The last has too few requests to count, the first is the outlier: mean 90, deviation 20, threshold 52.
    let seen = windows(&[(100, 50), (200, 200), (100, 100), (100, 100), (100, 100), (99, 0)]);
    let (changes, [rates, local]) = hosts.interval(&config(), &seen, now, &mut zero);
    assert_eq!(changes, [Change::Eject(0, Kind::SuccessRate)]);
    assert_eq!(stats.rates(0), (90.0, 52.0));
    assert_eq!(stats.rates(1), (-1.0, -1.0));
    assert_eq!(rates[0], (0, 50.0));
    assert!(rates.contains(&(5, 0.0)), "enough for the failure percentage");
    assert_eq!(local, []);
    let (changes, _) = hosts.interval(&config(), &seen, now, &mut zero);
    assert_eq!(changes, [], "four hosts are too few");
    assert_eq!(stats.rates(0), (-1.0, -1.0));
}

#[test]
fn hosts_that_fail_too_large_a_share_are_ejected() {
    let now = Instant::now();
    let mut config = config();
    config.failure_percentage.enforcing = 100;
    config.failure_percentage.minimum_hosts = 3;
    let (mut hosts, stats) = detector(4);
    let seen = windows(&[(50, 8), (50, 7), (49, 0), (50, 50)]);
    let (changes, _) = hosts.interval(&config, &seen, now, &mut zero);
    assert_eq!(changes, [Change::Eject(1, Kind::FailurePercentage)], "86 of 100, not 84");
    assert_eq!(stat(&stats, "ejections_enforced_failure_percentage"), 1);
    let (changes, _) = hosts.interval(&config, &windows(&[(50, 0), (0, 0), (50, 50), (49, 0)]), now, &mut zero);
    assert_eq!(changes, [], "too few hosts");
}
