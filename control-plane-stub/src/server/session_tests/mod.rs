mod delta;
mod sotw;

use std::collections::HashMap;

use outrigger_wire::{
    pack_any,
    pb::{
        envoy::config::cluster::v3::cluster::EdsClusterConfig,
        google::{protobuf::Any, rpc::Status as RpcStatus},
    },
};

use super::{
    super::requests::{MAX_BYTES, MAX_NAMES, MAX_TYPES, Told},
    *,
};
use crate::{
    resources::{ClientKind, Node, Resources},
    server::source::Generation,
    status::metrics::Metrics,
};
use outrigger_wire::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};

/// Resources from `kind name value` words: `c a 1` is cluster `a` whose bytes follow `1`.
fn world(generation: u64, words: &[(&str, &str, &str)]) -> Arc<Snapshot> {
    let mut resources = Resources::default();
    for (kind, name, value) in words {
        let any = Any { type_url: (*kind).into(), value: (*value).into() };
        match *kind {
            "c" => {
                let config = EdsClusterConfig { service_name: (*name).into(), ..Default::default() };
                let cluster = Cluster {
                    name: (*name).into(),
                    alt_stat_name: (*value).into(),
                    eds_cluster_config: Some(config),
                    ..Default::default()
                };
                resources.clusters.insert((*name).into(), pack_any(cluster))
            }
            "e" => resources.endpoints.insert((*name).into(), any),
            "l" => resources.listeners.insert((*name).into(), any),
            "r" => resources.routes.insert((*name).into(), any),
            other => panic!("{other}"),
        };
    }
    let node = Node {
        id: "n".into(),
        kind: ClientKind::Envoy,
        namespace: "n".into(),
        service_account: "s".into(),
        ips: Vec::new(),
        labels: BTreeMap::new(),
        locality: Default::default(),
    };
    Generation::new(generation, "c".into(), move |_| resources.clone()).snapshot(&node, &Metrics::default())
}

const C: TypeUrl = TypeUrl::Cluster;
const E: TypeUrl = TypeUrl::Endpoints;
const L: TypeUrl = TypeUrl::Listener;
const R: TypeUrl = TypeUrl::Route;

fn delta(kind: &TypeUrl, subscribe: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.as_str().into(),
        resource_names_subscribe: subscribe.iter().map(|s| (*s).into()).collect(),
        ..Default::default()
    }
}

fn sotw(kind: &TypeUrl, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        type_url: kind.as_str().into(),
        resource_names: names.iter().map(|s| (*s).into()).collect(),
        ..Default::default()
    }
}

fn error(text: &str) -> Option<RpcStatus> {
    Some(RpcStatus { message: text.into(), ..Default::default() })
}

fn names(push: &Push) -> Vec<&str> {
    push.resources.iter().map(|(name, _)| name.as_str()).collect()
}

struct Bench(Session);

impl Bench {
    fn new(variant: Variant, snapshot: &Arc<Snapshot>) -> Self {
        let mut session = Session::new(variant);
        session.set_world(Arc::clone(snapshot));
        Self(session)
    }

    fn next(&mut self) -> Option<Push> {
        self.0.next(Instant::now())
    }

    /// Everything due, as `TYPE +changed -removed` lines.
    fn drain(&mut self) -> Vec<(TypeUrl, Vec<String>, Vec<String>, String)> {
        std::iter::from_fn(|| self.next())
            .map(|p| (p.kind.clone(), p.resources.into_iter().map(|(n, _)| n).collect(), p.removed, p.nonce))
            .collect()
    }

    fn ack_delta(&mut self, kind: &TypeUrl, nonce: &str) -> Told {
        let request = DeltaDiscoveryRequest { response_nonce: nonce.into(), ..delta(kind, &[]) };
        self.0.accept_delta(&request).unwrap()
    }

    fn ack_sotw(&mut self, kind: &TypeUrl, names: &[&str], nonce: &str) -> Told {
        let request = DiscoveryRequest { response_nonce: nonce.into(), ..sotw(kind, names) };
        self.0.accept_sotw(&request).unwrap()
    }
}

#[test]
fn nothing_but_secrets_before_the_first_world() {
    let mut session = Session::new(Variant::Delta);
    session.accept_delta(&delta(&C, &["*"])).unwrap();
    assert_eq!(session.next(Instant::now()), None);
    assert!(!session.is_settled());
    session.set_world(world(1, &[]));
    let push = session.next(Instant::now()).expect("an empty world is an answer once there is a world");
    assert!(push.resources.is_empty());
}

#[test]
fn removals_come_last_and_wait_for_what_used_them() {
    for variant in [Variant::Delta, Variant::Sotw] {
        let one = world(1, &[("c", "old", "1"), ("e", "old", "1"), ("l", "x", "1"), ("r", "r", "old")]);
        let two = world(2, &[("c", "new", "1"), ("e", "new", "1"), ("l", "x", "1"), ("r", "r", "new")]);
        let mut bench = Bench::new(variant, &one);
        for (kind, wanted) in [(&C, vec![]), (&E, vec!["old", "new"]), (&L, vec![]), (&R, vec!["r"])] {
            match variant {
                Variant::Delta => drop(bench.0.accept_delta(&delta(kind, &wanted)).unwrap()),
                Variant::Sotw => drop(bench.0.accept_sotw(&sotw(kind, &wanted)).unwrap()),
            }
            let (_, _, _, nonce) = bench.drain().pop().unwrap();
            match variant {
                Variant::Delta => bench.ack_delta(kind, &nonce),
                Variant::Sotw => bench.ack_sotw(kind, &wanted, &nonce),
            };
        }
        bench.0.set_world(two);
        let pushes = bench.drain();
        let order: Vec<&TypeUrl> = pushes.iter().map(|p| &p.0).collect();
        assert_eq!(order, [&C, &E, &R], "{variant:?}");
        assert!(pushes.iter().all(|p| p.2.is_empty()), "{variant:?}: nothing is removed yet");
        if variant == Variant::Sotw {
            assert_eq!(pushes[0].1, ["new", "old"], "the old cluster stays for now");
        }
        assert!(!bench.0.is_settled());

        let nonce = pushes[2].3.clone();
        match variant {
            Variant::Delta => bench.ack_delta(&R, &nonce),
            Variant::Sotw => bench.ack_sotw(&R, &["r"], &nonce),
        };
        let pushes = bench.drain();
        assert_eq!(pushes[0].0, C, "{variant:?}");
        match variant {
            Variant::Delta => {
                assert_eq!(pushes[0].2, ["old"]);
                assert_eq!((&pushes[1].0, &pushes[1].2), (&E, &vec!["old".to_owned()]));
            }
            Variant::Sotw => assert_eq!((pushes.len(), &pushes[0].1), (1, &vec!["new".to_owned()])),
        }
        assert!(bench.0.is_settled(), "{variant:?}");
    }
}

#[test]
fn removals_do_not_wait_for_ever_but_never_follow_a_refusal() {
    let one = world(1, &[("c", "old", "1"), ("r", "r", "old")]);
    let two = world(2, &[("r", "r", "new")]);
    let prepare = || {
        let mut bench = Bench::new(Variant::Delta, &one);
        bench.0.accept_delta(&delta(&C, &[])).unwrap();
        bench.0.accept_delta(&delta(&R, &["r"])).unwrap();
        for (kind, _, _, nonce) in bench.drain() {
            bench.ack_delta(&kind, &nonce);
        }
        bench.0.set_world(Arc::clone(&two));
        let push = bench.next().unwrap();
        assert_eq!(push.kind, R);
        (bench, push.nonce)
    };
    let (mut silent, _) = prepare();
    let now = Instant::now();
    assert_eq!(silent.0.next(now), None);
    let wake = silent.0.wake_at(now).unwrap();
    assert_eq!(silent.0.next(wake).unwrap().removed, ["old"]);

    let (mut refusing, nonce) = prepare();
    let request = DeltaDiscoveryRequest { response_nonce: nonce, error_detail: error("no"), ..delta(&R, &[]) };
    let told = refusing.0.accept_delta(&request).unwrap();
    assert_eq!(told.nacked.unwrap().1, "no");
    assert_eq!(refusing.0.next(now), None);
    assert_eq!(refusing.0.next(now + REMOVAL_PATIENCE * 2), None);
    // The next world mends it.
    refusing.0.set_world(world(3, &[("r", "r", "newer")]));
    let push = refusing.0.next(now).unwrap();
    refusing.ack_delta(&R, &push.nonce);
    assert_eq!(refusing.0.next(now).unwrap().removed, ["old"]);
}

#[test]
fn a_changed_cluster_brings_its_endpoints_again() {
    for variant in [Variant::Delta, Variant::Sotw] {
        let mut bench =
            Bench::new(variant, &world(1, &[("c", "a", "1"), ("e", "a", "1"), ("c", "b", "1"), ("e", "b", "1")]));
        match variant {
            Variant::Delta => {
                bench.0.accept_delta(&delta(&C, &[])).unwrap();
                bench.0.accept_delta(&delta(&E, &["a", "b"])).unwrap();
            }
            Variant::Sotw => {
                bench.0.accept_sotw(&sotw(&C, &[])).unwrap();
                bench.0.accept_sotw(&sotw(&E, &["a", "b"])).unwrap();
            }
        }
        bench.drain();
        bench.0.set_world(world(2, &[("c", "a", "2"), ("e", "a", "1"), ("c", "b", "1"), ("e", "b", "1")]));
        let pushes = bench.drain();
        let kinds: Vec<&TypeUrl> = pushes.iter().map(|p| &p.0).collect();
        assert_eq!(kinds, [&C, &E], "{variant:?}");
        let expected: &[&str] = if variant == Variant::Delta { &["a"] } else { &["a", "b"] };
        assert_eq!(pushes[1].1, expected, "{variant:?}");
    }
}

#[test]
fn unknown_types_are_answered_with_nothing() {
    let mut bench = Bench::new(Variant::Delta, &world(1, &[]));
    let kind = TypeUrl::Other("type.googleapis.com/envoy.service.runtime.v3.Runtime".into());
    bench.0.accept_delta(&delta(&kind, &["rtds"])).unwrap();
    assert_eq!(bench.next().unwrap().removed, ["rtds"]);
    let mut bench = Bench::new(Variant::Sotw, &world(1, &[]));
    bench.0.accept_sotw(&sotw(&kind, &["rtds"])).unwrap();
    assert!(bench.next().unwrap().resources.is_empty());
}

#[test]
fn hostile_requests_are_refused_not_stored() {
    let mut session = Session::new(Variant::Delta);
    assert!(session.accept_delta(&delta(&TypeUrl::Other(String::new()), &[])).is_err());
    assert!(session.accept_delta(&delta(&R, &[""])).is_err());
    assert!(session.accept_delta(&delta(&R, &["x".repeat(5000).as_str()])).is_err());
    let many: Vec<String> = (0..=MAX_NAMES).map(|i| i.to_string()).collect();
    let many = DeltaDiscoveryRequest { resource_names_subscribe: many, ..delta(&R, &[]) };
    assert_eq!(session.accept_delta(&many).unwrap_err().code(), tonic::Code::ResourceExhausted);
    let mut types = Session::new(Variant::Sotw);
    let refused = (0..100).filter(|i| types.accept_sotw(&sotw(&TypeUrl::Other(i.to_string()), &[])).is_err()).count();
    assert_eq!(refused, 100 - MAX_TYPES);
}

#[test]
fn names_that_were_never_sent_leave_nothing_behind() {
    let mut bench = Bench::new(Variant::Delta, &world(1, &[("c", "a", "1")]));
    bench.0.accept_delta(&delta(&C, &[])).unwrap();
    // Nothing is read meanwhile.
    for round in 0..20 {
        let names = (0..50).map(|i| format!("{round}-{i}")).collect();
        let unsubscribe = DeltaDiscoveryRequest { resource_names_unsubscribe: names, ..delta(&C, &[]) };
        bench.0.accept_delta(&unsubscribe).unwrap();
    }
    let held = &bench.0.subscriptions[&C];
    assert_eq!((held.sent.len(), held.claimed_bytes()), (0, 0));
    assert_eq!(names(&bench.next().unwrap()), ["a"]);
}

#[test]
fn what_a_stream_remembers_of_its_client_is_bounded_in_bytes() {
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut session = Session::new(variant);
        let ask = |session: &mut Session, kind: usize| {
            let kind = TypeUrl::Other(kind.to_string());
            let names: Vec<String> = (0..8000).map(|i| format!("{i:02000}")).collect();
            match variant {
                Variant::Sotw => session.accept_sotw(&DiscoveryRequest { resource_names: names, ..sotw(&kind, &[]) }),
                Variant::Delta => session
                    .accept_delta(&DeltaDiscoveryRequest { resource_names_subscribe: names, ..delta(&kind, &[]) }),
            }
        };
        let most = MAX_BYTES / (8000 * 2064);
        for kind in 0..most {
            ask(&mut session, kind).unwrap();
        }
        assert_eq!(ask(&mut session, most).unwrap_err().code(), tonic::Code::ResourceExhausted, "{variant:?}");
    }
    let mut session = Session::new(Variant::Delta);
    let versions = HashMap::from([("x".to_owned(), "v".repeat(MAX_BYTES))]);
    let brought = DeltaDiscoveryRequest { initial_resource_versions: versions, ..delta(&C, &["*"]) };
    assert_eq!(session.accept_delta(&brought).unwrap_err().code(), tonic::Code::ResourceExhausted);
}
