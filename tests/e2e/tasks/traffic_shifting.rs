//! "Traffic Shifting": from v1 to v3, half of it first.

use outrigger_tests::need;

use super::{bookinfo::Bookinfo, is_share, kubectl::apply};

#[test]
fn traffic_shifting() {
    const LOADS: usize = 200;
    need!("ip", "curl");
    let mut bookinfo = Bookinfo::start();
    apply(&bookinfo.mesh, "virtual-service-all-v1.yaml");
    assert_eq!(bookinfo.versions("", 15), ["v1"; 15]);
    apply(&bookinfo.mesh, "virtual-service-reviews-50-v3.yaml");
    let seen = bookinfo.versions("", LOADS);
    let red = seen.iter().filter(|version| **version == "v3").count();
    assert!(is_share(red, LOADS, 50.0), "red stars in {red} of {LOADS} loads");
    assert!(!seen.contains(&"v2"));
    apply(&bookinfo.mesh, "virtual-service-reviews-v3.yaml");
    assert_eq!(bookinfo.versions("", 20), ["v3"; 20]);
    assert!(bookinfo.page("").contains("red stars"));
    bookinfo.assert_sound();
}
