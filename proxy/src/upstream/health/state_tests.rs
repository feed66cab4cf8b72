use super::*;
use crate::ir::health_check::{Probe, TcpProbe};

pub(in crate::upstream::health) fn check(probe: Probe) -> HealthCheck {
    let seconds = Duration::from_secs;
    HealthCheck {
        timeout: seconds(20),
        unhealthy_threshold: 3,
        healthy_threshold: 2,
        reuse_connection: true,
        always_log_failures: false,
        always_log_successes: false,
        pace: Pace {
            interval: seconds(10),
            initial_jitter: Duration::ZERO,
            interval_jitter: Duration::ZERO,
            interval_jitter_percent: 0,
            no_traffic_interval: seconds(60),
            no_traffic_healthy_interval: seconds(90),
            unhealthy_interval: seconds(20),
            unhealthy_edge_interval: seconds(5),
            healthy_edge_interval: seconds(3),
        },
        probe,
        alpn: None,
        transport: None,
    }
}

fn tcp() -> HealthCheck {
    check(Probe::Tcp(TcpProbe::default()))
}

const PASSED: Outcome = Outcome::Passed { degraded: false };

fn failed(fault: Fault) -> Outcome {
    Outcome::Failed { fault, reason: String::new() }
}

use Transition::{Changed, Pending, Unchanged};

#[test]
fn the_first_check_decides_at_once() {
    let mut state = State::new(false, true);
    assert_eq!(state.learn(&tcp(), &PASSED), Changed);
    assert!(state.healthy && !state.first);
    let mut state = State::new(false, true);
    assert_eq!(state.learn(&tcp(), &failed(Fault::Network)), Changed, "it is no longer pending");
    assert!(!state.healthy && !state.first);
    assert_eq!(state.learn(&tcp(), &PASSED), Pending);
    assert_eq!(state.learn(&tcp(), &failed(Fault::Network)), Unchanged);
    assert_eq!(state.learn(&tcp(), &PASSED), Pending, "in a row");
    assert_eq!(state.learn(&tcp(), &PASSED), Changed);
    assert!(state.healthy);
}

#[test]
fn an_answer_counts_at_once_and_silence_after_some() {
    for fault in [Fault::Network, Fault::Timeout, Fault::Retriable] {
        let mut state = State::new(true, false);
        assert_eq!(state.learn(&tcp(), &failed(fault)), Pending);
        assert_eq!(state.learn(&tcp(), &failed(fault)), Pending);
        assert_eq!(state.learn(&tcp(), &PASSED), Unchanged);
        assert_eq!(state.learn(&tcp(), &failed(fault)), Pending, "in a row");
        assert_eq!(state.learn(&tcp(), &failed(fault)), Pending);
        assert_eq!(state.learn(&tcp(), &failed(fault)), Changed);
        assert_eq!((state.healthy, state.timed_out), (false, fault == Fault::Timeout));
    }
    let mut state = State::new(true, false);
    assert_eq!(state.learn(&tcp(), &failed(Fault::Answer)), Changed);
    assert!(!state.healthy);
}

#[test]
fn a_degraded_host_is_healthy_and_degraded() {
    let mut state = State::new(true, false);
    let degraded = Outcome::Passed { degraded: true };
    assert_eq!(state.learn(&tcp(), &degraded), Changed);
    assert_eq!(state.learn(&tcp(), &degraded), Unchanged);
    assert!(state.healthy && state.degraded);
    assert_eq!(state.learn(&tcp(), &PASSED), Changed);
    assert!(!state.degraded);
}

#[test]
fn the_pace_follows_traffic_health_and_edges() {
    let mut pace = tcp().pace;
    let seconds = |passed, transition, traffic| wait(&pace, passed, transition, traffic, || 0).as_secs();
    assert_eq!([seconds(true, Changed, false), seconds(false, Pending, false)], [90, 60]);
    assert_eq!([seconds(true, Unchanged, true), seconds(true, Pending, true)], [10, 3]);
    assert_eq!([seconds(false, Changed, true), seconds(false, Pending, true)], [20, 5]);
    pace.interval_jitter = Duration::from_secs(1);
    pace.interval_jitter_percent = 50;
    let draws = |random: u64| wait(&pace, true, Unchanged, true, || random);
    assert_eq!(draws(4999), Duration::from_millis(10_000 + 4999 + 999));
    assert_eq!(draws(5000), Duration::from_millis(10_000));
}

#[test]
fn whatever_the_results_are_the_thresholds_hold() {
    for seed in 0..10_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let check = HealthCheck { unhealthy_threshold: rng.u32(1..5), healthy_threshold: rng.u32(1..5), ..tcp() };
        let mut state = State::new(rng.bool(), rng.bool());
        let (mut good, mut bad) = (0, 0);
        for _ in 0..40 {
            let outcome = match rng.u32(0..5) {
                0 => failed(Fault::Answer),
                1 => failed(Fault::Retriable),
                2 => failed(Fault::Network),
                _ => Outcome::Passed { degraded: rng.bool() },
            };
            let before = state;
            let transition = state.learn(&check, &outcome);
            let passed = matches!(outcome, Outcome::Passed { .. });
            (good, bad) = if passed { (good + 1, 0) } else { (0, bad + 1) };
            match (before.healthy, state.healthy) {
                (false, true) => assert!(passed && (before.first || good >= check.healthy_threshold), "seed {seed}"),
                (true, false) => assert!(
                    !passed && (bad >= check.unhealthy_threshold || outcome == failed(Fault::Answer)),
                    "seed {seed}"
                ),
                _ => {}
            }
            assert!(before.healthy == state.healthy || transition == Changed, "a change is said");
            assert!(!state.first);
        }
    }
}
