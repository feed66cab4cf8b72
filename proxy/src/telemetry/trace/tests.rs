use http::Method;

use super::{
    testing::{Rig, config, provider},
    *,
};
use crate::{
    ir::{
        Fraction,
        format::{Operator, Segment},
        tracing::{CustomTag, Decorator, Sampler},
    },
    telemetry::{exchange::RequestRecord, flags::Flags},
};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn answered(status: u16) -> impl Fn(&RequestRecord) {
    move |record| {
        record.response_head(status, &HeaderMap::new());
        record.response_complete();
    }
}

#[test]
fn a_trace_begins_here_and_goes_on_upstream() {
    let mut rig = Rig::new(config(100));
    let span = rig.open().unwrap();
    let sent = rig.sent("traceparent").unwrap();
    assert_eq!(rig.sent("x-request-id").unwrap(), "00000010-1111-9222-8333-444444444444", "sampled is noted");
    let spans = rig.finish(span, answered(200));
    let [span] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!(sent, format!("00-{}-{}-01", context::text(&span.trace_id), context::text(&span.span_id)));
    assert!(span.parent_span_id.is_empty() && !span.is_error());
    assert_eq!((&*span.name, span.kind), ("ingress", 2));
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.path", "/cart"),
        ("url.query", "item=1"),
        ("url.scheme", "http"),
        ("server.address", "shop.example"),
        ("server.port", "8080"),
        ("http.response.status_code", "200"),
        ("network.protocol.version", "2"),
        ("network.peer.address", "10.0.0.9"),
        ("client.address", "10.0.0.9"),
        ("component", "proxy"),
        ("response_flags", "-"),
        ("guid:x-request-id", "00000010-1111-9222-8333-444444444444"),
        ("downstream_cluster", "-"),
    ] {
        assert_eq!(span.attribute(key).as_deref(), Some(value), "{key}: {:?}", span.attributes);
    }
    assert!(
        span.start_time_unix_nano > 1_600_000_000_000_000_000 && span.end_time_unix_nano >= span.start_time_unix_nano
    );
}

#[test]
fn a_callers_trace_goes_on() {
    let mut rig = Rig::new(config(0)).header("traceparent", PARENT).header("tracestate", "a=b");
    let span = rig.open().expect("the caller's word holds");
    let spans = rig.finish(span, answered(200));
    assert_eq!(context::text(&spans[0].trace_id), PARENT[3..35]);
    assert_eq!(context::text(&spans[0].parent_span_id), PARENT[36..52]);
    assert_eq!(spans[0].trace_state, "a=b");
    assert_eq!(rig.sent("tracestate").unwrap(), "a=b");
    assert_eq!(rig.sent("traceparent").unwrap()[..36], PARENT[..36]);
    assert_ne!(rig.sent("traceparent").unwrap(), PARENT);
}

#[test]
fn what_is_not_sampled_leaves_nothing_but_the_word_that_it_is_not() {
    let mut rig = Rig::new(config(0));
    assert!(rig.open().is_none());
    assert!(rig.sent("traceparent").unwrap().ends_with("-00"), "those after us are to decide alike");
    assert_eq!(rig.sent("x-request-id").unwrap(), "00000010-1111-4222-8333-444444444444");
    let never = Sampler::Ratio(Fraction { numerator: 0, denominator: 100 });
    let with = Config { provider: Some(Arc::new(provider(Some(never)))), ..config(100) };
    let mut rig = Rig::new(with)
        .header("x-b3-traceid", &PARENT[3..35])
        .header("x-b3-spanid", &PARENT[36..52])
        .header("x-b3-parentspanid", "0000000000000005")
        .header("x-b3-sampled", "1");
    assert!(rig.open().is_none());
    assert_eq!(rig.sent("x-b3-sampled").as_deref(), Some("0"));
    let names = (rig.sent("x-b3-spanid"), rig.sent("x-b3-parentspanid"));
    assert_eq!(names, (Some(PARENT[36..52].into()), Some("0000000000000005".into())), "nobody is its own parent");
    let unsampled = PARENT.replace("-01", "-00");
    let mut rig = Rig::new(config(100)).header("traceparent", &unsampled);
    assert!(rig.open().is_none());
    assert_eq!(rig.sent("traceparent").unwrap(), unsampled, "passed as it came");
}

#[test]
fn a_sampler_overrules_the_caller_and_says_so() {
    let never = Sampler::Ratio(Fraction { numerator: 0, denominator: 100 });
    let with = Config { provider: Some(Arc::new(provider(Some(never)))), ..config(100) };
    let mut rig = Rig::new(with).header("traceparent", PARENT);
    assert!(rig.open().is_none());
    assert_eq!(rig.sent("traceparent").unwrap(), PARENT.replace("-01", "-00"));
    let with = Config { provider: Some(Arc::new(provider(Some(Sampler::RateLimited(2))))), ..config(100) };
    let mut rig = Rig::new(with);
    let taken = (0..50).filter(|_| rig.open().is_some()).count();
    assert!((2..=3).contains(&taken), "{taken}");
}

#[test]
fn requests_may_ask_to_be_traced() {
    for (name, value) in [("x-client-trace-id", "me"), ("x-envoy-force-trace", "true")] {
        let mut rig = Rig::new(config(0)).header(name, value);
        assert!(rig.open().is_some(), "{name}");
    }
}

#[test]
fn without_propagation_headers_stay_as_they_are() {
    let mut rig = Rig::new(Config { no_context_propagation: true, ..config(100) });
    assert!(rig.open().is_some());
    assert_eq!(rig.sent("traceparent"), None);
}

#[test]
fn nobody_is_traced_for_nobody() {
    let tracers = Tracers::default();
    let nobody = Arc::new(Config { provider: None, ..config(100) });
    assert!(tracers.tracing(&nobody, Arc::default).is_none());
    let fallback = Tracers::new(Some(Arc::new(provider(None))), Arc::default());
    assert!(fallback.tracing(&nobody, Arc::default).is_some(), "the bootstrap's provider");
}

#[test]
fn errors_are_told_as_each_side_sees_them() {
    for (egress, status, is_error) in
        [(false, 404, false), (true, 404, true), (false, 503, true), (true, 503, true), (true, 200, false)]
    {
        let mut rig = Rig::new(config(100));
        rig.egress = egress;
        let span = rig.open().unwrap();
        let spans = rig.finish(span, answered(status));
        assert_eq!(spans[0].is_error(), is_error, "{egress} {status}");
        assert_eq!(spans[0].attribute("error.type").is_some(), is_error);
        assert_eq!(spans[0].kind, if egress { 3 } else { 2 });
        assert_eq!(spans[0].attribute("url.full").is_some(), egress);
    }
    let mut rig = Rig::new(config(100));
    let span = rig.open().unwrap();
    let spans = rig.finish(span, |_| {});
    assert_eq!(spans[0].attribute("error.type").as_deref(), Some("downstream_remote_disconnect"));
    assert_eq!(spans[0].attribute("response_flags").as_deref(), Some("DC"));
}

#[test]
fn faults_and_denials_are_seen() {
    let mut rig = Rig::new(config(100));
    let span = rig.open().unwrap();
    let spans = rig.finish(span, |record| {
        record.flag(Flags::FAULT_INJECTED);
        record.details("fault_filter_abort");
        answered(503)(record);
    });
    assert_eq!(spans[0].attribute("response_flags").as_deref(), Some("FI"));
    assert_eq!(spans[0].attribute("response_code_details").as_deref(), Some("fault_filter_abort"));
}

fn retried(record: &RequestRecord) {
    let mut headers = HeaderMap::new();
    let span = record.span().unwrap();
    span.try_begins(1, "10.0.0.1:80".into(), &mut headers);
    span.try_ended(1, TryResult::Failed("connection_failure"));
    span.try_begins(2, "10.0.0.2:80".into(), &mut headers);
    span.try_ended(2, TryResult::Status(200));
    record.upstream(|u| (u.attempts, u.cluster, u.host) = (2, Some("up".into()), Some("10.0.0.2:80".into())));
    answered(200)(record);
}

#[test]
fn tries_are_events_or_spans_of_their_own() {
    let mut rig = Rig::new(config(100));
    rig.egress = true;
    let span = rig.open().unwrap();
    let spans = rig.finish(span, retried);
    let [span] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!(span.name, "egress shop.example:8080");
    assert_eq!(span.attribute("http.request.resend_count").as_deref(), Some("1"));
    assert_eq!(span.attribute("network.peer.address").as_deref(), Some("10.0.0.2"));
    let [event] = &span.events[..] else { panic!("{span:?}") };
    let of = |key| outrigger_wire::otlp::attribute(&event.attributes, key);
    assert_eq!((&*event.name, of("error.type").as_deref()), ("retry", Some("connection_failure")));
    assert_eq!(of("upstream_address").as_deref(), Some("10.0.0.1:80"));

    let mut rig = Rig::new(Config { spawn_upstream_span: true, ..config(100) });
    rig.egress = true;
    let span = rig.open().unwrap();
    let spans = rig.finish(span, retried);
    let [whole, first, second] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((whole.kind, whole.events.len()), (2, 0));
    for of in [first, second] {
        assert_eq!((&of.parent_span_id, &of.trace_id), (&whole.span_id, &whole.trace_id));
        assert_eq!((of.kind, &*of.name), (3, "router up egress"));
        assert!(
            of.start_time_unix_nano >= whole.start_time_unix_nano && of.end_time_unix_nano <= whole.end_time_unix_nano
        );
    }
    assert_eq!(first.attribute("error.type").as_deref(), Some("connection_failure"));
    assert!(first.is_error() && !second.is_error());
    assert_eq!(second.attribute("http.request.resend_count").as_deref(), Some("1"));
    assert_eq!(second.end_time_unix_nano, whole.end_time_unix_nano, "its response is the request's");
}

#[test]
fn tries_after_a_redirect_count_from_one_again() {
    let redirected = |record: &RequestRecord| {
        let span = record.span().unwrap();
        for (host, status) in [("10.0.0.1:80", 302), ("10.0.0.2:80", 503)] {
            span.try_begins(1, host.into(), &mut HeaderMap::new());
            span.try_ended(1, TryResult::Status(status));
        }
        span.try_begins(2, "10.0.0.3:80".into(), &mut HeaderMap::new());
        span.try_ended(2, TryResult::Status(200));
        answered(200)(record);
    };
    let mut rig = Rig::new(Config { spawn_upstream_span: true, ..config(100) });
    let span = rig.open().unwrap();
    let spans = rig.finish(span, redirected);
    let of = |key| spans[1..].iter().map(|span| span.attribute(key).unwrap()).collect::<Vec<_>>();
    assert_eq!(of("http.response.status_code"), ["302", "503", "200"]);
    assert!(spans[1].end_time_unix_nano <= spans[2].start_time_unix_nano);
    let mut rig = Rig::new(config(100));
    let span = rig.open().unwrap();
    let spans = rig.finish(span, redirected);
    let names: Vec<_> = spans[0].events.iter().map(|event| &*event.name).collect();
    assert_eq!(names, ["internal_redirect", "retry"]);
}

#[test]
fn secrets_of_a_query_are_left_out() {
    for egress in [false, true] {
        let mut rig = Rig::new(config(100));
        rig.egress = egress;
        let span = rig.open_for("/blob?sv=1&sig=s3cr3t").unwrap();
        let spans = rig.finish(span, answered(200));
        let (key, value) = match egress {
            true => ("url.full", "http://shop.example:8080/blob?sv=1&sig=REDACTED"),
            false => ("url.query", "sv=1&sig=REDACTED"),
        };
        assert_eq!(spans[0].attribute(key).as_deref(), Some(value));
        assert!(!format!("{spans:?}").contains("s3cr3t"));
    }
}

#[test]
fn one_rate_is_one_limit_whoever_names_it() {
    let tracers = Tracers::default();
    let of = |rate| {
        let sampler = Some(Sampler::ParentBased(Box::new(Sampler::RateLimited(rate))));
        let config = Config { provider: Some(Arc::new(provider(sampler))), ..config(100) };
        tracers.tracing(&Arc::new(config), Arc::default).unwrap()
    };
    let (one, same, other) = (of(5), of(5), of(1000));
    assert!(Arc::ptr_eq(&one.limit, &same.limit));
    assert!(!Arc::ptr_eq(&one.limit, &other.limit));
    // What is owed to the slower one is nothing to the faster.
    let now = nanos();
    while one.limit.take(now, 5) {}
    assert!(other.limit.take(now, 1000));
}

#[test]
fn each_try_is_called_by_a_span_of_its_own_where_it_has_one() {
    let mut rig = Rig::new(Config { spawn_upstream_span: true, ..config(100) });
    let span = rig.open().unwrap();
    let mut sent = Vec::new();
    let spans = rig.finish(span, |record| {
        for number in 1..=2 {
            let mut headers = HeaderMap::new();
            record.span().unwrap().try_begins(number, "10.0.0.1:80".into(), &mut headers);
            sent.push(headers["traceparent"].to_str().unwrap()[36..52].to_owned());
        }
        answered(200)(record);
    });
    assert_eq!(sent, spans[1..].iter().map(|of| context::text(&of.span_id)).collect::<Vec<_>>());
}

#[test]
fn grpc_is_told_in_its_own_words() {
    let mut rig = Rig::new(config(100));
    let span = {
        let headers = &mut rig.headers;
        let request = Request {
            has_context: false,
            has_client_id: false,
            has_envoy: false,
            headers,
            egress: false,
            route: None,
            started: Instant::now(),
        };
        let head = |headers: &HeaderMap| Head::new((&Method::POST, "/shop.Cart/Add", "http"), headers, true);
        rig.tracing.open(request, head).unwrap()
    };
    let spans = rig.finish(span, |record| {
        record.response_head(200, &HeaderMap::new());
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from(14))]);
        record.trailers(&trailers);
        record.response_complete();
    });
    let of = |key| spans[0].attribute(key);
    assert_eq!(of("rpc.system").as_deref(), Some("grpc"));
    assert_eq!((of("rpc.service").as_deref(), of("rpc.method").as_deref()), (Some("shop.Cart"), Some("Add")));
    assert_eq!((of("rpc.grpc.status_code").as_deref(), of("error.type").as_deref()), (Some("14"), Some("14")));
    assert!(spans[0].is_error());
}

#[test]
fn decorators_name_spans_on_both_sides() {
    let decorated = |operation: &str, propagate| {
        let decorator = Some(Decorator { operation: operation.into(), propagate });
        Some(Arc::new(RouteTracing { decorator, own: None }))
    };
    let name = "x-envoy-decorator-operation";
    // Outbound: the callee hears of it, and may have a better name.
    let mut rig = Rig::new(config(100));
    (rig.egress, rig.route) = (true, decorated("reviews", true));
    let span = rig.open().unwrap();
    assert_eq!(rig.sent(name).as_deref(), Some("reviews"));
    let mut answer = HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static("reviews v2"))]);
    span.exchange_names(&mut answer);
    assert!(answer.is_empty(), "for this proxy only");
    assert_eq!(rig.finish(span, answered(200))[0].name, "reviews v2");
    // Inbound: what the caller said holds; else the caller hears ours.
    let mut rig = Rig::new(config(100)).header(name, "reviews");
    rig.route = decorated("own", true);
    let span = rig.open().unwrap();
    assert_eq!(rig.sent(name), None);
    let mut answer = HeaderMap::new();
    span.exchange_names(&mut answer);
    assert!(answer.is_empty());
    assert_eq!(rig.finish(span, answered(200))[0].name, "reviews");
    for (propagate, told) in [(true, Some("own")), (false, None)] {
        let mut rig = Rig::new(config(100));
        rig.route = decorated("own", propagate);
        let span = rig.open().unwrap();
        let mut answer = HeaderMap::new();
        span.exchange_names(&mut answer);
        assert_eq!(answer.get(name).map(|v| v.to_str().unwrap()), told);
        assert_eq!(rig.finish(span, answered(200))[0].name, "own");
    }
}

fn tag(name: &str, op: Operator, default: &str) -> CustomTag {
    let value = Template { segments: vec![Segment::Op { op, max_len: None }] };
    CustomTag { name: name.into(), value, default: default.into() }
}

#[test]
fn tags_are_taken_from_the_exchange() {
    let custom_tags = vec![
        tag("tenant", Operator::Req("x-tenant".into(), None), "nobody"),
        tag("code", Operator::ResponseCode, ""),
        tag("absent", Operator::Resp("x-none".into(), None), ""),
    ];
    for (tenant, expected) in [(None, "nobody"), (Some("acme"), "acme")] {
        let mut rig = Rig::new(Config { custom_tags: custom_tags.clone(), ..config(100) });
        let span = rig.open().unwrap();
        let spans = rig.finish(span, |record| {
            let tenant = tenant.map(|value| (HeaderName::from_static("x-tenant"), HeaderValue::from_static(value)));
            record.request_head(&HeaderMap::from_iter(tenant));
            answered(201)(record);
        });
        assert_eq!(spans[0].attribute("tenant").as_deref(), Some(expected));
        assert_eq!(spans[0].attribute("code").as_deref(), Some("201"));
        assert_eq!(spans[0].attribute("absent"), None);
    }
}

#[test]
fn what_a_request_brings_along_is_bounded() {
    let mut rig = Rig::new(config(100)).header("user-agent", &"ä".repeat(4000));
    let span = rig.open_for(&format!("/{}", "p".repeat(10_000))).unwrap();
    let spans = rig.finish(span, answered(200));
    assert_eq!(spans[0].attribute("url.path").unwrap().len(), 256);
    assert!(spans[0].attribute("user_agent.original").unwrap().len() <= 1024);
    let method = Method::from_bytes(b"BREW").unwrap();
    let head = Head::new((&method, "/", "http"), &HeaderMap::new(), false);
    let mut rig = Rig::new(config(100));
    let mut span = rig.open().unwrap();
    span.head = head;
    let spans = rig.finish(span, answered(200));
    assert_eq!(spans[0].attribute("http.request.method").as_deref(), Some("_OTHER"));
}
