use std::time::Duration;

use super::{routes::forward, *};
use crate::ir::route::{Action, BodyBuffer, RetryOn, StreamDuration};

#[test]
fn retry_policies_arrive() {
    let f = forward(
        "cluster: c, retry_policy: {retry_on: 'connect-failure,5xx , retriable-status-codes,odd', num_retries: 4, \
         per_try_timeout: 2s, retriable_status_codes: [503], retry_back_off: {base_interval: 0.01s}, \
         host_selection_retry_max_attempts: 5, retry_host_predicate: [{name: p, typed_config: {\"@type\": \
         type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}]}",
    );
    let r = f.retry.clone().unwrap();
    assert!(
        r.on.contains(RetryOn::CONNECT_FAILURE)
            && r.on.contains(RetryOn::SERVER_ERROR)
            && !r.on.contains(RetryOn::RESET)
    );
    assert_eq!(
        (r.max_retries, r.per_try_timeout, r.retriable_status.as_slice()),
        (4, Some(Duration::from_secs(2)), &[503][..])
    );
    assert_eq!((r.backoff_base, r.backoff_max), (Duration::from_millis(10), Duration::from_millis(100)));
    assert!(r.avoid_previous_hosts && r.host_selection_attempts == 5);
    let r = forward("cluster: c, retry_policy: {}").retry.clone().unwrap();
    assert_eq!(
        (r.max_retries, r.backoff_base, r.backoff_max),
        (1, Duration::from_millis(25), Duration::from_millis(250))
    );
}

#[test]
fn all_of_a_retry_policy_arrives() {
    let host = |kind: &str| {
        format!("{{name: p, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.retry.host.{kind}}}}}")
    };
    let f = forward(&format!(
        "cluster: c, retry_policy: {{retry_on: 'retriable-headers,unavailable', retriable_headers: [{{name: x-a}}], \
         retriable_request_headers: [{{name: ':method', string_match: {{exact: GET}}}}], retry_host_predicate: [{}, {}], \
         rate_limited_retry_back_off: {{reset_headers: [{{name: Retry-After}}, {{name: X-Reset, format: \
         UNIX_TIMESTAMP}}], max_interval: 20s}}, per_try_idle_timeout: 3s}}",
        host("omit_canary_hosts.v3.OmitCanaryHostsPredicate"),
        host("previous_hosts.v3.PreviousHostsPredicate"),
    ));
    let r = f.retry.clone().unwrap();
    assert_eq!(r.on, RetryOn::RETRIABLE_HEADERS.union(RetryOn::GRPC_UNAVAILABLE));
    assert_eq!((r.retriable_headers.len(), r.retriable_request_headers.len()), (1, 1));
    assert!(r.omit_canary && r.avoid_previous_hosts);
    let names: Vec<_> = r.reset_headers.iter().map(|h| (h.name.as_str(), h.unix_time)).collect();
    assert_eq!(names, [("retry-after", false), ("x-reset", true)]);
    assert_eq!((r.reset_max, r.per_try_idle_timeout), (Duration::from_secs(20), Some(Duration::from_secs(3))));
}

#[test]
fn timeouts_hedging_and_buffers_arrive() {
    let f = forward(
        "cluster: c, max_stream_duration: {max_stream_duration: 0s, grpc_timeout_header_max: 5s, \
         grpc_timeout_header_offset: 0.1s}, hedge_policy: {hedge_on_per_try_timeout: true}",
    );
    let stream = StreamDuration {
        max: Some(None),
        grpc_max: Some(Some(Duration::from_secs(5))),
        grpc_offset: Duration::from_millis(100),
    };
    assert_eq!((f.stream.as_deref(), f.hedge), (Some(&stream), Some(true)));
    let f = forward("cluster: c, max_grpc_timeout: 0s, grpc_timeout_offset: 1s, hedge_policy: {}");
    assert_eq!((f.grpc_timeout_max, f.grpc_timeout_offset), (Some(None), Duration::from_secs(1)));
    assert_eq!((f.stream.as_deref(), f.hedge), (None, Some(false)));
    assert_eq!(forward("cluster: c, flush_timeout: 0s").flush_timeout, Some(None));
    let buffer = |fields: &str| {
        let routes = the_routes(&route_of(&format!("route: {{cluster: c}}, {fields}")));
        let Action::Forward(f) = routes.virtual_hosts[0].routes[0].action.clone() else { panic!() };
        f.body_buffer
    };
    assert_eq!(buffer("request_body_buffer_limit: 5000000000"), Some(BodyBuffer::Exactly(5_000_000_000)));
    assert_eq!(buffer("per_request_buffer_limit_bytes: 7"), Some(BodyBuffer::AtMost(7)));
}

#[test]
fn zero_timeouts_are_off_and_explicit() {
    let f = forward(
        "cluster: c, timeout: 0s, idle_timeout: 0s, max_stream_duration: {max_stream_duration: 0s, grpc_timeout_header_max: 0s}",
    );
    assert_eq!((f.timeout, f.idle_timeout), (None, Some(None)));
    let stream = f.stream.as_deref().unwrap();
    assert_eq!((stream.max, stream.grpc_max), (Some(None), Some(None)));
    let f = forward("cluster: c, idle_timeout: 2s, max_stream_duration: {grpc_timeout_header_max: 3s}");
    assert_eq!(f.idle_timeout, Some(Some(Duration::from_secs(2))));
    let stream = f.stream.as_deref().unwrap();
    assert_eq!((stream.max, stream.grpc_max), (None, Some(Some(Duration::from_secs(3)))));
}

#[test]
fn retries_leave_priorities_as_often_as_they_are_told() {
    use outrigger_wire::pb::{
        envoy::{
            config::route::v3::{
                RetryPolicy,
                retry_policy::{RetryPriority, retry_priority::ConfigType},
            },
            extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig,
        },
        google::protobuf::Any,
    };
    use prost::{Message, Name};
    let decoded = |type_url: String, update_frequency: i32| {
        let value = PreviousPrioritiesConfig { update_frequency }.encode_to_vec();
        let config_type = Some(ConfigType::TypedConfig(Any { type_url, value }));
        let priority = RetryPriority { name: "p".into(), config_type };
        let message = RetryPolicy { retry_priority: Some(priority), ..RetryPolicy::default() };
        let mut notes = Notes::default();
        let policy = at::rooted("test", "r", &mut notes, |at: &at::At<'_>| retry::retry(&Some(message), at));
        policy.map(|policy| (policy.unwrap().previous_priorities.map(|n| n.get()), notes.len()))
    };
    assert_eq!(decoded(PreviousPrioritiesConfig::type_url(), 2).unwrap(), (Some(2), 0));
    for wrong in [0, -1] {
        let error = decoded(PreviousPrioritiesConfig::type_url(), wrong).unwrap_err().to_string();
        assert!(error.contains("retry_policy.retry_priority.typed_config.update_frequency"), "{error}");
    }
    assert_eq!(decoded("type.googleapis.com/some.Other".into(), 2).unwrap(), (None, 1));
    let unnamed = RetryPolicy { retry_priority: Some(RetryPriority::default()), ..RetryPolicy::default() };
    let decode = |at: &at::At<'_>| retry::retry(&Some(unnamed), at);
    assert!(at::rooted("test", "r", &mut Notes::default(), decode).is_err());
}

#[test]
fn hosts_can_be_omitted_by_metadata() {
    use outrigger_wire::pb::{
        envoy::{
            config::{
                core::v3::Metadata,
                route::v3::{
                    RetryPolicy,
                    retry_policy::{RetryHostPredicate, retry_host_predicate::ConfigType},
                },
            },
            extensions::retry::host::omit_host_metadata::v3::OmitHostMetadataConfig,
        },
        google::protobuf::{Any, Struct, Value, value::Kind},
    };
    use prost::{Message, Name};
    let stage = Value { kind: Some(Kind::StringValue("old".into())) };
    let labels = Struct { fields: [("stage".to_owned(), stage)].into_iter().collect() };
    let predicate = OmitHostMetadataConfig {
        metadata_match: Some(Metadata {
            filter_metadata: [("envoy.lb".to_owned(), labels)].into_iter().collect(),
            ..Metadata::default()
        }),
    };
    let config = Any { type_url: OmitHostMetadataConfig::type_url(), value: predicate.encode_to_vec() };
    let message = RetryPolicy {
        retry_host_predicate: vec![RetryHostPredicate {
            name: "p".into(),
            config_type: Some(ConfigType::TypedConfig(config)),
        }],
        ..RetryPolicy::default()
    };
    let decode = |at: &at::At<'_>| retry::retry(&Some(message), at);
    let policy = at::rooted("test", "r", &mut Notes::default(), decode).unwrap().unwrap();
    assert_eq!(policy.omit_metadata[0]["envoy.lb"]["stage"], "old");
}
