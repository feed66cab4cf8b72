use super::{
    memory::Memory,
    rate::{Algorithm, Ask, Hits, Rate, Unit},
    service::MAX_DESCRIPTORS,
};

const SECOND: u64 = 1_000_000;
const START: u64 = 1_700_000_000 * SECOND;

fn ask(key: &str, requests: u32, unit: Unit) -> Ask {
    let rate = Rate { requests, unit, burst: requests, algorithm: Algorithm::Gcra };
    Ask { key: key.to_owned(), rate, hits: Hits::Take(1), enforced: true }
}

#[test]
fn counters_are_forgotten_when_they_say_nothing() {
    let memory = Memory::new(1000);
    for n in 0..100 {
        memory.decide(&[ask(&n.to_string(), 10, Unit::Second)], START);
    }
    assert_eq!(memory.size(), (100, 0));
    for _ in 0..10 {
        memory.decide(&[ask("other", 10, Unit::Second)], START + SECOND);
    }
    assert_eq!(memory.size(), (1, 0));
}

#[test]
fn the_largest_requests_leave_no_more_than_they_clear_away() {
    let memory = Memory::new(100_000);
    for n in 0..20 {
        let asks: Vec<_> = (0..MAX_DESCRIPTORS).map(|at| ask(&format!("{n} {at}"), 10, Unit::Second)).collect();
        memory.decide(&asks, START + 2 * n * SECOND);
    }
    assert_eq!(memory.size(), (MAX_DESCRIPTORS, 0));
}

#[test]
fn a_counter_that_is_used_lives_on() {
    let memory = Memory::new(1000);
    let mut admitted = 0;
    for n in 0..1000 {
        admitted += u32::from(!memory.decide(&[ask("a", 1, Unit::Minute)], START + n * SECOND)[0].over);
    }
    assert_eq!(admitted, 1 + 999 / 60);
    assert_eq!(memory.size(), (1, 0));
}

#[test]
fn beyond_the_bound_the_one_that_would_expire_first_is_given_up_and_counted() {
    let memory = Memory::new(3);
    memory.decide(&[ask("day", 1, Unit::Day)], START);
    memory.decide(&[ask("hour", 1, Unit::Hour)], START);
    memory.decide(&[ask("second", 1, Unit::Second)], START);
    memory.decide(&[ask("minute", 1, Unit::Minute)], START);
    assert_eq!(memory.size(), (3, 1));
    let over = |key, unit| memory.decide(&[ask(key, 1, unit)], START)[0].over;
    assert!(over("day", Unit::Day) && over("hour", Unit::Hour) && over("minute", Unit::Minute));
    assert!(!over("second", Unit::Second), "forgotten");
}

#[test]
fn a_flood_of_keys_stays_within_the_bound() {
    let memory = Memory::new(50);
    for n in 0..10_000u64 {
        memory.decide(&[ask(&format!("key {n}"), 1, Unit::Hour)], START + n);
    }
    assert_eq!(memory.size(), (50, 9950));
}

#[test]
fn several_threads_share_one_limit() {
    let memory = Memory::new(50);
    let admitted: usize = std::thread::scope(|scope| {
        let count = || (0..2000).filter(|_| !memory.decide(&[ask("a", 777, Unit::Day)], START)[0].over).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(admitted, 777);
}
