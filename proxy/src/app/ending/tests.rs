use std::sync::Arc;

use super::*;
use crate::live::Publisher;

const LONG: Duration = Duration::from_secs(3600);
const TIMES: Times = Times { total: LONG, accepting: LONG };

fn shared() -> Shared {
    Shared::new(Arc::new(Publisher::default()), None)
}

fn phases(shared: &Shared) -> [Phase; 3] {
    [&shared.drains.inbound, &shared.drains.unspecified, &shared.drains.outbound].map(|source| source.phase())
}

fn set(count: &AtomicU64, n: u64) {
    count.store(n, Ordering::Relaxed);
}

#[test]
fn an_idle_proxy_ends_at_once_if_nobody_is_to_come() {
    let shared = shared();
    let mut ending = Ending::begin(&shared, TIMES);
    assert!(!ending.over(&shared, false, true), "not before its sockets are closed");
    assert!(ending.closes_inbound());
    assert!(!ending.closes_inbound(), "once");
    assert!(!ending.over(&shared, false, false), "not while somebody waits in a closed socket");
    assert!(ending.over(&shared, false, true));
}

#[test]
fn an_idle_proxy_that_gets_a_signal_waits_for_those_who_do_not_know_yet() {
    let shared = shared();
    let mut ending = Ending::begin(&shared, TIMES);
    ending.linger(TIMES);
    assert!(!ending.closes_inbound() && !ending.over(&shared, false, true));
    let mut ending = Ending::begin(&shared, TIMES);
    ending.linger(Times { total: Duration::ZERO, ..TIMES });
    assert!(ending.closes_inbound(), "not longer than the whole may take");
}

#[test]
fn only_a_second_signal_is_one() {
    let mut ending = Ending::begin(&shared(), TIMES);
    assert_eq!([ending.first_signal(), ending.first_signal(), ending.first_signal()], [true, false, false]);
}

#[test]
fn inbound_first_and_outbound_when_nothing_comes_in_any_more() {
    let shared = shared();
    set(&shared.open.inbound, 1);
    set(&shared.open.outbound, 1);
    set(&shared.connections, 2);
    let mut ending = Ending::begin(&shared, Times { accepting: Duration::ZERO, ..TIMES });
    assert!(ending.closes_inbound());
    assert!(!ending.over(&shared, false, true));
    assert_eq!(phases(&shared), [Phase::Drain, Phase::Drain, Phase::Run]);
    set(&shared.open.inbound, 0);
    set(&shared.connections, 1);
    assert!(!ending.over(&shared, false, true));
    assert_eq!(phases(&shared), [Phase::Drain; 3]);
    set(&shared.connections, 0);
    assert!(ending.over(&shared, false, true));
}

#[test]
fn callers_may_still_come_while_they_do_not_know_better() {
    let shared = shared();
    set(&shared.open.inbound, 1);
    set(&shared.connections, 1);
    let mut ending = Ending::begin(&shared, TIMES);
    assert!(!ending.closes_inbound());
    set(&shared.open.inbound, 0);
    set(&shared.connections, 0);
    assert!(!ending.over(&shared, false, true), "no connection at this moment is not the end of connections");
    assert_eq!(phases(&shared)[2], Phase::Run, "the application is still served");
}

#[test]
fn at_the_deadline_and_on_a_second_signal_everything_is_cut() {
    for by_signal in [false, true] {
        let shared = shared();
        set(&shared.open.inbound, 1);
        set(&shared.connections, 1);
        let total = if by_signal { LONG } else { Duration::ZERO };
        let mut ending = Ending::begin(&shared, Times { total, accepting: LONG });
        if by_signal {
            ending.cut(&shared);
        }
        assert!(!ending.over(&shared, false, true), "its connection may still say what it has to say");
        assert_eq!(phases(&shared), [Phase::Force; 3]);
        assert!(ending.closes_inbound());
        set(&shared.connections, 0);
        assert!(ending.over(&shared, false, true));
    }
}

#[test]
fn outbound_goes_on_as_long_as_the_application_is_there() {
    let shared = shared();
    let mut ending = Ending::begin(&shared, TIMES);
    assert!(ending.closes_inbound());
    assert!(!ending.over(&shared, true, true), "it may still call somebody");
    assert_eq!(phases(&shared)[2], Phase::Run);
    ending.release();
    assert!(ending.over(&shared, true, true), "somebody who knows said that it is gone");

    let mut late = Ending::begin(&shared, Times { total: Duration::ZERO, ..TIMES });
    assert!(late.overdue() && late.begins_to_cut());
    assert!(late.over(&shared, true, true), "not beyond the deadline");
    assert!(!late.overdue() && !late.begins_to_cut());
}

#[test]
fn a_process_that_was_succeeded_sends_everybody_away_and_is_hurried_by_a_signal() {
    let shared = shared();
    set(&shared.open.outbound, 1);
    set(&shared.connections, 1);
    let mut ending = Ending::begin(&shared, TIMES);
    ending.hand_over(&shared, LONG);
    assert_eq!(phases(&shared), [Phase::Drain; 3], "a successor serves the application");
    assert!(!ending.closes_inbound(), "nothing is accepted any more");
    assert!(!ending.over(&shared, true, true), "a stream may go on");
    assert!(ending.first_signal(), "a signal for all processes is none to cut");
    ending.hasten(TIMES);
    assert!(!ending.overdue() && !ending.over(&shared, true, true));
    assert!(!ending.first_signal(), "the second one is");
    ending.cut(&shared);
    assert_eq!(phases(&shared), [Phase::Force; 3]);
    set(&shared.connections, 0);
    assert!(ending.over(&shared, true, true));

    let mut hurried = Ending::begin(&shared, TIMES);
    hurried.hasten(Times { total: Duration::ZERO, ..TIMES });
    assert!(!hurried.overdue(), "an end of its own has its own time");
    hurried.hand_over(&shared, LONG);
    hurried.hasten(Times { total: Duration::ZERO, ..TIMES });
    assert!(hurried.overdue());
}
