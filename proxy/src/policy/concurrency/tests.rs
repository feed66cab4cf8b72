use super::*;

fn config() -> Concurrency {
    Concurrency {
        enforced: true,
        status: http::StatusCode::SERVICE_UNAVAILABLE,
        percentile: 500_000,
        max_limit: 1000,
        min_limit: 3,
        update_interval: Duration::from_millis(100),
        measurement_interval: Some(Duration::from_secs(60)),
        fixed: None,
        request_count: 50,
        jitter: 150_000,
        min_concurrency: 3,
        buffer: 250_000,
    }
}

/// A controller, and the present moment.
struct Bench {
    gradient: Gradient,
    now: Instant,
}

impl Bench {
    fn new(config: Concurrency) -> Self {
        let now = Instant::now();
        Self { gradient: Gradient::new(Arc::new(config), now), now }
    }

    /// So many answered requests of this latency, then the time of an update.
    fn window(&mut self, count: u32, latency: Duration) {
        for _ in 0..count {
            let started = self.now;
            self.now += latency;
            self.gradient.sample(started, self.now, 0);
        }
        self.now += Duration::from_millis(100);
        self.gradient.advance(self.now);
    }
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn the_least_latency_is_measured_first_at_the_lowest_limit() {
    let mut bench = Bench::new(config());
    assert!(bench.gradient.is_measuring());
    assert_eq!((bench.gradient.limit(), bench.gradient.next()), (3, None), "it waits for samples, not for time");
    bench.window(49, 10 * MS);
    assert!(bench.gradient.is_measuring());
    bench.window(1, 10 * MS);
    assert!(!bench.gradient.is_measuring());
    let least = bench.gradient.least().as_secs_f64();
    assert!((least / 0.010 - 1.0).abs() < 0.033, "{least}");
}

#[test]
fn the_limit_grows_while_latency_is_low_and_shrinks_when_it_rises() {
    let mut bench = Bench::new(config());
    bench.window(50, 10 * MS);
    for _ in 0..30 {
        bench.window(10, 10 * MS);
    }
    let high = bench.gradient.limit();
    assert_eq!(high, 1000, "latency within the buffer lets it grow to the bound");
    bench.window(10, 40 * MS);
    let lower = bench.gradient.limit();
    // Half of it, and the headroom of a burst.
    assert_eq!(lower, 500 + 22);
    assert_eq!(bench.gradient.seen().gradient, 0.5, "however bad, it is halved at most");
    let before = lower;
    bench.now += Duration::from_secs(1);
    bench.gradient.advance(bench.now);
    assert_eq!(bench.gradient.limit(), before, "no samples, no news");
}

#[test]
fn it_is_measured_again_in_time_and_when_it_sticks_to_the_bottom() {
    let mut bench = Bench::new(config());
    bench.window(50, 10 * MS);
    bench.window(10, 10 * MS);
    let limit = bench.gradient.limit();
    bench.now += Duration::from_secs(61);
    bench.gradient.advance(bench.now);
    assert!(bench.gradient.is_measuring());
    assert_eq!(bench.gradient.limit(), 3);
    // An answer to a request of before says nothing of now.
    let earlier = bench.now - Duration::from_secs(5);
    (0..100).for_each(|_| bench.gradient.sample(earlier, bench.now, 0));
    assert!(bench.gradient.is_measuring());
    bench.window(50, 10 * MS);
    assert!(!bench.gradient.is_measuring());
    assert_eq!(bench.gradient.limit(), limit, "the limit of before is back");

    let mut low = Bench::new(Concurrency { min_concurrency: 1, min_limit: 1, max_limit: 1, ..config() });
    low.window(50, MS);
    for _ in 0..SUSPICIOUS {
        assert!(!low.gradient.is_measuring());
        low.window(10, 100 * MS);
    }
    assert!(low.gradient.is_measuring());
}

#[test]
fn a_fixed_latency_is_never_measured() {
    let fixed = Concurrency { measurement_interval: None, fixed: Some(10 * MS), ..config() };
    let mut bench = Bench::new(fixed);
    for _ in 0..1000 {
        assert!(!bench.gradient.is_measuring());
        bench.window(5, 10 * MS);
    }
    assert_eq!(bench.gradient.limit(), 1000);
}

#[test]
fn whatever_happens_the_limit_stays_in_its_bounds() {
    for seed in 0..10_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (a, b) = (rng.u32(1..50), rng.u32(1..2000));
        let config = Concurrency {
            percentile: rng.u32(0..=1_000_000),
            min_limit: a.min(b),
            max_limit: a.max(b),
            min_concurrency: rng.u32(1..20),
            request_count: rng.u32(1..20),
            jitter: rng.u32(0..=1_000_000),
            buffer: rng.u32(0..=1_000_000),
            measurement_interval: rng.bool().then(|| Duration::from_millis(rng.u64(1..500))),
            fixed: Some(Duration::from_micros(rng.u64(0..1000))),
            ..config()
        };
        let (least, most) =
            (config.min_limit.min(config.min_concurrency), config.max_limit.max(config.min_concurrency));
        let mut bench = Bench::new(config);
        for _ in 0..40 {
            bench.window(rng.u32(0..30), Duration::from_micros(rng.u64(0..5_000)));
            let limit = bench.gradient.limit();
            assert!((least..=most).contains(&limit), "seed {seed}: {limit} is not between {least} and {most}");
            let next = bench.gradient.next();
            assert!(next.is_some() != bench.gradient.is_measuring(), "seed {seed}");
        }
    }
}
