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

fn head(path: &str) -> tap::Head {
    tap::Head { method: "GET".into(), path: path.into(), ..tap::Head::default() }
}

impl Headers for tap::Head {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        match name {
            ":method" => Some((&*self.method).into()),
            ":path" => Some((&*self.path).into()),
            _ => None,
        }
    }
}

fn told(path: &str) -> Vec<tap::Failure> {
    tap::recent().into_iter().filter(|failure| failure["path"] == path).collect()
}

/// On a thread of its own: how many failures are told is counted for each.
fn alone(test: fn()) {
    std::thread::spawn(test).join().unwrap();
}

#[test]
fn a_failure_is_told_without_being_logged() {
    alone(|| {
        let record = RequestRecord::open(scope(), Version::HTTP_11);
        let client = "192.0.2.7:99".parse().unwrap();
        assert!(record.failing(&head("/failed-once"), (client, Some("the-route"))));
        assert!(!record.logged(), "nobody logs it for that");
        record.flag(Flags::NO_ROUTE);
        record.response_head(404, &HeaderMap::new());
        record.response_complete();
        drop(record);
        // Another test may read the ring at the moment of writing: what is told then is lost.
        let failures = told("/failed-once");
        if let [failure] = &failures[..] {
            assert_eq!((&failure["source"], &failure["route"]), (&"192.0.2.7:99".into(), &"the-route".into()));
        }
        assert!(failures.len() <= 1);
    });
}

#[test]
fn a_storm_of_failures_is_told_in_part_and_noted_no_further() {
    alone(|| {
        let scope = scope();
        let mut noted = 0;
        for _ in 0..1000 {
            let record = RequestRecord::open(scope.clone(), Version::HTTP_11);
            let client = record.scope.conn.remote;
            noted += usize::from(record.failing(&head("/storm"), (client, None)));
            // Asked once, and its answer holds.
            assert_eq!(
                record.failing(&head("/storm"), (client, None)),
                matches!(*record.telling.borrow(), Telling::Told(_))
            );
            record.response_head(503, &HeaderMap::new());
            record.response_complete();
        }
        assert!((8..=80).contains(&noted), "{noted}");
    });
}

#[test]
fn who_leaves_is_no_failure() {
    alone(|| {
        for (status, flag, failed) in [
            (0, Flags::DOWNSTREAM_CONNECTION_TERMINATION, false),
            (200, Flags::DOWNSTREAM_CONNECTION_TERMINATION, false),
            (503, Flags::DOWNSTREAM_CONNECTION_TERMINATION, true),
            (0, Flags::UPSTREAM_REQUEST_TIMEOUT, true),
        ] {
            let record = RequestRecord::open(scope(), Version::HTTP_11);
            record.status.set(status);
            record.flag(flag);
            // Whoever is told takes what was noted.
            let remote = record.scope.conn.remote;
            assert!(record.failing(&head("/left"), (remote, None)));
            record.finish();
            assert_eq!(matches!(*record.telling.borrow(), Telling::Unasked), failed, "{status} {flag}");
            std::mem::forget(record);
        }
    });
}

#[test]
fn an_exchange_starts_when_it_started() {
    let mut record = RequestRecord::open(scope(), Version::HTTP_11);
    record.started -= std::time::Duration::from_secs(60);
    let start = record.facts(None, |facts| facts.start);
    assert!(start.elapsed().unwrap() >= std::time::Duration::from_secs(60));
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
