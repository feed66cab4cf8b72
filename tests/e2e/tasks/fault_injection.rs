//! "Fault Injection": a delay that uncovers a bug, then an abort, for one user.

use std::time::{Duration, Instant};

use outrigger_tests::need;

use super::{apps::get, bookinfo::Bookinfo, kubectl::apply};

#[test]
fn fault_injection() {
    need!("ip", "curl");
    let mut bookinfo = Bookinfo::start();
    let mesh = &bookinfo.mesh;
    apply(mesh, "virtual-service-all-v1.yaml");
    apply(mesh, "virtual-service-reviews-test-v2.yaml");
    apply(mesh, "virtual-service-ratings-test-delay.yaml");

    // The page: reviews waits 10 s and would do, productpage waits 3 s twice and gives up before the delay of 7 s ends.
    let before = Instant::now();
    let page = std::thread::scope(|scope| {
        let jason = scope.spawn(|| bookinfo.page("jason"));
        // The delay itself, seen by whoever waits longer than both.
        let reviews = &bookinfo.workloads[3].pod;
        let slow = Instant::now();
        let answer = get(reviews, ([10, 96, 0, 13], 9080), "ratings:9080", "/ratings/0", &[("end-user", "jason")]);
        assert_eq!((answer.status(), answer.body.as_str()), (200, "five"), "a delay is no failure");
        assert!(slow.elapsed() >= Duration::from_secs(7), "only {:?}", slow.elapsed());
        jason.join().unwrap()
    });
    assert!(before.elapsed() >= Duration::from_secs(6));
    assert!(page.contains("Book Details") && page.contains("Error fetching product reviews!"), "{page}");
    assert!(bookinfo.page("").contains("reviews-v1"), "nobody else notices");
    let injected = |name: &str| bookinfo.workloads[3].stats_ending(&format!(".fault.{name}"));
    let (delays, aborts) = (injected("delays_injected"), injected("aborts_injected"));
    assert!(delays >= 2 && aborts == 0, "{delays} delays, {aborts} aborts: jason's page and the call above");

    apply(mesh, "virtual-service-ratings-test-abort.yaml");
    let page = bookinfo.page("jason");
    assert!(page.contains("reviews-v2, Ratings service is currently unavailable"), "{page}");
    assert!(bookinfo.page("").contains("reviews-v1"), "nobody else notices");
    assert_eq!(injected("aborts_injected"), 1);
    bookinfo.assert_sound();
}
