use std::cell::RefCell;

use super::*;
use crate::{
    ir::service::GrpcService,
    l7::side::SideError,
    telemetry::outbox::{Counts, Destination, Signal},
};

fn outbox(tracers: &Tracers, capacity: usize) -> Arc<Outbox> {
    let service =
        GrpcService { cluster: "gone".into(), authority: None, timeout: None, metadata: Vec::new(), max_message: None };
    tracers.outboxes.of(Destination {
        collector: Collector::Grpc(service),
        signal: Signal::Traces { resource: Box::default(), scope: true },
        capacity,
    })
}

#[tokio::test]
async fn what_nobody_takes_is_counted_at_the_end() {
    let counts = Arc::<Counts>::default();
    let tracers = Arc::new(Tracers::new(None, counts.clone()));
    let (stop, stopped) = watch::channel(false);
    let tasks = tokio::task::LocalSet::new();
    let running = tasks.spawn_local(run(tracers.clone(), Arc::default(), stopped));
    let outbox = outbox(&tracers, 8);
    (0..20).for_each(|_| outbox.push(vec![1]));
    assert_eq!((counts.dropped.load(Relaxed), outbox.len()), (12, 8), "nobody waits for room");
    tasks
        .run_until(async {
            while counts.failed.load(Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
            let _ = stop.send(true);
            running.await
        })
        .await
        .unwrap();
    assert_eq!((counts.dropped.load(Relaxed), counts.sent.load(Relaxed)), (20, 0));
}

#[tokio::test]
async fn a_collector_that_comes_back_during_its_last_delivery_is_served() {
    let tracers = Tracers::default();
    let first = outbox(&tracers, 8);
    assert!(first.claim());
    first.push(vec![1]);
    let (_stop, stopped) = watch::channel(false);
    let (again, sent) = (RefCell::new(None), RefCell::new(Vec::new()));
    let send = async |served: &Outbox, _| {
        sent.borrow_mut().extend(served.take());
        if sent.borrow().len() == 1 {
            // Its configuration was gone when this began, and comes again.
            let found = outbox(&tracers, 8);
            found.push(vec![2]);
            again.replace(Some(found));
        } else {
            again.take();
        }
    };
    let serving = tokio::time::timeout(Duration::from_secs(60), serve(first, stopped, send));
    serving.await.expect("it ends when nobody has it any more");
    assert_eq!(sent.take(), [[1], [2]]);
    assert!(outbox(&tracers, 8).claim(), "the next one is another");
}

/// What comes of ten large records for a collector that answers with `send`: sent, dropped, failed calls, and the pauses.
async fn delivered(send: impl Fn(&[Vec<u8>]) -> Result<u64, Refused>) -> (u64, u64, u64, Vec<Duration>) {
    delivered_of(NEVER_TOO_MUCH, send).await
}

async fn delivered_of(
    size: usize,
    send: impl Fn(&[Vec<u8>]) -> Result<u64, Refused>,
) -> (u64, u64, u64, Vec<Duration>) {
    let counts = Arc::<Counts>::default();
    let tracers = Tracers::new(None, counts.clone());
    let outbox = outbox(&tracers, 100);
    let records: Vec<_> = (0..10).map(|i| vec![i; size]).collect();
    let pauses = RefCell::new(Vec::new());
    let wait = async |pause| {
        pauses.borrow_mut().push(pause);
        true
    };
    deliver(&outbox, &records, &Cell::new(false), (&async |part: &[Vec<u8>]| send(part), &wait)).await;
    (counts.sent.load(Relaxed), counts.dropped.load(Relaxed), counts.failed.load(Relaxed), pauses.take())
}

#[tokio::test]
async fn a_batch_that_is_too_large_goes_in_parts() {
    let status = |code| Refused::from(SideError::Status(code, String::new()));
    let at_most = |most: usize| move |part: &[Vec<u8>]| if part.len() > most { Err(status(8)) } else { Ok(0) };
    assert_eq!(delivered(at_most(3)).await, (10, 0, 3, vec![]), "10, 5 and 5");
    assert_eq!(delivered(at_most(0)).await, (0, 10, 19, vec![]), "none of them is small enough");
    let one_bad = |part: &[Vec<u8>]| if part.iter().any(|record| record[0] == 3) { Err(status(8)) } else { Ok(0) };
    assert_eq!(delivered(one_bad).await.0, 9);
    assert_eq!(delivered_of(9, at_most(0)).await, (0, 10, 1, vec![]), "that is no question of size");
    assert_eq!(delivered(|_| Err(status(3))).await, (0, 10, 1, vec![]));
    assert_eq!(delivered(|_| Ok(4)).await, (6, 4, 0, vec![]));
    let (_, dropped, failed, pauses) = delivered(|_| Err(status(14))).await;
    assert_eq!((dropped, failed, pauses.len()), (10, 5, 4));
    assert!(pauses.is_sorted() && pauses[3] >= Duration::from_secs(8), "{pauses:?}");
}

#[tokio::test]
async fn a_collector_that_says_when_is_asked_then() {
    let calls = Cell::new(0);
    let send = |_: &[Vec<u8>]| {
        calls.set(calls.get() + 1);
        let later =
            |seconds| Err(SideError::Later { code: 8, message: String::new(), delay: Duration::from_secs(seconds) });
        match calls.get() {
            1 => later(20).map_err(Refused::from),
            2 => later(3600).map_err(Refused::from),
            _ => Ok(0),
        }
    };
    assert_eq!(delivered(send).await, (10, 0, 2, vec![Duration::from_secs(20), LONGEST_PAUSE]));
}

#[test]
fn a_request_to_a_collector_says_what_it_carries() {
    let service = HttpCollector {
        uri: crate::ir::service::HttpUri { uri: "http://otel/v1/traces".into(), cluster: "c".into(), timeout: None },
        authority: "otel".into(),
        path: http::uri::PathAndQuery::from_static("/v1/traces"),
        headers: vec![(header::AUTHORIZATION, crate::ir::format::Template::parse("Bearer x").unwrap())],
    };
    let request = post(&service, &Bytes::from_static(b"1234"));
    assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/v1/traces"));
    for (name, value) in [
        (header::HOST, "otel"),
        (header::CONTENT_TYPE, "application/x-protobuf"),
        (header::CONTENT_LENGTH, "4"),
        (header::AUTHORIZATION, "Bearer x"),
    ] {
        assert_eq!(request.headers()[name], value);
    }
}
