use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn of(list: &[(&'static str, &str)]) -> Extracted {
    Extracted::of(&headers(list))
}

fn parent() -> Parent {
    Parent { trace: TraceId::read(TRACE.as_bytes()).unwrap(), span: SpanId::read(SPAN.as_bytes()).unwrap() }
}

#[test]
fn a_well_formed_traceparent_is_the_parent() {
    let sampled = of(&[("traceparent", &format!("00-{TRACE}-{SPAN}-01"))]);
    assert_eq!((sampled.parent, sampled.sampled, sampled.has_state), (Some(parent()), Some(true), true));
    // Flags we do not know are none of our business.
    assert_eq!(of(&[("traceparent", &format!("00-{TRACE}-{SPAN}-fe"))]).sampled, Some(false));
    assert_eq!(of(&[("traceparent", &format!("00-{TRACE}-{SPAN}-03"))]).sampled, Some(true));
    // A later version, with or without more in it.
    assert_eq!(of(&[("traceparent", &format!("cc-{TRACE}-{SPAN}-01"))]).parent, Some(parent()));
    assert_eq!(of(&[("traceparent", &format!("cc-{TRACE}-{SPAN}-01-more"))]).parent, Some(parent()));
}

#[test]
fn anything_else_is_no_parent() {
    let zero = "0".repeat(32);
    for value in [
        String::new(),
        "00".into(),
        format!("00-{TRACE}-{SPAN}"),
        format!("00-{TRACE}-{SPAN}-1"),
        format!("00-{TRACE}-{SPAN}-0x"),
        format!("00-{TRACE}-{SPAN}-01-"),
        format!("00-{TRACE}-{SPAN}-01-more"),
        format!("00-{TRACE}-{SPAN}-011"),
        format!("cc-{TRACE}-{SPAN}-01."),
        format!("ff-{TRACE}-{SPAN}-01"),
        format!("00_{TRACE}_{SPAN}_01"),
        format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
        format!("00-{zero}-{SPAN}-01"),
        format!("00-{TRACE}-{}-01", &zero[..16]),
        format!("00-{}g-{SPAN}-01", &TRACE[..31]),
        "ü".repeat(30),
        "0".repeat(100_000),
    ] {
        let found = of(&[("traceparent", &value)]);
        assert_eq!((found.parent, found.sampled), (None, None), "{value:?}");
        assert!(found.formats.w3c, "{value:?}");
    }
    let good = format!("00-{TRACE}-{SPAN}-01");
    assert_eq!(of(&[("traceparent", &good), ("traceparent", &good)]).parent, None, "two are none");
}

#[test]
fn b3_is_read_in_one_header_and_in_several() {
    let half = &TRACE[16..];
    let short = Parent { trace: TraceId::read_b3(half.as_bytes()).unwrap(), ..parent() };
    for (value, expected) in [
        (format!("{TRACE}-{SPAN}"), (Some(parent()), None)),
        (format!("{TRACE}-{SPAN}-1"), (Some(parent()), Some(true))),
        (format!("{TRACE}-{SPAN}-d"), (Some(parent()), Some(true))),
        (format!("{TRACE}-{SPAN}-0-{SPAN}"), (Some(parent()), Some(false))),
        (format!("{half}-{SPAN}-1"), (Some(short), Some(true))),
        ("0".into(), (None, Some(false))),
        ("d".into(), (None, Some(true))),
        (format!("{TRACE}-{SPAN}-x"), (None, None)),
        (format!("{TRACE}-{SPAN}-1-"), (None, None)),
        (format!("{TRACE}-{SPAN}-1-{SPAN}-1"), (None, None)),
        (format!("{TRACE}a-{SPAN}-1"), (None, None)),
        (String::new(), (None, None)),
    ] {
        let found = of(&[("b3", &value)]);
        assert_eq!((found.parent, found.sampled), expected, "{value:?}");
        assert!(found.formats.b3 && !found.has_state);
    }
    let multi = of(&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", "true")]);
    assert_eq!((multi.parent, multi.sampled), (Some(parent()), Some(true)));
    let debug = of(&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-flags", "1")]);
    assert_eq!(debug.sampled, Some(true));
    assert_eq!(of(&[("x-b3-sampled", "0")]).sampled, Some(false), "a decision alone");
    for broken in [
        &[("x-b3-traceid", TRACE)][..],
        &[("x-b3-traceid", TRACE), ("x-b3-spanid", "0000000000000000")],
        &[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", "perhaps")],
        &[("x-b3-traceid", TRACE), ("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)],
    ] {
        let found = of(broken);
        assert_eq!((found.parent, found.sampled), (None, None), "{broken:?}");
    }
}

#[test]
fn the_w3c_context_counts_before_b3_and_b3_where_it_is_broken() {
    let other = "1".repeat(16);
    let b3 = format!("{TRACE}-{other}-0");
    let both = of(&[("traceparent", &format!("00-{TRACE}-{SPAN}-01")), ("b3", &b3)]);
    assert_eq!((both.parent, both.sampled), (Some(parent()), Some(true)));
    let broken = of(&[("traceparent", "nonsense"), ("b3", &b3)]);
    assert_eq!((broken.parent.unwrap().span, broken.has_state), (SpanId([0x11; 8]), false));
}

fn injected(list: &[(&'static str, &str)], sampled: bool) -> Vec<(String, String)> {
    let mut headers = headers(list);
    let from = Extracted::of(&headers);
    let trace = from.parent.map_or(TraceId([1; 16]), |p| p.trace);
    SpanContext { trace, span: SpanId([2; 8]), sampled }.inject(&from, &mut headers);
    let mut all: Vec<_> =
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    all.sort();
    all
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn what_goes_out_has_the_form_of_what_came_in() {
    let ours = "02".repeat(8);
    let fresh = format!("00-{}-{ours}-00", "01".repeat(16));
    assert_eq!(injected(&[], false), pairs(&[("traceparent", &fresh)]));
    let with_state = injected(&[("traceparent", &format!("00-{TRACE}-{SPAN}-01")), ("tracestate", "a=b")], true);
    let expected = format!("00-{TRACE}-{ours}-01");
    assert_eq!(with_state, pairs(&[("traceparent", &expected), ("tracestate", "a=b")]));
    // A broken context is replaced, and its state goes with it.
    assert_eq!(injected(&[("traceparent", "x"), ("tracestate", "a=b")], false), pairs(&[("traceparent", &fresh)]));
    let b3 = injected(&[("b3", &format!("{}-{SPAN}-1", &TRACE[16..]))], true);
    assert_eq!(b3, pairs(&[("b3", &format!("{}-{ours}-1", &TRACE[16..]))]), "half a trace id stays half");
    for (state, sampled, expected) in [("d", true, "d"), ("d", false, "0"), ("1", true, "1")] {
        let b3 = injected(&[("b3", &format!("{TRACE}-{SPAN}-{state}"))], sampled);
        assert_eq!(b3, pairs(&[("b3", &format!("{TRACE}-{ours}-{expected}"))]), "debugging goes on");
    }
    let multi = injected(&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", "1")], true);
    let expected =
        [("x-b3-parentspanid", SPAN), ("x-b3-sampled", "1"), ("x-b3-spanid", &ours), ("x-b3-traceid", TRACE)];
    assert_eq!(multi, pairs(&expected));
    let debug = injected(&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-flags", "1")], true);
    assert!(debug.iter().any(|(n, _)| n == "x-b3-flags") && !debug.iter().any(|(n, _)| n == "x-b3-sampled"));
}

#[test]
fn a_state_that_is_too_long_is_not_kept_in_the_span() {
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let long = "a=b,".repeat(200);
    for (state, kept) in [("a=b", true), (&*long, false), ("", false)] {
        let headers = headers(&[("traceparent", &parent), ("tracestate", state)]);
        assert_eq!(Extracted::of(&headers).state(&headers).is_some(), kept, "{state:?}");
    }
}
