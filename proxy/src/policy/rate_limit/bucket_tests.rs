use std::time::Duration;

use super::bucket::Bucket;
use crate::ir::rate_limit::TokenBucket;

pub(super) fn config(max: u32, per_fill: u32, millis: u64) -> TokenBucket {
    TokenBucket { max_tokens: max, tokens_per_fill: per_fill, fill_interval: Duration::from_millis(millis) }
}

fn bucket(max: u32, per_fill: u32, millis: u64) -> Bucket {
    Bucket::new(&config(max, per_fill, millis))
}

#[test]
fn a_bucket_is_full_at_first_and_fills_all_the_time() {
    let bucket = bucket(3, 2, 1000);
    assert_eq!((bucket.max(), bucket.remaining(0.0)), (3, 3));
    let taken: Vec<bool> = (0..5).map(|_| bucket.take(10.0, 1.0, 1)).collect();
    assert_eq!(taken, [true, true, true, false, false]);
    // Two a second: one every half second, not both at its end.
    assert!(!bucket.take(10.499, 1.0, 1));
    assert!(bucket.take(10.501, 1.0, 1));
    assert!(!bucket.take(10.9, 1.0, 1));
    assert_eq!(bucket.remaining(11.01), 1);
    assert_eq!(bucket.remaining(1000.0), 3, "never more than fits");
}

#[test]
fn who_is_refused_pays_nothing() {
    let bucket = bucket(1, 1, 1000);
    assert!(bucket.take(0.0, 1.0, 1));
    for i in 0..1000 {
        assert!(!bucket.take(f64::from(i) / 1001.0, 1.0, 1));
    }
    assert!(bucket.take(1.0, 1.0, 1));
}

#[test]
fn the_wait_is_until_the_next_token() {
    let bucket = bucket(2, 1, 2000);
    assert_eq!(bucket.wait(0.0, 1.0), 0.0);
    assert!(bucket.take(0.0, 2.0, 1));
    assert!((bucket.wait(0.5, 1.0) - 1.5).abs() < 1e-9);
    assert!((bucket.wait(0.5, 2.0) - 3.5).abs() < 1e-9);
    assert!((bucket.wait(0.5, 3.0) - 5.5).abs() < 1e-9, "more than fits");
}

#[test]
fn several_hits_and_hits_given_back() {
    let bucket = bucket(10, 1, 1000);
    assert!(bucket.take(0.0, 8.0, 1));
    assert!(!bucket.take(0.0, 3.0, 1));
    bucket.give(0.0, 5.0);
    assert_eq!(bucket.remaining(0.0), 7);
    bucket.give(0.0, 50.0);
    assert_eq!(bucket.remaining(0.0), 10);
    assert!(!bucket.take(100.0, 11.0, 1), "more than fits");
    assert!(bucket.take(100.0, 0.0, 1));
}

#[test]
fn nothing_comes_out_of_a_bucket_that_holds_nothing() {
    let bucket = bucket(0, 5, 1000);
    assert!(!bucket.take(100.0, 1.0, 1));
    assert!(!bucket.take(100.0, 1.0, 7));
    assert_eq!(bucket.remaining(100.0), 0);
}

#[test]
fn proxies_that_share_have_the_rate_together() {
    for (max, proxies) in [(10, 1), (10, 3), (1, 4), (2, 7)] {
        let buckets: Vec<Bucket> = (0..proxies).map(|_| bucket(max, 100, 1000)).collect();
        let mut admitted = 0;
        for step in 0..100_000 {
            let now = f64::from(step) / 10_000.0;
            admitted += buckets.iter().filter(|b| b.take(now, 1.0, proxies)).count();
        }
        // Ten seconds, and what was there at first: at least one for each.
        let most = 1000 + max.max(proxies) as usize;
        assert!((most - 20..=most + 1).contains(&admitted), "{max} {proxies}: {admitted}");
    }
}

/// What is taken from one bucket by any number of threads is what one thread would have got.
#[test]
fn exact_over_threads() {
    for workers in [1, 2, 4] {
        let bucket = bucket(50, 1000, 1000);
        let admitted: usize = std::thread::scope(|scope| {
            let worker = |offset: u32| {
                let bucket = &bucket;
                // Simulated: each worker's clock goes from 0 to 10 s, all tread on each other's toes.
                move || (0..200_000).filter(|i| bucket.take(f64::from(i * 4 + offset) / 80_000.0, 1.0, 1)).count()
            };
            let threads: Vec<_> = (0..workers).map(|offset| scope.spawn(worker(offset))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert!((9_950..=10_051).contains(&admitted), "{workers} workers: {admitted}");
    }
}

/// Ten seconds of two workers at four times the rate: within one per cent of it, and the burst.
#[test]
fn within_a_per_cent_over_ten_seconds() {
    for (per_fill, millis) in [(100, 1000_u32), (5, 50), (1000, 1000), (10, 50), (333, 700)] {
        let rate = f64::from(per_fill) * 1000.0 / f64::from(millis);
        let bucket = bucket(per_fill, per_fill, u64::from(millis));
        let (mut admitted, mut now) = (0u32, 0.0);
        let mut random = fastrand::Rng::with_seed(7);
        while now < 10.0 {
            // Two workers whose clocks were read a little apart.
            for _ in 0..2 {
                admitted += u32::from(bucket.take(now - random.f64() * 1e-6, 1.0, 1));
            }
            now += random.f64() / rate;
        }
        let expected = rate * 10.0 + f64::from(per_fill);
        assert!((f64::from(admitted) - expected).abs() <= expected / 100.0 + 1.0, "{admitted} of {expected}");
    }
}
