use std::{sync::Barrier, thread, time::Duration};

use super::*;

fn admission(limit: u32, enforced: bool) -> Arc<Admission> {
    let config = Concurrency {
        enforced,
        status: http::StatusCode::SERVICE_UNAVAILABLE,
        percentile: 500_000,
        max_limit: limit,
        min_limit: limit,
        update_interval: Duration::from_millis(100),
        measurement_interval: None,
        fixed: Some(Duration::from_millis(1)),
        request_count: 50,
        jitter: 0,
        min_concurrency: limit,
        buffer: 0,
    };
    Arc::new(Admission::new(Arc::new(config), Arc::default(), Instant::now()))
}

#[test]
fn there_are_never_more_inside_than_the_limit_says() {
    let admission = admission(5, true);
    let most = AtomicU32::new(0);
    let barrier = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                barrier.wait();
                for _ in 0..2_000 {
                    let held: Vec<_> = (0..3).filter_map(|_| admission.enter(Instant::now())).collect();
                    most.fetch_max(admission.inside.load(Relaxed), Relaxed);
                    drop(held);
                }
            });
        }
    });
    assert_eq!(admission.inside.load(Relaxed), 0, "every place was given back");
    assert!((1..=5).contains(&most.load(Relaxed)), "{most:?}");
}

#[test]
fn a_limit_that_is_watched_turns_nobody_away() {
    let watched = admission(1, false);
    let all: Vec<_> = (0..10).map(|_| watched.enter(Instant::now()).unwrap()).collect();
    assert_eq!(watched.stats.local().rq_blocked.get(), 0);
    drop(all);
    let enforced = admission(1, true);
    let first = enforced.enter(Instant::now()).unwrap();
    assert!(enforced.enter(Instant::now()).is_none());
    assert_eq!(enforced.stats.local().rq_blocked.get(), 1);
    first.answered(Instant::now(), 0);
    assert!(enforced.enter(Instant::now()).is_some());
    assert_eq!(enforced.stats.shared().concurrency_limit.get(), 1);
}
