use std::{
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use super::*;
use crate::{
    ir::{
        format::{Comparison, Sink},
        listener::Direction,
        matcher::*,
    },
    telemetry::{
        flags::Flags,
        format::{Known, Times},
        record::{ConnInfo, ConnectionRecord, UpstreamFacts},
    },
};

fn conn() -> ConnInfo {
    ConnInfo {
        id: 1,
        remote: "10.0.0.1:1".parse().unwrap(),
        local: "10.0.0.2:2".parse().unwrap(),
        original_dst: None,
        direction: Direction::Inbound,
        listener: "l".into(),
        chain: "c".into(),
        server_name: None,
        tls: None,
        started: SystemTime::now(),
        started_at: Instant::now(),
        buffer_limit: 1 << 20,
        metadata: Default::default(),
    }
}

pub(super) fn with_facts<T>(change: impl FnOnce(&mut Facts<'_>), then: impl FnOnce(&Facts<'_>) -> T) -> T {
    let (conn, upstream) = (conn(), UpstreamFacts::default());
    let mut facts = Facts {
        conn: &conn,
        protocol: None,
        status: 200,
        flags: Flags::default(),
        details: None,
        start: SystemTime::now(),
        times: Times { total: 12, ..Times::default() },
        bytes_received: 3,
        bytes_sent: 4,
        upstream: &upstream,
        downstream_failure: None,
        termination: None,
        trace: None,
        route: None,
        remote: conn.remote,
        request: None,
        response: None,
        trailers: None,
        metadata: Known::default(),
    };
    change(&mut facts);
    then(&facts)
}

fn op(op: Operator) -> Segment {
    Segment::Op { op, max_len: None }
}

fn text(segments: Vec<Segment>) -> LogFormat {
    LogFormat::Text(Template { segments })
}

fn wait(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "nothing happened");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn json_keeps_types_and_order() {
    let field = |segments| JsonField::Value(Template { segments });
    let format = LogFormat::Json(vec![
        ("bytes".into(), field(vec![op(Operator::BytesSent)])),
        ("code".into(), field(vec![op(Operator::ResponseCode)])),
        ("mixed".into(), field(vec![Segment::Text("x".into()), op(Operator::BytesSent), op(Operator::RouteName)])),
        ("none".into(), field(vec![op(Operator::RouteName)])),
        ("tree".into(), JsonField::Object(vec![("id".into(), field(vec![op(Operator::ConnectionId)]))])),
        ("word".into(), field(vec![Segment::Text("a\"b".into())])),
    ]);
    let logger = Logger::new(&AccessLog { sink: Sink::Stdout, format, filter: None }, &Sinks::start().unwrap());
    let mut line = String::new();
    with_facts(|_| {}, |facts| render(&logger.config.format, facts, &mut line));
    assert_eq!(
        line,
        "{\"bytes\":4,\"code\":200,\"mixed\":\"x4-\",\"none\":null,\"tree\":{\"id\":1},\"word\":\"a\\\"b\"}\n"
    );
}

#[test]
fn files_are_appended_to_and_reopened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let sinks = Sinks::start().unwrap();
    let config = AccessLog {
        sink: Sink::File(path.to_str().unwrap().into()),
        format: text(vec![op(Operator::BytesReceived), Segment::Text("\n".into())]),
        filter: None,
    };
    let logger = Logger::new(&config, &sinks);
    let record = ConnectionRecord::new(Rc::new(conn()), Arc::new(Loggers::new(vec![logger.clone()])));
    drop(record);
    wait(|| sinks.written() == 1);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "0\n", "dropping a record logs it");
    let rotated = directory.path().join("access.log.1");
    std::fs::rename(&path, &rotated).unwrap();
    sinks.reopen();
    with_facts(|_| {}, |facts| logger.log(facts));
    wait(|| sinks.written() == 2);
    assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "0\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "3\n");
    assert_eq!((sinks.dropped(), sinks.failed()), (0, 0));
}

#[test]
fn a_path_that_cannot_be_opened_costs_lines_only() {
    let sinks = Sinks::start().unwrap();
    let sink = Sink::File("/no/such/directory/log".into());
    let logger = Logger::new(&AccessLog { sink, format: text(vec![]), filter: None }, &sinks);
    with_facts(|_| {}, |facts| logger.log(facts));
    wait(|| sinks.failed() == 1);
}

#[test]
fn a_writer_that_stands_still_costs_lines_only() {
    // A FIFO that nobody reads: opening it for writing blocks.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let sinks = Sinks::start().unwrap();
    let config = AccessLog {
        sink: Sink::File(path.to_str().unwrap().into()),
        format: text(vec![Segment::Text("x".repeat(1024).into())]),
        filter: None,
    };
    let logger = Logger::new(&config, &sinks);
    // One batch may be in the writer's hands, one in the buffer.
    let lines = 2 * sinks::BUFFER / 1024 + 10;
    with_facts(|_| {}, |facts| (0..lines).for_each(|_| logger.log(facts)));
    assert!(sinks.dropped() >= 10, "{}", sinks.dropped());
    assert_eq!(sinks.written(), 0);
}

#[test]
fn lines_of_many_threads_stay_whole_and_a_flush_waits_for_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let sinks = Sinks::start().unwrap();
    let config = AccessLog {
        sink: Sink::File(path.to_str().unwrap().into()),
        format: text(vec![Segment::Text("0123456789abcdef\n".into())]),
        filter: None,
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let logger = Logger::new(&config, &sinks);
            scope.spawn(move || with_facts(|_| {}, |facts| (0..5000).for_each(|_| logger.log(facts))));
        }
    });
    sinks.flush(Duration::from_secs(20));
    assert_eq!((sinks.written(), sinks.dropped()), (20_000, 0));
    let written = std::fs::read_to_string(&path).unwrap();
    assert_eq!(written.lines().filter(|line| *line == "0123456789abcdef").count(), 20_000);
    assert_eq!(written.len(), 20_000 * 17);
}

#[test]
fn the_end_of_the_sinks_writes_what_waits() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let sink = Sink::File(path.to_str().unwrap().into());
    let config = AccessLog { sink, format: text(vec![Segment::Text("x\n".into())]), filter: None };
    let logger = Logger::new(&config, &Sinks::start().unwrap());
    with_facts(|_| {}, |facts| logger.log(facts));
    drop(logger);
    wait(|| std::fs::read_to_string(&path).is_ok_and(|text| text == "x\n"));
}

#[test]
fn filters_choose_lines() {
    let flags = |names: &[&str]| LogFilter::ResponseFlags(names.iter().map(|n| (*n).into()).collect());
    let header = LogFilter::RequestHeader(HeaderMatcher {
        name: "x-log".into(),
        rule: HeaderRule::Value(StringMatcher::exact("yes")),
        invert: false,
        treat_missing_as_empty: false,
    });
    let over_400 = || LogFilter::StatusCode(Comparison::Ge, 400);
    let slow = || LogFilter::Duration(Comparison::Ge, 10);
    for (filter, expected) in [
        (over_400(), false),
        (LogFilter::StatusCode(Comparison::Eq, 200), true),
        (slow(), true),
        (LogFilter::And(vec![over_400(), slow()]), false),
        (LogFilter::Or(vec![over_400(), slow()]), true),
        (flags(&[]), true),
        (flags(&["UF", "UO"]), true),
        (flags(&["UF"]), false),
        (header, true),
        (LogFilter::GrpcStatus { codes: vec![14], exclude: false }, true),
        (LogFilter::GrpcStatus { codes: vec![14], exclude: true }, false),
        (LogFilter::GrpcStatus { codes: vec![0], exclude: false }, false),
        (LogFilter::NotHealthCheck, true),
        (LogFilter::Traceable, false),
    ] {
        let mut request = http::HeaderMap::new();
        request.insert("x-log", "yes".parse().unwrap());
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", "14".parse().unwrap());
        let config = AccessLog { sink: Sink::Stdout, format: text(vec![]), filter: Some(filter.clone()) };
        let logger = Logger::new(&config, &Sinks::start().unwrap());
        if matches!(filter, LogFilter::RequestHeader(_)) {
            assert_eq!(logger.names().request, ["x-log".into()], "filters are captured for too");
        }
        let (conn, upstream) = (conn(), UpstreamFacts::default());
        let facts = Facts {
            conn: &conn,
            protocol: None,
            status: 200,
            flags: Flags::UPSTREAM_OVERFLOW,
            details: None,
            start: SystemTime::now(),
            times: Times { total: 12, ..Times::default() },
            bytes_received: 0,
            bytes_sent: 0,
            upstream: &upstream,
            downstream_failure: None,
            termination: None,
            trace: None,
            route: None,
            remote: conn.remote,
            request: Some(&request),
            response: None,
            trailers: Some(&trailers),
            metadata: Known::default(),
        };
        assert_eq!(accepts(&filter, &facts), expected, "{filter:?}");
    }
}
