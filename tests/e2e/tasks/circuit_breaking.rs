//! "Circuit Breaking": one connection, one request that waits; the rest is turned away.

use std::sync::{Arc, Condvar, Mutex};

use outrigger_tests::{need, until};

use super::{apps::Message, httpbin::Httpbin, kubectl::apply};

const CLUSTER: &str = "cluster.outbound|8000||httpbin.default.svc.cluster.local";

#[test]
fn circuit_breaking() {
    need!("ip", "curl");
    // What /hold is not answered before; the first in counts.
    let door = Arc::new((Mutex::new((0, false)), Condvar::new()));
    let held = door.clone();
    let mut httpbin = Httpbin::start(&["v1"], move |version, request| {
        if request.path() == "/hold" {
            let mut state = held.0.lock().unwrap();
            state.0 += 1;
            drop(held.1.wait_while(state, |(_, open)| !*open).unwrap());
        }
        Message::answer(200, version)
    });
    apply(&httpbin.mesh, "circuit-breaking.yaml");
    // One connection at a time, as the page's first call and `fortio -c 1`.
    for _ in 0..20 {
        assert_eq!(httpbin.get("/get").status(), 200);
    }
    let stat = |name: &str| httpbin.sleep.stat(&format!("{CLUSTER}.{name}"));
    assert_eq!(stat("upstream_rq_pending_overflow"), 0);
    assert_eq!(stat("upstream_cx_total"), 20, "one request per connection");

    // More at once: one is served, one waits, everybody else is told at once.
    std::thread::scope(|scope| {
        let served = scope.spawn(|| httpbin.get("/hold").status());
        until("the connection is taken", || door.0.lock().unwrap().0 == 1);
        let waiting = scope.spawn(|| httpbin.get("/get").status());
        until("one waits", || stat("upstream_rq_pending_active") == 1);
        for n in 1..=10 {
            let answer = httpbin.get("/get");
            assert_eq!((answer.status(), answer.header("x-envoy-overloaded")), (503, "true"), "{answer:?}");
            assert_eq!(stat("upstream_rq_pending_overflow"), n);
        }
        assert_eq!(stat("circuit_breakers.default.cx_open"), 1);
        assert_eq!(stat("circuit_breakers.default.rq_pending_open"), 1);
        door.0.lock().unwrap().1 = true;
        door.1.notify_all();
        assert_eq!((served.join().unwrap(), waiting.join().unwrap()), (200, 200));
    });
    assert_eq!(httpbin.get("/get").status(), 200, "afterwards everything is as before");
    assert_eq!(stat("outlier_detection.ejections_active"), 0, "overflow is not the host's fault");
    httpbin.assert_sound();
}
