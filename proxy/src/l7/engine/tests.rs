use super::*;

#[test]
fn a_gauge_tells_of_a_fall_once() {
    let gauge = Rc::<Gauge>::default();
    let mut held: Vec<Held> = (0..800).map(|_| gauge.hold()).collect();
    assert!(!gauge.fell());
    held.truncate(701);
    assert!(!gauge.fell());
    held.truncate(700);
    assert!(gauge.fell() && !gauge.fell());
    held.truncate(100);
    assert!(gauge.fell());
    held.truncate(40);
    assert!(!gauge.fell(), "60 are too few");
    drop(held);
    assert!(gauge.fell() && !gauge.fell());
}
