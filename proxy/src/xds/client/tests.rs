use std::{collections::BTreeSet, time::Duration};

use outrigger_wire::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
    },
};

use super::{backoff::Backoff, delta::Delta, sotw::Sotw, *};
use crate::xds::testing::endpoints;

fn node() -> Node {
    Node { id: "n".into(), ..Node::default() }
}

fn names(list: &[&str]) -> Interest {
    let names: BTreeSet<Name> = list.iter().map(|n| Name::from(*n)).collect();
    Interest::Names(names.into())
}

fn wants(list: &[(Kind, Interest)]) -> Interests {
    list.iter().cloned().collect()
}

fn all<P: Protocol>(protocol: &mut P) -> Vec<P::Request> {
    std::iter::from_fn(|| protocol.next()).take(100).collect()
}

fn settle<P: Protocol>(protocol: &mut P, update: &Update, error: Option<&str>) {
    let settled = Settled { kind: update.kind, version: update.version.clone(), nonce: update.nonce.clone() };
    protocol.settled(&settled, error.map(str::to_owned));
}

fn response(kind: Kind, version: &str, nonce: &str) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: version.into(),
        nonce: nonce.into(),
        type_url: kind.type_url().into(),
        ..Default::default()
    }
}

/// Version, nonce, names, node sent, error.
fn shape(r: &DiscoveryRequest) -> (&str, &str, &str, Vec<&str>, bool, Option<&str>) {
    let kind = Kind::from_type_url(&r.type_url).unwrap().as_str();
    let names = r.resource_names.iter().map(String::as_str).collect();
    (kind, &r.version_info, &r.response_nonce, names, r.node.is_some(), r.error_detail.as_ref().map(|e| &*e.message))
}

#[test]
fn sotw_asks_once_per_type_with_complete_lists() {
    let mut sotw = Sotw::new(node());
    sotw.connected(BTreeMap::new());
    sotw.want(&wants(&[
        (Kind::Listener, Interest::Wildcard),
        (Kind::Cluster, Interest::Wildcard),
        (Kind::Secret, names(&[])),
        (Kind::Endpoints, names(&["a", "b"])),
    ]));
    let sent = all(&mut sotw);
    assert_eq!(
        sent.iter().map(shape).collect::<Vec<_>>(),
        [
            ("cds", "", "", vec![], true, None),
            ("eds", "", "", vec!["a", "b"], false, None),
            ("lds", "", "", vec![], false, None),
        ],
        "no request for an empty list: it would mean everything"
    );
    sotw.want(&wants(&[(Kind::Cluster, Interest::Wildcard), (Kind::Endpoints, names(&["b", "c"]))]));
    let sent = all(&mut sotw);
    // LDS is not wanted any more.
    assert_eq!(
        sent.iter().map(shape).collect::<Vec<_>>(),
        [("eds", "", "", vec!["b", "c"], false, None), ("lds", "", "", vec![], false, None)]
    );
}

#[test]
fn sotw_acknowledges_after_the_verdict_and_keeps_the_good_version_on_refusal() {
    let mut sotw = Sotw::new(node());
    sotw.connected(BTreeMap::new());
    sotw.want(&wants(&[(Kind::Cluster, Interest::Wildcard)]));
    all(&mut sotw);
    let update = sotw.received(response(Kind::Cluster, "1", "n1")).unwrap();
    assert!(update.full);
    assert!(all(&mut sotw).is_empty(), "not yet judged");
    settle(&mut sotw, &update, None);
    assert_eq!(all(&mut sotw).iter().map(shape).collect::<Vec<_>>(), [("cds", "1", "n1", vec![], false, None)]);
    let update = sotw.received(response(Kind::Cluster, "2", "n2")).unwrap();
    settle(&mut sotw, &update, Some("no good"));
    assert_eq!(
        all(&mut sotw).iter().map(shape).collect::<Vec<_>>(),
        [("cds", "1", "n2", vec![], false, Some("no good"))]
    );
    // A subscription change carries the newest nonce and the last good version, and no error.
    sotw.want(&wants(&[(Kind::Cluster, Interest::Wildcard), (Kind::Endpoints, names(&["a"]))]));
    assert_eq!(all(&mut sotw).len(), 1);
}

#[test]
fn sotw_joins_the_acknowledgement_with_a_new_list() {
    let mut sotw = Sotw::new(node());
    sotw.connected(BTreeMap::new());
    sotw.want(&wants(&[(Kind::Endpoints, names(&["a"]))]));
    all(&mut sotw);
    let update = sotw.received(response(Kind::Endpoints, "1", "n1")).unwrap();
    settle(&mut sotw, &update, None);
    sotw.want(&wants(&[(Kind::Endpoints, names(&["a", "b"]))]));
    assert_eq!(all(&mut sotw).iter().map(shape).collect::<Vec<_>>(), [("eds", "1", "n1", vec!["a", "b"], false, None)]);
}

#[test]
fn sotw_forgets_nonces_but_not_versions_with_the_stream() {
    let mut sotw = Sotw::new(node());
    sotw.connected(BTreeMap::new());
    sotw.want(&wants(&[(Kind::Cluster, Interest::Wildcard), (Kind::Endpoints, names(&["a"]))]));
    all(&mut sotw);
    for kind in [Kind::Cluster, Kind::Endpoints] {
        let update = sotw.received(response(kind, "7", "n")).unwrap();
        settle(&mut sotw, &update, None);
    }
    // The stream breaks with both acknowledgements unsent, and the list grows meanwhile.
    sotw.want(&wants(&[(Kind::Cluster, Interest::Wildcard), (Kind::Endpoints, names(&["a", "b"]))]));
    sotw.connected(BTreeMap::new());
    assert_eq!(
        all(&mut sotw).iter().map(shape).collect::<Vec<_>>(),
        [("cds", "7", "", vec![], true, None), ("eds", "", "", vec!["a", "b"], false, None)],
        "version 7 never covered b, claiming it would hide b"
    );
}

#[test]
fn responses_nobody_asked_for_are_not_taken() {
    let mut sotw = Sotw::new(node());
    sotw.connected(BTreeMap::new());
    sotw.want(&wants(&[(Kind::Cluster, Interest::Wildcard)]));
    all(&mut sotw);
    assert!(sotw.received(response(Kind::Secret, "1", "n")).unwrap_err().contains("unsolicited"));
    let strange = DiscoveryResponse { type_url: "x/evil".into(), ..response(Kind::Cluster, "1", "n") };
    assert!(sotw.received(strange).unwrap_err().contains("x/evil"));
    assert!(all(&mut sotw).is_empty());
    let mut delta = Delta::new(node());
    delta.connected(BTreeMap::new());
    let strange = DeltaDiscoveryResponse { type_url: Kind::Secret.type_url().into(), ..Default::default() };
    assert!(delta.received(strange).is_err());
}

/// Type, subscribe, unsubscribe, nonce, error, node sent.
fn delta_shape(r: &DeltaDiscoveryRequest) -> (&str, Vec<&str>, Vec<&str>, &str, Option<&str>, bool) {
    (
        Kind::from_type_url(&r.type_url).unwrap().as_str(),
        r.resource_names_subscribe.iter().map(String::as_str).collect(),
        r.resource_names_unsubscribe.iter().map(String::as_str).collect(),
        &r.response_nonce,
        r.error_detail.as_ref().map(|e| &*e.message),
        r.node.is_some(),
    )
}

fn delta_response(kind: Kind, nonce: &str, resources: Vec<Resource>) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse { type_url: kind.type_url().into(), nonce: nonce.into(), resources, ..Default::default() }
}

#[test]
fn delta_sends_differences_and_one_reply_per_response() {
    let mut delta = Delta::new(node());
    delta.connected(BTreeMap::new());
    delta.want(&wants(&[(Kind::Cluster, Interest::Wildcard), (Kind::Endpoints, names(&["a", "b"]))]));
    assert_eq!(
        all(&mut delta).iter().map(delta_shape).collect::<Vec<_>>(),
        [("cds", vec![], vec![], "", None, true), ("eds", vec!["a", "b"], vec![], "", None, false)]
    );
    let first = delta.received(delta_response(Kind::Endpoints, "n1", vec![])).unwrap();
    let second = delta.received(delta_response(Kind::Endpoints, "n2", vec![])).unwrap();
    settle(&mut delta, &first, None);
    settle(&mut delta, &second, Some("bad"));
    delta.want(&wants(&[(Kind::Cluster, Interest::Wildcard), (Kind::Endpoints, names(&["b", "c"]))]));
    assert_eq!(
        all(&mut delta).iter().map(delta_shape).collect::<Vec<_>>(),
        [
            ("eds", vec![], vec![], "n1", None, false),
            ("eds", vec![], vec![], "n2", Some("bad"), false),
            // Apart from the replies, so that a stale nonce cannot swallow it.
            ("eds", vec!["c"], vec!["a"], "", None, false),
        ]
    );
    delta.want(&wants(&[(Kind::Cluster, Interest::Wildcard)]));
    assert_eq!(
        all(&mut delta).iter().map(delta_shape).collect::<Vec<_>>(),
        [("eds", vec![], vec!["b", "c"], "", None, false)]
    );
    assert!(all(&mut delta).is_empty());
}

#[test]
fn delta_reconnects_with_what_is_held_and_wanted() {
    let mut delta = Delta::new(node());
    delta.connected(BTreeMap::new());
    delta.want(&wants(&[(Kind::Cluster, Interest::Wildcard), (Kind::Endpoints, names(&["a", "b"]))]));
    all(&mut delta);
    let update = delta.received(delta_response(Kind::Cluster, "n1", vec![])).unwrap();
    settle(&mut delta, &update, None);
    let held = |list: &[(&str, &str)]| list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    delta.connected(BTreeMap::from([
        (Kind::Cluster, held(&[("x", "3")])),
        (Kind::Endpoints, held(&[("a", "1"), ("gone", "2")])),
    ]));
    let sent = all(&mut delta);
    assert_eq!(
        sent.iter().map(delta_shape).collect::<Vec<_>>(),
        [("cds", vec![], vec![], "", None, true), ("eds", vec!["a", "b"], vec![], "", None, false)],
        "the old stream's acknowledgement is void"
    );
    let versions = |i: usize| sent[i].initial_resource_versions.iter().map(|(n, v)| (&**n, &**v)).collect::<Vec<_>>();
    assert_eq!(versions(0), [("x", "3")]);
    assert_eq!(versions(1), [("a", "1")]);
    // Only the first request of a stream carries them.
    delta.want(&wants(&[(Kind::Cluster, Interest::Wildcard), (Kind::Endpoints, names(&["a", "b", "c"]))]));
    assert!(all(&mut delta)[0].initial_resource_versions.is_empty());
}

#[test]
fn delta_resources_keep_names_versions_and_times_to_live() {
    let mut delta = Delta::new(node());
    delta.connected(BTreeMap::new());
    delta.want(&wants(&[(Kind::Endpoints, names(&["a"]))]));
    all(&mut delta);
    let duration = |seconds, nanos| Some(outrigger_wire::pb::google::protobuf::Duration { seconds, nanos });
    let resource = |ttl| Resource {
        name: "a".into(),
        version: "v".into(),
        resource: Some(endpoints("a", 1)),
        aliases: vec!["alias".into()],
        ttl,
        ..Default::default()
    };
    let mut answer = delta_response(
        Kind::Endpoints,
        "n",
        vec![resource(duration(3, 5)), resource(duration(-1, 0)), resource(duration(1, -1)), resource(None)],
    );
    answer.removed_resources = vec!["b".into()];
    answer.system_version_info = "s".into();
    let update = delta.received(answer).unwrap();
    let ttls: Vec<_> = update.items.iter().map(|i| i.ttl).collect();
    assert_eq!(ttls, [Some(Duration::new(3, 5)), None, None, None]);
    assert_eq!((&*update.version, &*update.removed, update.full), ("s", &["b".to_owned()][..], false));
    assert_eq!((&*update.items[0].name, &*update.items[0].version), ("a", "v"));
}

#[test]
fn error_details_are_bounded_at_a_character() {
    let status = detail("ä".repeat(MAX_DETAIL));
    assert_eq!(status.code, 3);
    assert!(status.message.len() <= MAX_DETAIL + 4 && status.message.ends_with("ä ..."));
}

#[test]
fn backoff_grows_is_bounded_and_forgives_only_long_lives() {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    let waits: Vec<u128> = (0..9).map(|_| backoff.next(1.0).as_millis()).collect();
    assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
    assert_eq!(backoff.next(0.0), Duration::ZERO);
    assert_eq!(backoff.next(0.5), Duration::from_secs(15));
    backoff.lived(Duration::from_secs(9));
    assert_eq!(backoff.next(1.0), Duration::from_secs(30));
    backoff.lived(Duration::from_secs(10));
    assert_eq!(backoff.next(1.0), Duration::from_millis(500));
    for _ in 0..100 {
        assert!(backoff.next(1.0) <= Duration::from_secs(30));
    }
}
