//! "Request Routing": all traffic to v1, then one user to v2.

use outrigger_tests::need;

use super::{bookinfo::Bookinfo, kubectl::apply};

#[test]
fn request_routing() {
    need!("ip", "curl");
    let mut bookinfo = Bookinfo::start();
    let mut seen = bookinfo.versions("", 40);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, ["v1", "v2", "v3"], "without rules every version answers");

    apply(&bookinfo.mesh, "virtual-service-all-v1.yaml");
    for user in ["", "jason"] {
        assert_eq!(bookinfo.versions(user, 15), ["v1"; 15], "reviews without stars, for {user:?} too");
    }

    apply(&bookinfo.mesh, "virtual-service-reviews-test-v2.yaml");
    assert_eq!(bookinfo.versions("jason", 15), ["v2"; 15]);
    assert!(bookinfo.page("jason").contains("black stars"));
    for user in ["", "kate", "jasons", "Jason"] {
        assert_eq!(bookinfo.versions(user, 15), ["v1"; 15], "{user:?} is somebody else");
    }
    bookinfo.assert_sound();
}
