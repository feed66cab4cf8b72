use super::*;
use crate::ir::Fraction;

const ALL: Fraction = Fraction { numerator: 100, denominator: 100 };
const NONE: Fraction = Fraction { numerator: 0, denominator: 100 };

fn shares(client: Fraction, random: Fraction, overall: Fraction) -> Shares {
    Shares { client, random, overall }
}

fn of(trace: u8) -> Sample {
    Sample { trace: TraceId([trace; 16]), now: 1 << 40 }
}

#[test]
fn a_request_is_traced_for_a_reason() {
    let plain = Plea::default();
    let (client, forced) = (Plea { client_id: true, ..plain }, Plea { forced: true, ..plain });
    let none = Reason::NotTraceable;
    let one_percent = Fraction { numerator: 100, denominator: 10_000 };
    for (shares, plea, noted, draw, expected) in [
        (shares(ALL, ALL, ALL), plain, none, Some(7), Reason::Sampling),
        (shares(ALL, NONE, ALL), plain, none, Some(7), none),
        (shares(ALL, one_percent, ALL), plain, none, Some(99), Reason::Sampling),
        (shares(ALL, one_percent, ALL), plain, none, Some(10_099), Reason::Sampling),
        (shares(ALL, one_percent, ALL), plain, none, Some(100), none),
        (shares(ALL, NONE, ALL), client, none, Some(7), Reason::ClientForced),
        (shares(NONE, NONE, ALL), client, none, Some(7), none),
        (shares(ALL, NONE, ALL), forced, none, Some(7), Reason::ServiceForced),
        // What an earlier proxy noted holds.
        (shares(ALL, NONE, ALL), plain, Reason::Sampling, Some(7), Reason::Sampling),
        (shares(ALL, NONE, ALL), plain, Reason::ServiceForced, Some(7), Reason::ServiceForced),
        // The whole is capped, whoever asked.
        (shares(ALL, ALL, NONE), forced, none, Some(7), none),
        (shares(ALL, ALL, NONE), plain, Reason::Sampling, Some(7), none),
        // No id, no decision.
        (shares(ALL, ALL, ALL), forced, none, None, none),
    ] {
        assert_eq!(reason(&shares, plea, noted, draw), expected, "{shares:?} {plea:?} {noted:?} {draw:?}");
    }
}

#[test]
fn request_ids_note_the_reason() {
    let id = b"00000063-1111-4222-8333-444444444444";
    assert_eq!(of_request_id(id), Some((0x63, Reason::NotTraceable)));
    let noted = with_reason(id, Reason::Sampling).unwrap();
    assert_eq!(noted, b"00000063-1111-9222-8333-444444444444");
    assert_eq!(of_request_id(&noted), Some((0x63, Reason::Sampling)));
    assert_eq!(with_reason(&noted, Reason::Sampling), None, "nothing to change");
    assert_eq!(with_reason(&noted, Reason::NotTraceable).unwrap(), id);
    for reason in [Reason::ServiceForced, Reason::ClientForced] {
        assert_eq!(of_request_id(&with_reason(id, reason).unwrap()), Some((0x63, reason)));
    }
    for foreign in [
        &b""[..],
        b"1234567",
        b"not-hex-at-all",
        b"+1234567-1111-9222-8333-444444444444",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        assert_eq!((of_request_id(foreign), with_reason(foreign, Reason::Sampling)), (None, None), "{foreign:?}");
    }
    // An id of another form still decides, but is left as it is.
    assert_eq!(of_request_id(b"00000063"), Some((0x63, Reason::NotTraceable)));
    assert_eq!(with_reason(b"00000063", Reason::Sampling), None);
}

#[test]
fn samplers_decide_as_they_are_called() {
    let limit = RateLimit::default();
    let ask = |sampler: Option<&Sampler>, called, reason| sampled(sampler, called, reason, &limit, &of(1));
    let (yes, no) = (Reason::Sampling, Reason::NotTraceable);
    assert!(ask(None, None, yes) && !ask(None, None, no), "Envoy's own decision");
    assert!(ask(None, Some(true), no) && !ask(None, Some(false), yes), "the caller's word holds");
    assert!(ask(Some(&Sampler::AlwaysOn), Some(false), no));
    let never = Sampler::Ratio(NONE);
    assert!(!ask(Some(&never), Some(true), yes) && ask(Some(&Sampler::Ratio(ALL)), Some(false), no));
    let parent = Sampler::ParentBased(Box::new(never));
    assert!(ask(Some(&parent), Some(true), no) && !ask(Some(&parent), None, yes));
    // By the trace's id: everybody who sees the trace decides alike.
    let half = Sampler::Ratio(Fraction { numerator: 50, denominator: 100 });
    let picked: Vec<bool> = (1..=255).map(|i| sampled(Some(&half), None, no, &limit, &of(i))).collect();
    assert_eq!(picked, (1..=255).map(|i| sampled(Some(&half), None, yes, &limit, &of(i))).collect::<Vec<_>>());
    let hits = picked.iter().filter(|hit| **hit).count();
    assert!((90..=165).contains(&hits), "{hits} of 255");
    // B3 may have half an id.
    let short = |i: u8| {
        let mut id = [0; 16];
        id[8..].fill(i);
        sampled(Some(&half), None, no, &limit, &Sample { trace: TraceId(id), now: 0 })
    };
    assert_eq!(picked, (1..=255).map(short).collect::<Vec<_>>());
}

#[test]
fn so_many_traces_a_second_and_no_more() {
    let limit = RateLimit::default();
    let start = 1 << 50;
    let taken = |from: u64, step: u64, count: u64| (0..count).filter(|i| limit.take(from + i * step, 10)).count();
    assert_eq!(taken(start, 0, 1000), 10, "what one second is worth, at once");
    assert_eq!(taken(start + 1, 1_000_000, 999), 9, "then one every hundred milliseconds");
    assert_eq!(taken(start + 100 * RateLimit::SECOND, 0, 1000), 10, "nothing is saved up beyond");
    assert!(!limit.take(start, 0), "no trace at all");
    let forced = Sample { trace: TraceId([1; 16]), now: start };
    assert!(
        sampled(Some(&Sampler::RateLimited(0)), None, Reason::ServiceForced, &limit, &forced),
        "forced ones always"
    );
}
