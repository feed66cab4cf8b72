use std::{rc::Rc, sync::Mutex, time::SystemTime};

use super::*;
use crate::{
    ir::listener::Direction,
    telemetry::{
        flags::Flags,
        format::{Known, Times},
        record::{ConnInfo, PeerInfo, UpstreamFacts},
    },
};

fn with<T>(status: u16, flags: Flags, then: impl FnOnce(&Facts<'_>) -> T) -> T {
    let conn = Rc::new(ConnInfo {
        id: 1,
        remote: "10.0.0.9:1".parse().unwrap(),
        local: "10.0.0.1:80".parse().unwrap(),
        original_dst: None,
        direction: Direction::Outbound,
        listener: "l".into(),
        chain: "c".into(),
        server_name: None,
        tls: None,
        started: SystemTime::now(),
        started_at: std::time::Instant::now(),
        buffer_limit: 0,
        metadata: Default::default(),
    });
    let upstream = UpstreamFacts { cluster: Some("up".into()), ..UpstreamFacts::default() };
    then(&Facts {
        conn: &conn,
        protocol: Some("HTTP/1.1"),
        status,
        flags,
        details: Some("via_upstream"),
        start: SystemTime::UNIX_EPOCH,
        times: Times::default(),
        bytes_received: 1,
        bytes_sent: 2,
        upstream: &upstream,
        downstream_failure: None,
        termination: None,
        trace: None,
        route: Some("r"),
        remote: conn.remote,
        request: None,
        response: None,
        trailers: None,
        metadata: Known { dynamic: None, route: None },
    })
}

fn head(path: &str) -> Head {
    Head { method: "GET".into(), path: path.into(), authority: "Shop.test".into(), request_id: None }
}

#[test]
fn what_is_wanted_has_to_hold_altogether() {
    let takes = |wanted: Wanted, status| with(status, Flags::default(), |f| wanted.takes(f, Some(&head("/a/b"))));
    let on = |text: &str| Some(text.into());
    assert!(takes(Wanted::default(), 200));
    assert!(takes(Wanted { host: on("shop.test"), path: on("/a"), route: on("r"), ..Wanted::default() }, 200));
    assert!(takes(Wanted { host: on("*.test"), cluster: on("up"), method: on("GET"), ..Wanted::default() }, 200));
    assert!(!takes(Wanted { host: on("shop.test"), path: on("/b"), ..Wanted::default() }, 200));
    assert!(takes(Wanted { source: "10.0.0.9".parse().ok(), status: Some((500, 599)), ..Wanted::default() }, 503));
    assert!(!takes(Wanted { source: "10.0.0.8".parse().ok(), ..Wanted::default() }, 200));
    assert!(!takes(Wanted { failed: true, ..Wanted::default() }, 200));
    assert!(takes(Wanted { failed: true, ..Wanted::default() }, 500));
    let host = Wanted { host: on("shop.test"), ..Wanted::default() };
    assert!(!with(200, Flags::default(), |f| host.takes(f, None)), "of a connection no host is known");
}

#[test]
fn only_a_verified_identity_is_a_principal() {
    for (verified, principal) in [(true, Some("spiffe://td/ns/shop/sa/web")), (false, None)] {
        let line = with(200, Flags::default(), |facts| {
            let tls = PeerInfo { verified, uri_sans: vec!["spiffe://td/ns/shop/sa/web".into()], ..PeerInfo::default() };
            let conn = ConnInfo { tls: Some(tls.into()), ..facts.conn.clone() };
            describe(&Facts { conn: &conn, ..*facts }, None)
        });
        assert_eq!(line.get("principal").and_then(Value::as_str), principal);
    }
}

#[test]
fn a_watcher_gets_so_many_lines_and_who_is_slow_loses_some() {
    let path = "/only-in-this-test";
    let wanted = Wanted { path: Some(path.into()), ..Wanted::default() };
    let show = |status| with(status, Flags::default(), |f| super::show(f, Some(&head(path))));
    let mut two = Watch::new(wanted.clone(), 2).unwrap();
    let slow = Watch::new(wanted, 1 << 20).unwrap();
    assert!(watched());
    // Another test may change the list at this moment: then nobody is shown that one.
    let mut shown = Vec::new();
    for _ in 0..1000 {
        show(200);
        shown.extend(two.lines.try_recv().ok());
        if two.is_done() {
            break;
        }
    }
    assert_eq!(shown.len(), 2);
    let line: Value = serde_json::from_slice(&shown[0]).unwrap();
    assert_eq!((&line["path"], &line["status"], &line["cluster"]), (&json!(path), &json!(200), &json!("up")));
    assert_eq!(line["start_time"], "1970-01-01T00:00:00.000Z");
    assert!(line.get("upstream").is_none(), "what is not known is not there");
    for _ in 0..3 * WAITING {
        show(200);
    }
    assert!(slow.dropped() > 0 && two.lines.try_recv().is_err());
}

#[test]
fn failures_are_kept_newest_first_and_a_storm_is_not() {
    let ring = failures::Ring(Mutex::default());
    for n in 0..100 {
        with(503, Flags::UPSTREAM_OVERFLOW, |f| ring.push(describe(f, Some(&head(&format!("/{n}"))))));
    }
    let kept = ring.recent();
    assert_eq!((kept.len(), &kept[0]["path"], &kept[0]["flags"]), (64, &json!("/99"), &json!("UO")));
    // The limit is a thread's own, and no test used this one's.
    let now = std::time::Instant::now();
    assert_eq!((0..100).filter(|_| failures::may_note_at(now)).count(), 8);
    assert!(failures::may_note_at(now + std::time::Duration::from_secs(1)));
}
