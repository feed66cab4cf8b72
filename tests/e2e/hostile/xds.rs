//! A control plane that sends nonsense: the proxy says what is wrong, takes what is right, and goes on serving with the
//! last good configuration. Both protocols.

use outrigger_tests::{Fabric, Kind, Pod, Process, eventually, need, proxies::write_bootstrap};
use outrigger_wire::pb::google::protobuf::Any;
use prost::Message;
use tonic::Status;

use crate::{
    ads::{Ads, CLUSTER, Call, LISTENER, resource},
    target::Dice,
};

const BOOTSTRAP: &str = "
node: {id: hostile, cluster: hostile}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 15000}}}
dynamic_resources:
  ads_config:
    api_type: @PROTOCOL@
    transport_api_version: V3
    grpc_services: [{envoy_grpc: {cluster_name: control}}]
  lds_config: {ads: {}, resource_api_version: V3}
  cds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - name: control
    type: STATIC
    connect_timeout: 2s
    load_assignment: {cluster_name: control, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 18000}}}}]}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
";

/// A listener that answers by itself.
fn answering(name: &str, port: u16, text: &str) -> Any {
    resource(
        LISTENER,
        &format!(
            "name: {name}
address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
filter_chains:
- filters:
  - name: http
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: {name}
      route_config:
        name: {name}
        virtual_hosts:
        - {{name: all, domains: ['*'], routes: [{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: {text}}}}}}}]}}
      http_filters:
      - {{name: router, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}
"
        ),
    )
}

fn garbage(type_url: &str, bytes: &[u8]) -> Any {
    Any { type_url: type_url.to_owned(), value: bytes.to_vec() }
}

fn cluster(name: &str) -> Any {
    resource(CLUSTER, &format!("{{name: {name}, type: STATIC, connect_timeout: 1s}}"))
}

struct Proxy<'a> {
    pod: &'a Pod,
    process: Process,
}

impl Proxy<'_> {
    fn says(&self, port: u16, text: &str) {
        eventually(&format!("{text} on port {port}"), || {
            let (_, said) = self.pod.try_sh(&format!("curl -sS -m 5 http://127.0.0.1:{port}/"));
            if said == text { Ok(()) } else { Err(said) }
        });
    }

    /// At once: this is what it served before.
    fn still_says(&mut self, port: u16, text: &str, after: &str) {
        assert!(self.process.is_running(), "after {after}: {}", self.process.output());
        assert!(!self.process.output().contains("panicked"), "after {after}: {}", self.process.output());
        let (_, said) = self.pod.try_sh(&format!("curl -sS -m 10 http://127.0.0.1:{port}/"));
        assert_eq!(said, text, "after {after}");
    }
}

#[test]
fn hostile_state_of_the_world() {
    need!("ip", "curl");
    hostile("GRPC");
}

#[test]
fn hostile_delta() {
    need!("ip", "curl");
    hostile("DELTA_GRPC");
}

fn hostile(protocol: &str) {
    let mut fabric = Fabric::new();
    let pod = fabric.pod("proxy", &[]);
    let ads = Ads::serve(pod.listen(18000));
    let file = write_bootstrap(&pod, BOOTSTRAP, &[("PROTOCOL", protocol)]);
    let mut proxy = Proxy { process: Kind::Outrigger.start(&pod, &file), pod: &pod };
    let call = ads.call();
    assert_eq!(call.delta, protocol == "DELTA_GRPC");

    good_beside_bad(&call, &mut proxy);
    nonsense(&call, &mut proxy);
    let before = proxy.process.resident_kb();
    floods(&call, &mut proxy);
    let call = broken_streams(call, &ads, &mut proxy);
    // After all of it the next good word is heard.
    call.send(LISTENER, "last", vec![("good", answering("good", 8001, "after-all"))]);
    assert_eq!(call.verdict("last"), None);
    proxy.says(8001, "after-all");
    eventually("memory that is given back", || {
        let now = proxy.process.resident_kb();
        if now < before + 60 * 1024 { Ok(()) } else { Err(format!("from {before} to {now} kB")) }
    });
}

/// Good listeners of a response apply; the bad ones are named with the reason.
fn good_beside_bad(call: &Call, proxy: &mut Proxy<'_>) {
    call.send(CLUSTER, "c1", vec![("fine", cluster("fine"))]);
    assert_eq!(call.verdict("c1"), None);
    call.send(LISTENER, "l1", vec![("good", answering("good", 8001, "first"))]);
    assert_eq!(call.verdict("l1"), None);
    proxy.says(8001, "first");

    let unknown_filter = resource(
        LISTENER,
        "name: guarded
address: {socket_address: {address: 127.0.0.1, port_value: 8002}}
filter_chains:
- filters:
  - name: http
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: guarded
      route_config: {name: r, virtual_hosts: [{name: all, domains: ['*'], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}]}
      http_filters:
      - {name: script, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua}}
      - {name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
",
    );
    let response = vec![
        ("good", answering("good", 8001, "second")),
        ("guarded", unknown_filter),
        ("broken", garbage(LISTENER, b"\x0a\xff\xff\xff\xff\xff\xff")),
        ("other", answering("other", 8003, "beside")),
    ];
    call.send(LISTENER, "l2", response);
    let reason = call.verdict("l2").expect("a refusal");
    assert!(reason.contains("guarded") && reason.contains("http_filters[0]") && reason.contains("Lua"), "{reason}");
    assert!(reason.len() < 16 << 10, "{} bytes of reason", reason.len());
    proxy.says(8001, "second");
    proxy.says(8003, "beside");
    let (ok, said) = proxy.pod.try_sh("curl -sS -m 5 http://127.0.0.1:8002/");
    assert!(!ok, "a listener whose filter is not understood serves: {said}");
    let stats = proxy.pod.sh("curl -sS 'http://127.0.0.1:15000/stats?filter=lds.update_rejected'");
    assert!(stats.contains("update_rejected: 1"), "{stats}");
    // Equal once more: refused again, harmless again.
    call.send(
        LISTENER,
        "l3",
        vec![("good", answering("good", 8001, "second")), ("other", answering("other", 8003, "beside"))],
    );
    assert_eq!(call.verdict("l3"), None);
}

fn nonsense(call: &Call, proxy: &mut Proxy<'_>) {
    let ours = || vec![("good", answering("good", 8001, "second")), ("other", answering("other", 8003, "beside"))];
    let with = |name: &'static str, any: Any| ours().into_iter().chain([(name, any)]).collect::<Vec<_>>();
    let mut dice = Dice(0x0dd_ba11);
    for round in 0..20 {
        let size = 1 + dice.below(3000);
        let nonce = format!("noise{round}");
        call.send(LISTENER, &nonce, with("noise", garbage(LISTENER, &dice.bytes(size))));
        // Most random bytes are no protobuf; the few that are must fail for another reason, having no address.
        assert!(call.verdict(&nonce).is_some(), "random bytes were taken for a listener");
        // A good response in between: refusals in a row are answered ever more slowly.
        call.send(LISTENER, "between", ours());
        assert_eq!(call.verdict("between"), None);
        proxy.still_says(8001, "second", &nonce);
    }
    // A listener's bytes with one bit turned: whatever comes of it, it is answered.
    let whole = answering("good", 8001, "second").value;
    for round in 0..40 {
        let mut bytes = whole.clone();
        let at = dice.below(bytes.len());
        bytes[at] ^= 1 << dice.below(8);
        let nonce = format!("turned{round}");
        let other = || ("other", answering("other", 8003, "beside"));
        call.send(LISTENER, &nonce, vec![("good", garbage(LISTENER, &bytes)), other()]);
        let _ = call.verdict(&nonce);
        proxy.still_says(8003, "beside", &nonce);
        call.send(LISTENER, "between", vec![other()]);
        assert_eq!(call.verdict("between"), None);
    }
    call.send(LISTENER, "back", ours());
    assert_eq!(call.verdict("back"), None);
    proxy.says(8001, "second");

    // The right type outside, another inside.
    call.send(LISTENER, "inner", with("liar", cluster("liar")));
    let reason = call.verdict("inner").expect("a refusal");
    assert!(reason.contains("Cluster"), "{reason}");
    proxy.still_says(8001, "second", "a wrong inner type");
    // A name that is another's.
    call.send(LISTENER, "twice", with("good", answering("good", 8004, "twin")));
    let _ = call.verdict("twice");
    call.send(LISTENER, "back2", ours());
    assert_eq!(call.verdict("back2"), None);
    proxy.says(8001, "second");
    // No name at all; a port that is another's.
    call.send(LISTENER, "nameless", with("", answering("''", 8005, "nameless")));
    let _ = call.verdict("nameless");
    call.send(LISTENER, "taken", with("taken", answering("taken", 8001, "taken")));
    let reason = call.verdict("taken").expect("a refusal");
    assert!(reason.contains("taken") && reason.contains("127.0.0.1:8001"), "{reason}");
    proxy.still_says(8001, "second", "a port that is taken");
    // Types that nobody asked for, or that do not exist.
    for type_url in ["type.googleapis.com/envoy.config.route.v3.RouteConfiguration", "type.googleapis.com/no.Such", ""]
    {
        call.send(type_url, "unasked", vec![("x", garbage(type_url, b"x"))]);
    }
    call.send(LISTENER, "after", ours());
    assert_eq!(call.verdict("after"), None, "the stream goes on after a type that nobody asked for");
    proxy.still_says(8001, "second", "unknown types");
}

/// Much of everything.
fn floods(call: &Call, proxy: &mut Proxy<'_>) {
    let good = || ("good", answering("good", 8001, "second"));
    let names: Vec<String> = (0..2000).map(|n| format!("cluster-{n}")).collect();
    let mut clusters = vec![("fine", cluster("fine"))];
    clusters.extend(names.iter().map(|name| (name.as_str(), garbage(CLUSTER, b"\xff\xff"))));
    call.send(CLUSTER, "many-bad", clusters);
    let reason = call.verdict("many-bad").expect("a refusal");
    assert!(reason.len() < 64 << 10, "{} bytes of reason for 2000 errors", reason.len());
    proxy.still_says(8001, "second", "2000 bad clusters");

    let long = "n".repeat(1 << 20);
    call.send(CLUSTER, "long", vec![("fine", cluster("fine")), (&long, cluster(&long))]);
    let reason = call.verdict("long");
    assert!(reason.as_ref().is_none_or(|r| r.len() < 64 << 10), "{} bytes", reason.unwrap().len());
    // 32 MB in one resource.
    call.send(LISTENER, "huge", vec![good(), ("huge", garbage(LISTENER, &vec![0x0a; 32 << 20]))]);
    let reason = call.verdict("huge").expect("a refusal");
    assert!(reason.len() < 64 << 10, "{} bytes of reason", reason.len());
    proxy.still_says(8001, "second", "a huge resource");
    // Nesting that a recursive reader would not survive: a message in a message in a message.
    let mut nested = Vec::new();
    for _ in 0..100_000 {
        let mut outer = vec![0x1a];
        prost::encoding::encode_varint(nested.len() as u64, &mut outer);
        if nested.len() > 200_000 {
            break;
        }
        outer.extend(&nested);
        nested = outer;
    }
    call.send(LISTENER, "deep", vec![good(), ("deep", garbage(LISTENER, &nested))]);
    assert!(call.verdict("deep").is_some());
    proxy.still_says(8001, "second", "deep nesting");
    for n in 0..8 {
        call.send(LISTENER, &format!("f{n}"), vec![good(), ("bad", garbage(LISTENER, b"\xff"))]);
    }
    assert!(call.verdict("f7").is_some());
    proxy.still_says(8001, "second", "refusals in a row");
    call.send(CLUSTER, "fine", vec![("fine", cluster("fine"))]);
    assert_eq!(call.verdict("fine"), None);
}

/// Streams that end in every way; each time the proxy comes back and has forgotten nothing.
fn broken_streams(call: Call, ads: &Ads, proxy: &mut Proxy<'_>) -> Call {
    call.send_bytes(b"\xff\xff\xff\xff not a response".to_vec());
    let call = ads.call();
    proxy.still_says(8001, "second", "a message that is none");
    call.fail(Status::internal("x".repeat(100)));
    let call = ads.call();
    proxy.still_says(8001, "second", "a failed stream");
    call.fail(Status::unauthenticated("who are you"));
    let call = ads.call();
    proxy.still_says(8001, "second", "a refused stream");
    drop(call);
    let call = ads.call();
    call.subscribed(LISTENER);
    proxy.still_says(8001, "second", "a stream that just ended");
    // An answer to a question of another stream.
    let stale = outrigger_wire::pb::envoy::service::discovery::v3::DiscoveryResponse::default().encode_to_vec();
    call.send_bytes(stale);
    call
}
