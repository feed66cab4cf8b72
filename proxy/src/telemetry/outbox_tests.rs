use super::*;
use crate::ir::service::GrpcService;

fn destination(cluster: &str, capacity: usize) -> Destination {
    let service = GrpcService {
        cluster: cluster.into(),
        authority: None,
        timeout: None,
        metadata: Vec::new(),
        max_message: None,
    };
    Destination {
        collector: Collector::Grpc(service),
        signal: Signal::Traces { resource: Box::default(), scope: true },
        capacity,
    }
}

fn outbox(capacity: usize) -> Outbox {
    Outbox::new(destination("c", capacity), Arc::default())
}

#[test]
fn what_finds_no_room_is_dropped_and_counted() {
    let outbox = outbox(3);
    (0..5).for_each(|i| outbox.push(vec![i]));
    assert_eq!((outbox.len(), outbox.counts.dropped.load(Relaxed)), (3, 2));
    assert_eq!(outbox.take(), [[0], [1], [2]], "the first that came");
    assert!(outbox.is_empty() && outbox.take().is_empty());
    outbox.push(vec![9]);
    assert_eq!(outbox.take(), [[9]], "there is room again");
}

#[test]
fn bytes_are_bounded_as_well() {
    let outbox = outbox(CAPACITY);
    let big = vec![0; BYTES / 4];
    (0..6).for_each(|_| outbox.push(big.clone()));
    assert_eq!((outbox.len(), outbox.counts.dropped.load(Relaxed)), (4, 2));
    assert_eq!(outbox.take().len(), 1, "what is too much for a batch goes alone");
    outbox.push(big);
    assert_eq!(outbox.len(), 4);
}

#[test]
fn a_batch_of_long_records_is_bounded_in_bytes() {
    let outbox = outbox(CAPACITY);
    let is_woken = || {
        let mut waiting = std::pin::pin!(outbox.full.notified());
        waiting.as_mut().enable()
    };
    let record = || vec![0; BATCH_BYTES / 4];
    (0..3).for_each(|_| outbox.push(record()));
    assert!(!is_woken());
    (0..3).for_each(|_| outbox.push(record()));
    assert!(is_woken());
    assert_eq!((outbox.take().len(), outbox.take().len(), outbox.take().len()), (4, 2, 0));
}

#[test]
fn a_batch_is_bounded_and_wakes_the_exporter_once_it_is_there() {
    let outbox = outbox(CAPACITY);
    let is_woken = |outbox: &Outbox| {
        let mut waiting = std::pin::pin!(outbox.full.notified());
        waiting.as_mut().enable()
    };
    (1..BATCH).for_each(|_| outbox.push(vec![1]));
    assert!(!is_woken(&outbox));
    outbox.push(vec![1]);
    assert!(is_woken(&outbox));
    (0..10).for_each(|_| outbox.push(vec![1]));
    assert_eq!((outbox.take().len(), outbox.take().len()), (BATCH, 10));
}

#[test]
fn one_destination_is_one_outbox_for_as_long_as_somebody_has_it() {
    let outboxes = Outboxes::default();
    let first = outboxes.of(destination("a", 1));
    assert!(Arc::ptr_eq(&first, &outboxes.of(destination("a", 1))));
    let other = outboxes.of(destination("b", 1));
    assert!(!Arc::ptr_eq(&first, &other));
    drop(first);
    assert_eq!(outboxes.all().len(), 1);
}
