//! The rate limit service: who may ask, and what is answered.

use outrigger_wire::pb::envoy::{
    extensions::common::ratelimit::v3::{RateLimitDescriptor, rate_limit_descriptor::Entry},
    service::ratelimit::v3::{
        RateLimitRequest, RateLimitResponse,
        rate_limit_response::{Code as Verdict, rate_limit::Unit},
        rate_limit_service_client::RateLimitServiceClient,
    },
};
use tonic::Code;

use super::*;
use crate::ratelimit::{
    rate::{Algorithm, Rate, Unit as Per},
    rules::{DOMAIN, OBJECT, ObjectRule, Objects},
};

fn publish(bench: &Bench) {
    let rule = |requests, enforced, keys: &[&str]| ObjectRule {
        namespace: Some("shop".into()),
        accounts: None,
        rate: Rate { requests, unit: Per::Year, burst: requests, algorithm: Algorithm::Gcra },
        enforced,
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
    };
    let limits: Objects = [
        ("shop/two".to_owned(), rule(2, true, &["path"])),
        ("shop/ten".to_owned(), rule(10, true, &[])),
        ("shop/dry".to_owned(), rule(1, false, &[])),
    ]
    .into();
    let generation = Generation::with_limits(1, "c".into(), limits, |_| Resources::default());
    bench.publisher.send_replace(Some(generation));
}

fn descriptor(entries: &[(&str, &str)]) -> RateLimitDescriptor {
    let entry = |(key, value): &(&str, &str)| Entry { key: (*key).to_owned(), value: (*value).to_owned() };
    RateLimitDescriptor { entries: entries.iter().map(entry).collect(), ..Default::default() }
}

fn question(descriptors: &[&[(&str, &str)]]) -> RateLimitRequest {
    let descriptors = descriptors.iter().map(|entries| descriptor(entries)).collect();
    RateLimitRequest { domain: DOMAIN.into(), descriptors, hits_addend: 0 }
}

async fn ask(
    channel: &Channel,
    token: Option<&str>,
    question: RateLimitRequest,
) -> Result<RateLimitResponse, tonic::Status> {
    let mut client = RateLimitServiceClient::new(channel.clone());
    Ok(soon(client.should_rate_limit(with_token(question, token))).await?.into_inner())
}

#[tokio::test]
async fn each_descriptor_is_answered_and_what_one_refuses_takes_nothing_from_the_others() {
    let bench = Bench::start().await;
    publish(&bench);
    let (channel, token) = (bench.secure("localhost", None).await.unwrap(), bench.token("shop", "web"));
    let both: &[&[(&str, &str)]] =
        &[&[(OBJECT, "shop/two"), ("path", "/a")], &[(OBJECT, "shop/ten")], &[("no", "rule")]];
    let mut left = Vec::new();
    for _ in 0..3 {
        let answer = ask(&channel, Some(&token), question(both)).await.unwrap();
        assert_eq!(answer.statuses.len(), 3);
        let first = answer.statuses[0].current_limit.clone().unwrap();
        assert_eq!((first.name.as_str(), first.requests_per_unit, first.unit()), ("shop/two", 2, Unit::Year));
        assert!(answer.statuses[0].duration_until_reset.unwrap().seconds > 3600);
        assert_eq!(answer.statuses[2].current_limit, None);
        left.push((answer.overall_code(), answer.statuses[0].limit_remaining, answer.statuses[1].limit_remaining));
    }
    assert_eq!(left, [(Verdict::Ok, 1, 9), (Verdict::Ok, 0, 8), (Verdict::OverLimit, 0, 8)]);
    let other = question(&[&[(OBJECT, "shop/two"), ("path", "/b")]]);
    assert_eq!(ask(&channel, Some(&token), other).await.unwrap().overall_code(), Verdict::Ok);
}

#[tokio::test]
async fn hits_are_counted_as_they_are_given_and_never_given_back() {
    let bench = Bench::start().await;
    publish(&bench);
    let (channel, token) = (bench.secure("localhost", None).await.unwrap(), bench.token("shop", "web"));
    let ten = |hits: Option<u64>, back: bool, addend: u32| {
        let mut one = descriptor(&[(OBJECT, "shop/ten")]);
        one.hits_addend = hits.map(|value| outrigger_wire::pb::google::protobuf::UInt64Value { value });
        one.is_negative_hits = back;
        RateLimitRequest { domain: DOMAIN.into(), descriptors: vec![one], hits_addend: addend }
    };
    let mut left = Vec::new();
    for question in [ten(None, false, 4), ten(Some(3), false, 9), ten(Some(0), false, 9)] {
        left.push(ask(&channel, Some(&token), question).await.unwrap().statuses[0].limit_remaining);
    }
    assert_eq!(left, [6, 3, 3]);
    let back = ask(&channel, Some(&token), ten(Some(2), true, 0)).await.unwrap_err();
    assert_eq!(back.code(), Code::InvalidArgument, "who is limited would undo it");
    // The same limit twice in one question counts twice.
    let twice = question(&[&[(OBJECT, "shop/ten")], &[(OBJECT, "shop/ten")]]);
    let answer = ask(&channel, Some(&token), twice).await.unwrap();
    assert_eq!((answer.statuses[0].limit_remaining, answer.statuses[1].limit_remaining), (1, 1));
}

#[tokio::test]
async fn what_is_not_enforced_is_counted_and_nobody_notices() {
    let bench = Bench::start().await;
    publish(&bench);
    let (channel, token) = (bench.secure("localhost", None).await.unwrap(), bench.token("shop", "web"));
    for _ in 0..4 {
        let answer = ask(&channel, Some(&token), question(&[&[(OBJECT, "shop/dry")]])).await.unwrap();
        assert_eq!((answer.overall_code(), answer.statuses[0].code()), (Verdict::Ok, Verdict::Ok));
        assert_eq!(answer.statuses[0].current_limit, None);
    }
    let report = bench.status.rate_limits.get().unwrap().report();
    assert_eq!((report.rules["shop/dry"].ok, report.rules["shop/dry"].would_deny), (1, 3));
    let mut text = String::new();
    bench.status.rate_limits.get().unwrap().render(&mut text);
    for line in [
        "outrigger_ratelimit_requests_total 4\n",
        "outrigger_ratelimit_keys 1\n",
        "outrigger_ratelimit_decisions_total{rule=\"shop/dry\",result=\"would_deny\"} 3\n",
    ] {
        assert!(text.contains(line), "{line} not in\n{text}");
    }
}

#[tokio::test]
async fn only_workloads_of_the_mesh_are_answered_and_only_about_their_own_limits() {
    let bench = Bench::start().await;
    let two = || question(&[&[(OBJECT, "shop/two")]]);
    let channel = bench.secure("localhost", None).await.unwrap();
    let (own, foreign) = (bench.token("shop", "web"), bench.token("bank", "web"));
    let code = |token: Option<&str>, question| {
        let (channel, token) = (channel.clone(), token.map(str::to_owned));
        async move { ask(&channel, token.as_deref(), question).await.unwrap_err().code() }
    };
    assert_eq!(code(Some(&own), two()).await, Code::Unavailable, "nothing was loaded yet");
    publish(&bench);
    assert_eq!(code(None, two()).await, Code::Unauthenticated);
    assert_eq!(code(Some("Bearer x.y.z"), two()).await, Code::Unauthenticated);
    assert_eq!(code(Some(&foreign), two()).await, Code::PermissionDenied);
    assert_eq!(ask(&bench.plain().await, None, two()).await.unwrap_err().code(), Code::Unauthenticated);
    for wrong in [
        question(&[]),
        question(&[&[]]),
        question(&[&[("", "x")]]),
        question(&[&[("k", "v")] as &[_]; 65]),
        RateLimitRequest { domain: String::new(), ..two() },
        RateLimitRequest { domain: "d".repeat(300), ..two() },
    ] {
        assert_eq!(code(Some(&own), wrong).await, Code::InvalidArgument);
    }
    let huge = question(&[&[("k", "v".repeat(400_000).as_str())]]);
    assert_eq!(code(Some(&own), huge).await, Code::OutOfRange);
    assert!(ask(&channel, Some(&own), two()).await.is_ok());
    let plaintext = Bench::start_with(true, HOUR).await;
    publish(&plaintext);
    assert!(ask(&plaintext.plain().await, None, two()).await.is_ok());
}
