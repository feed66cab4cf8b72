//! Bounds on what there is thousands of: a field more should be a decision.

use super::*;

#[test]
fn what_every_service_has_is_small() {
    let sizes = [
        ("cluster", size_of::<cluster::Cluster>(), 408),
        ("assignment", size_of::<endpoint::Assignment>(), 32),
        ("locality", size_of::<endpoint::Locality>(), 88),
        ("endpoint", size_of::<endpoint::Endpoint>(), 72),
        ("virtual host", size_of::<route::VirtualHost>(), 104),
        ("route", size_of::<route::Route>(), 80),
        ("forward", size_of::<route::Forward>(), 352),
        ("source", size_of::<ConfigSource>(), 48),
    ];
    for (what, size, bound) in sizes {
        assert!(size <= bound, "{what}: {size} bytes, bound {bound}; {sizes:?}");
    }
}
