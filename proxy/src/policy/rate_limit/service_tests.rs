use http::HeaderMap;
use outrigger_wire::pb::{
    envoy::{
        config::core::v3::HeaderValue as PbHeader,
        service::ratelimit::v3::{
            RateLimitResponse,
            rate_limit_response::{Code, DescriptorStatus, RateLimit, rate_limit::Unit},
        },
    },
    google::protobuf::Duration,
};

use super::{
    Descriptor,
    service::{allows, announce, headers, question, retry_after},
};
use crate::ir::rate_limit::Limit;

fn status(code: Code, limit: Option<(u32, Unit, &str)>, remaining: u32, reset: (i64, i32)) -> DescriptorStatus {
    DescriptorStatus {
        code: code.into(),
        current_limit: limit.map(|(requests, unit, name)| RateLimit {
            name: name.to_owned(),
            requests_per_unit: requests,
            unit: unit.into(),
        }),
        limit_remaining: remaining,
        duration_until_reset: Some(Duration { seconds: reset.0, nanos: reset.1 }),
        ..DescriptorStatus::default()
    }
}

#[test]
fn a_question_has_everything_of_the_descriptors() {
    let descriptor = Descriptor {
        entries: [("k".into(), "v".into())].into_iter().collect(),
        limit: Some(Limit { requests: 5, unit: 3 }),
        hits: Some(7),
        negative: true,
        headers: None,
    };
    let asked = question("d", &[descriptor]);
    let one = &asked.descriptors[0];
    assert_eq!((asked.domain.as_str(), one.entries[0].key.as_str(), one.entries[0].value.as_str()), ("d", "k", "v"));
    let limit = one.limit.unwrap();
    assert_eq!((limit.requests_per_unit, limit.unit, one.is_negative_hits), (5, 3, true));
    assert_eq!(one.hits_addend.unwrap().value, 7);
}

#[test]
fn only_known_codes_say_anything() {
    let says = |overall_code| allows(&RateLimitResponse { overall_code, ..RateLimitResponse::default() });
    assert_eq!([says(1), says(2), says(0), says(99)], [Some(true), Some(false), None, None]);
}

#[test]
fn what_frames_a_message_is_not_for_the_service_to_say() {
    let one = |key: &str, value: &str| PbHeader { key: key.into(), value: value.into(), ..PbHeader::default() };
    let list = [
        one("X-A", "1"),
        one("x-a", "2"),
        one("content-length", "3"),
        one("transfer-encoding", "chunked"),
        one("connection", "close"),
        one("host", "other"),
        one(":status", "200"),
        one("x y", "z"),
        one("x-b", "a\r\nb: c"),
        PbHeader { raw_value: b"raw".to_vec(), ..one("x-raw", "") },
    ];
    let text = |request| {
        let map = headers(&list, request);
        map.iter().map(|(n, v)| format!("{n}={}", v.to_str().unwrap())).collect::<Vec<_>>().join(",")
    };
    assert_eq!(text(true), "x-a=1,x-a=2,x-raw=raw");
    assert_eq!(text(false), "x-a=1,x-a=2,host=other,x-raw=raw");
    let many: Vec<_> = (0..40_000).map(|i| one(&format!("x-{i}"), "v")).collect();
    assert!(headers(&many, false).len() <= 32_768, "as many as a map can hold");
}

#[test]
fn the_limit_that_is_closest_is_announced() {
    let announced = |statuses: &[DescriptorStatus]| {
        let mut map = HeaderMap::new();
        announce(statuses, &mut map);
        map.values().map(|v| v.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(announced(&[]).is_empty());
    assert!(announced(&[status(Code::Ok, None, 0, (1, 0))]).is_empty());
    let many = status(Code::Ok, Some((100, Unit::Hour, "per-ip")), 50, (40, 0));
    let few = status(Code::Ok, Some((10, Unit::Minute, "")), 3, (20, 0));
    let unknown = status(Code::Ok, Some((7, Unit::Unknown, "")), 9, (1, 0));
    assert_eq!(announced(&[many, few, unknown]), ["10, 100;w=3600;name=\"per-ip\", 10;w=60", "3", "20"]);
    let evil = status(Code::Ok, Some((1, Unit::Day, "a\r\nb")), 3, (20, 0));
    assert!(announced(&[evil]).is_empty(), "no header can be made of it");
}

#[test]
fn the_last_limit_to_be_reset_says_when_to_come_back() {
    assert_eq!(retry_after(&[status(Code::Ok, None, 0, (9, 0))]), None);
    let over = |seconds, nanos| status(Code::OverLimit, None, 0, (seconds, nanos));
    assert_eq!(retry_after(&[over(3, 0), over(5, 0)]), Some(5));
    assert_eq!(retry_after(&[over(0, 0)]), Some(1));
    assert_eq!(retry_after(&[over(4, 1)]), Some(5), "not before");
    assert_eq!(retry_after(&[over(-4, 0)]), Some(1));
}
