//! "Request Timeouts": a slow upstream, then half a second is enough.

use std::time::{Duration, Instant};

use outrigger_tests::need;

use super::{
    bookinfo::Bookinfo,
    kubectl::{apply, apply_text, published},
};

#[test]
fn request_timeouts() {
    need!("ip", "curl");
    let mut bookinfo = Bookinfo::start();
    apply(&bookinfo.mesh, "virtual-service-all-v1.yaml");
    let rules = published("request-timeouts.yaml");
    apply_text(&bookinfo.mesh, "default", &rules.replace("    timeout: 0.5s\n", ""));
    let before = Instant::now();
    let page = bookinfo.page("");
    assert!(page.contains("reviews-v2, black stars"), "slow, but there: {page}");
    assert!(before.elapsed() >= Duration::from_secs(2), "after {:?}", before.elapsed());

    apply_text(&bookinfo.mesh, "default", &rules);
    let timeouts = |b: &Bookinfo| {
        b.workloads[0].stat("cluster.outbound|9080|v2|reviews.default.svc.cluster.local.upstream_rq_timeout")
    };
    assert_eq!(timeouts(&bookinfo), 0);
    let page = bookinfo.page("");
    assert!(page.contains("Error fetching product reviews!"), "{page}");
    assert!(page.contains("Book Details"), "the rest of the page is there");
    // Once for the call and once for the retry that productpage makes itself.
    assert_eq!(timeouts(&bookinfo), 2);
    bookinfo.assert_sound();
}
