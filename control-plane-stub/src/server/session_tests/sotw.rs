use super::*;

#[test]
fn sotw_full_state_and_named_sets() {
    let mut bench = Bench::new(Variant::Sotw, &world(1, &[("c", "a", "1"), ("r", "x", "1"), ("r", "y", "1")]));
    bench.0.accept_sotw(&sotw(&C, &[])).unwrap();
    bench.0.accept_sotw(&sotw(&R, &["x"])).unwrap();
    let (c, r) = (bench.next().unwrap(), bench.next().unwrap());
    assert_eq!((names(&c), names(&r)), (vec!["a"], vec!["x"]));
    bench.ack_sotw(&C, &[], &c.nonce);
    bench.ack_sotw(&R, &["x"], &r.nonce);
    assert_eq!(bench.next(), None);

    // A change of what is not asked for is none.
    bench.0.set_world(world(2, &[("c", "a", "1"), ("r", "x", "1"), ("r", "y", "2")]));
    assert_eq!(bench.next(), None);
    // A new name, with the nonce already acknowledged: answered with the whole set.
    bench.ack_sotw(&R, &["x", "y"], &r.nonce);
    let r = bench.next().unwrap();
    assert_eq!(names(&r), ["x", "y"]);
    bench.ack_sotw(&R, &["y"], &r.nonce);
    assert_eq!(bench.next(), None, "fewer names need no answer");
    bench.0.set_world(world(3, &[("c", "a", "1"), ("c", "b", "1"), ("r", "x", "3"), ("r", "y", "2")]));
    let c = bench.next().unwrap();
    assert_eq!(names(&c), ["a", "b"], "full state");
    assert_eq!(bench.next(), None, "x is not asked for any more");
}

#[test]
fn sotw_stale_nonce_does_not_change_the_subscription() {
    let mut bench = Bench::new(Variant::Sotw, &world(1, &[("r", "x", "1"), ("r", "y", "1")]));
    bench.0.accept_sotw(&sotw(&R, &["x"])).unwrap();
    let first = bench.next().unwrap();
    bench.0.set_world(world(2, &[("r", "x", "2"), ("r", "y", "1")]));
    let second = bench.next().unwrap();
    let told = bench.ack_sotw(&R, &["x", "y"], &first.nonce);
    assert_eq!(told.acked, Some(first.version));
    assert_eq!(bench.next(), None, "answers an outdated response");
    assert!(bench.ack_sotw(&R, &["x", "y"], "made-up").stale);
    assert_eq!(bench.next(), None);
    bench.ack_sotw(&R, &["x", "y"], &second.nonce);
    assert_eq!(names(&bench.next().unwrap()), ["x", "y"]);
}

#[test]
fn sotw_nack_and_recovery() {
    let mut bench = Bench::new(Variant::Sotw, &world(1, &[("l", "x", "1")]));
    bench.0.accept_sotw(&sotw(&L, &[])).unwrap();
    let push = bench.next().unwrap();
    let nack = DiscoveryRequest { response_nonce: push.nonce.clone(), error_detail: error("bad"), ..sotw(&L, &[]) };
    assert_eq!(bench.0.accept_sotw(&nack).unwrap().nacked, Some((push.version, "bad".into())));
    assert_eq!(bench.0.standing(&L), (false, true));
    assert_eq!(bench.next(), None);
    bench.0.set_world(world(2, &[]));
    let push = bench.next().expect("a listener that is gone is a new full state");
    assert!(push.resources.is_empty());
    bench.ack_sotw(&L, &[], &push.nonce);
    assert_eq!(bench.0.standing(&L), (false, false));
}

#[test]
fn sotw_legacy_wildcard_ends_with_the_first_name() {
    let mut bench = Bench::new(Variant::Sotw, &world(1, &[("l", "x", "1"), ("l", "y", "1")]));
    bench.0.accept_sotw(&sotw(&L, &[])).unwrap();
    let push = bench.next().unwrap();
    bench.ack_sotw(&L, &["x"], &push.nonce);
    assert_eq!(names(&bench.next().unwrap()), ["x"]);
    let mut star = Bench::new(Variant::Sotw, &world(1, &[("l", "x", "1"), ("l", "y", "1")]));
    star.0.accept_sotw(&sotw(&L, &["*"])).unwrap();
    assert_eq!(names(&star.next().unwrap()), ["x", "y"]);
}
