use std::collections::HashMap;

use super::*;

#[test]
fn delta_sends_only_what_changed() {
    let one = world(1, &[("c", "a", "1"), ("c", "b", "1")]);
    let mut bench = Bench::new(Variant::Delta, &one);
    bench.0.accept_delta(&delta(&C, &[])).unwrap();
    let push = bench.next().unwrap();
    assert_eq!(names(&push), ["a", "b"]);
    assert_eq!(bench.ack_delta(&C, &push.nonce).acked, Some(push.version));
    assert_eq!(bench.next(), None);

    bench.0.set_world(world(2, &[("c", "a", "1"), ("c", "b", "2")]));
    let push = bench.next().unwrap();
    assert_eq!((names(&push), push.held), (vec!["b"], 2));
    bench.0.set_world(world(3, &[("c", "a", "1"), ("c", "b", "2")]));
    assert_eq!(bench.next(), None, "an equal world is no push");
    assert!(bench.0.is_settled());
}

#[test]
fn a_reconnecting_delta_client_gets_the_difference() {
    let before = world(
        1,
        &[("c", "same", "1"), ("c", "changed", "1"), ("c", "gone", "1"), ("e", "same", "1"), ("e", "changed", "1")],
    );
    let versions = |kind: &TypeUrl| -> HashMap<String, String> {
        before.set(kind).iter().map(|(n, v)| (n.clone(), v.version.to_string())).collect()
    };
    let now = world(2, &[("c", "same", "1"), ("c", "changed", "2"), ("e", "same", "1"), ("e", "changed", "1")]);
    let mut bench = Bench::new(Variant::Delta, &now);
    bench
        .0
        .accept_delta(&DeltaDiscoveryRequest { initial_resource_versions: versions(&C), ..delta(&C, &["*"]) })
        .unwrap();
    let pushes = bench.drain();
    assert_eq!((pushes.len(), &pushes[0].1), (1, &vec!["changed".to_owned()]));
    let request = DeltaDiscoveryRequest { initial_resource_versions: versions(&E), ..delta(&E, &["same", "changed"]) };
    bench.0.accept_delta(&request).unwrap();
    assert_eq!(bench.drain()[0].1, ["changed"], "its cluster is warming; the other's is not");

    // The routes that used what is gone are still to come.
    assert_eq!(bench.next(), None);
    for kind in [&L, &R] {
        bench.0.accept_delta(&delta(kind, &["x"])).unwrap();
        let (_, _, _, nonce) = bench.drain().pop().unwrap();
        bench.ack_delta(kind, &nonce);
    }
    assert_eq!(bench.next().unwrap().removed, ["gone"]);

    // Nothing changed: still one answer, so that the acknowledgement tells where the client stands.
    let mut same = Bench::new(Variant::Delta, &before);
    same.0.accept_delta(&DeltaDiscoveryRequest { initial_resource_versions: versions(&C), ..delta(&C, &[]) }).unwrap();
    let push = same.next().unwrap();
    assert_eq!((push.resources.len(), push.removed.len(), push.held), (0, 0, 3));
}

#[test]
fn delta_subscribe_unsubscribe_and_absent_names() {
    let mut bench = Bench::new(Variant::Delta, &world(1, &[("r", "a", "1"), ("r", "b", "1")]));
    bench.0.accept_delta(&delta(&R, &["a", "ghost"])).unwrap();
    let push = bench.next().unwrap();
    assert_eq!((names(&push), push.removed.as_slice()), (vec!["a"], &["ghost".to_owned()][..]));
    bench.0.accept_delta(&delta(&R, &["b"])).unwrap();
    assert_eq!(names(&bench.next().unwrap()), ["b"]);
    bench.0.accept_delta(&delta(&R, &["a"])).unwrap();
    assert_eq!(names(&bench.next().unwrap()), ["a"], "asked for again: sent again");

    let unsubscribe = DeltaDiscoveryRequest { resource_names_unsubscribe: vec!["a".into()], ..delta(&R, &[]) };
    bench.0.accept_delta(&unsubscribe).unwrap();
    assert_eq!(bench.next(), None);
    bench.0.set_world(world(2, &[("r", "a", "2"), ("r", "b", "1"), ("r", "ghost", "1")]));
    assert_eq!(names(&bench.next().unwrap()), ["ghost"], "`a` concerns this client no more");
    bench.0.set_world(world(3, &[("r", "b", "1")]));
    assert_eq!(bench.next().unwrap().removed, ["ghost"]);
    assert_eq!(bench.next(), None, "said once");
}

#[test]
fn delta_wildcard_and_names_together() {
    let mut bench = Bench::new(Variant::Delta, &world(1, &[("c", "a", "1"), ("c", "b", "1")]));
    bench.0.accept_delta(&delta(&C, &["*", "a"])).unwrap();
    assert_eq!(names(&bench.next().unwrap()), ["a", "b"]);
    let drop_b = DeltaDiscoveryRequest { resource_names_unsubscribe: vec!["b".into()], ..delta(&C, &[]) };
    bench.0.accept_delta(&drop_b).unwrap();
    assert_eq!(names(&bench.next().unwrap()), ["b"], "still covered by the wildcard");
    let drop_star = DeltaDiscoveryRequest { resource_names_unsubscribe: vec!["*".into()], ..delta(&C, &[]) };
    bench.0.accept_delta(&drop_star).unwrap();
    bench.0.set_world(world(2, &[("c", "a", "2"), ("c", "b", "2")]));
    assert_eq!(names(&bench.next().unwrap()), ["a"]);
}

#[test]
fn delta_stale_nonces_and_refusals() {
    let mut bench = Bench::new(Variant::Delta, &world(1, &[("c", "a", "1"), ("c", "b", "1")]));
    bench.0.accept_delta(&delta(&C, &[])).unwrap();
    let first = bench.next().unwrap();
    assert!(bench.ack_delta(&C, "never-sent").stale);
    assert_eq!(bench.0.standing(&C), (true, false));
    let nack = DeltaDiscoveryRequest {
        response_nonce: first.nonce.clone(),
        error_detail: error("a is odd"),
        ..delta(&C, &[])
    };
    let told = bench.0.accept_delta(&nack).unwrap();
    assert_eq!(told.nacked, Some((first.version, "a is odd".into())));
    assert_eq!(bench.next(), None, "the same is not sent again");
    // The next response says the rest of the refused one again, so that its answer counts for all of it.
    bench.0.set_world(world(2, &[("c", "a", "1"), ("c", "b", "2")]));
    let second = bench.next().unwrap();
    assert_eq!(names(&second), ["a", "b"]);
    let nack =
        DeltaDiscoveryRequest { response_nonce: second.nonce, error_detail: error("a is odd"), ..delta(&C, &[]) };
    bench.0.accept_delta(&nack).unwrap();
    assert_eq!(bench.0.standing(&C), (false, true));
    bench.0.set_world(world(3, &[("c", "a", "3"), ("c", "b", "2")]));
    let third = bench.next().unwrap();
    assert_eq!(names(&third), ["a", "b"]);
    bench.ack_delta(&C, &third.nonce);
    assert_eq!(bench.0.standing(&C), (false, false));
    assert!(bench.ack_delta(&C, &third.nonce).stale, "twice");
}

#[test]
fn a_delta_refusal_heals_though_only_one_of_its_resources_changes() {
    let mut bench = Bench::new(Variant::Delta, &world(1, &[("c", "old", "1"), ("l", "bad", "1"), ("l", "good", "1")]));
    for kind in [&C, &L] {
        bench.0.accept_delta(&delta(kind, &[])).unwrap();
    }
    let nonces: Vec<_> = bench.drain().into_iter().map(|(kind, _, _, nonce)| (kind, nonce)).collect();
    bench.ack_delta(&C, &nonces[0].1);
    let refuse = |bench: &mut Bench, nonce: &str| {
        let nack = DeltaDiscoveryRequest { response_nonce: nonce.into(), error_detail: error("bad"), ..delta(&L, &[]) };
        bench.0.accept_delta(&nack).unwrap();
    };
    refuse(&mut bench, &nonces[1].1);
    bench.0.set_world(world(2, &[("l", "bad", "2"), ("l", "good", "1")]));
    let push = bench.next().unwrap();
    assert_eq!(names(&push), ["bad", "good"]);
    assert_eq!(bench.next(), None, "while it is refused the cluster stays");
    bench.ack_delta(&L, &push.nonce);
    assert_eq!(bench.0.standing(&L), (false, false));
    assert_eq!(bench.next().unwrap().removed, ["old"]);

    // Taking the bad one away heals too; and what was removed is not refused for ever.
    bench.0.set_world(world(3, &[("l", "bad", "3"), ("l", "good", "1")]));
    let push = bench.next().unwrap();
    refuse(&mut bench, &push.nonce);
    bench.0.set_world(world(4, &[("l", "good", "1"), ("l", "new", "1")]));
    let push = bench.next().unwrap();
    assert_eq!((names(&push), push.removed.as_slice()), (vec!["new"], &["bad".to_owned()][..]));
    refuse(&mut bench, &push.nonce);
    bench.0.set_world(world(5, &[("l", "good", "1"), ("l", "new", "2")]));
    let push = bench.next().unwrap();
    bench.ack_delta(&L, &push.nonce);
    assert_eq!(bench.0.standing(&L), (false, false));
}
