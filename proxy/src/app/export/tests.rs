use super::*;
use crate::{
    ir::service::GrpcService,
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

#[test]
fn what_may_pass_is_asked_again_and_what_is_refused_is_not() {
    let status = |code| SideError::Status(code, String::new());
    for passing in [SideError::NoHost, SideError::Timeout, SideError::Failed("reset".into()), status(14), status(8)] {
        assert!(is_passing(&passing), "{passing:?}");
    }
    for lasting in [status(3), status(7), status(12), status(16), SideError::TooLarge, SideError::Malformed] {
        assert!(!is_passing(&lasting), "{lasting:?}");
    }
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
