use super::*;

fn scope() -> Rc<HttpScope> {
    let conn = ConnInfo {
        id: 1,
        remote: "10.0.0.1:1".parse().unwrap(),
        local: "10.0.0.2:2".parse().unwrap(),
        original_dst: None,
        direction: crate::ir::listener::Direction::Inbound,
        listener: "l".into(),
        chain: "c".into(),
        server_name: None,
        tls: None,
        started: SystemTime::now(),
        started_at: Instant::now(),
        buffer_limit: 1 << 20,
        metadata: Default::default(),
    };
    Rc::new(HttpScope { conn: Rc::new(conn), stats: Arc::default(), logs: Arc::default(), mesh: None })
}

#[test]
fn dropping_counts_whatever_happened() {
    let scope = scope();
    let stats = scope.stats.clone();
    let stats = stats.local();
    let record = RequestRecord::open(scope.clone(), Version::HTTP_2);
    assert_eq!((stats.downstream_rq_active.get(), stats.downstream_rq_http2_total.get()), (1, 1));
    record.response_head(404, &HeaderMap::new());
    record.response_complete();
    drop(record);
    assert_eq!((stats.downstream_rq_active.get(), stats.downstream_rq_4xx.get()), (0, 1));
    assert_eq!(stats.downstream_rq_rx_reset.get(), 0);
    // Dropped in the middle: the client left.
    drop(RequestRecord::open(scope.clone(), Version::HTTP_11));
    assert_eq!((stats.downstream_rq_completed.get(), stats.downstream_rq_rx_reset.get()), (2, 1));
    // Dropped in the middle, but somebody said why.
    let record = RequestRecord::open(scope, Version::HTTP_11);
    record.flag(Flags::UPSTREAM_REQUEST_TIMEOUT);
    drop(record);
    assert_eq!(stats.downstream_rq_rx_reset.get(), 1);
}

#[test]
fn nothing_is_collected_that_nobody_reads() {
    let record = RequestRecord::open(scope(), Version::HTTP_11);
    assert!(!record.logged());
    record.route("r", &None);
    record.response_head(200, &HeaderMap::new());
    record.facts(None, |facts| {
        assert_eq!((facts.route, facts.status, facts.times.response_head), (None, 200, None));
        assert!(facts.request.is_none());
    });
}
