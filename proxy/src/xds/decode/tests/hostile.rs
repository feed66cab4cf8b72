//! Bytes nobody meant: random damage to valid resources, wrong types, wrappers without content.

use outrigger_wire::{pack_any, pb::envoy::service::discovery::v3::Resource as Wrapper};
use prost::Message;

use super::*;

#[test]
fn damaged_resources_never_panic() {
    let seeds: Vec<Any> = istio::SIDECAR
        .iter()
        .flat_map(|set| istio::resources(set))
        .chain([any(&route_of("route: {cluster: c, retry_policy: {retry_on: 5xx}}"))])
        .collect();
    let mut random = fastrand::Rng::with_seed(0x0177_1663);
    let mut refused = 0;
    for round in 0..6000 {
        let mut any = seeds[round % seeds.len()].clone();
        for _ in 0..random.usize(1..8) {
            let length = any.value.len();
            match random.u8(0..4) {
                _ if length == 0 => any.value.push(random.u8(..)),
                0 => any.value[random.usize(..length)] = random.u8(..),
                1 => any.value[random.usize(..length)] ^= 1 << random.u8(0..8),
                2 => any.value.truncate(random.usize(..length)),
                _ => any.value.insert(random.usize(..length), random.u8(..)),
            }
        }
        refused += usize::from(resource(&any, &mut Notes::default()).is_err());
    }
    assert!(refused > 1000, "the damage must reach the decoder: {refused}");
}

#[test]
fn wrappers_are_opened() {
    let inner = any(&cluster_of(""));
    let wrapper = Wrapper {
        name: "c".into(),
        version: "7".into(),
        resource: Some(inner.clone()),
        ttl: Some(outrigger_wire::pb::google::protobuf::Duration { seconds: 3, nanos: 0 }),
        ..Wrapper::default()
    };
    let packed = pack_any(wrapper);
    let opened = envelope(&packed).unwrap();
    assert_eq!((opened.name.as_str(), opened.version.as_str(), opened.ttl), ("c", "7", Some(Duration::from_secs(3))));
    assert!(matches!(resource(&packed, &mut Notes::default()), Ok(Resource::Cluster(_))));
    let bare = envelope(&inner).unwrap();
    assert!(bare.name.is_empty() && bare.resource.is_some());
    let empty = pack_any(Wrapper { name: "gone".into(), ..Wrapper::default() });
    assert!(envelope(&empty).unwrap().resource.is_none());
    let reject = resource(&empty, &mut Notes::default()).unwrap_err();
    assert_eq!(&*reject.resource, "gone");
    let negative = Wrapper {
        ttl: Some(outrigger_wire::pb::google::protobuf::Duration { seconds: -1, nanos: 0 }),
        ..Wrapper::default()
    };
    assert_eq!(envelope(&pack_any(negative)).unwrap_err().path, "ttl");
}

#[test]
fn names_and_types_are_required() {
    for (type_url, value, reason) in [
        ("", vec![], "not supported"),
        ("type.googleapis.com/envoy.service.runtime.v3.Runtime", vec![], "Runtime"),
        ("type.googleapis.com/envoy.config.cluster.v3.Cluster", vec![0xff], "malformed protobuf"),
        ("type.googleapis.com/envoy.service.discovery.v3.Resource", vec![0xff], "malformed resource"),
        ("type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", vec![], "needs a name"),
        ("type.googleapis.com/envoy.config.route.v3.RouteConfiguration", vec![], "needs a name"),
    ] {
        let any = Any { type_url: type_url.into(), value };
        let reject = resource(&any, &mut Notes::default()).unwrap_err();
        assert!(reject.to_string().contains(reason), "{type_url}: {reject}");
    }
}

#[test]
fn a_resource_of_an_unknown_type_keeps_its_name() {
    let reject = decode(&format!("{{\"@type\": {T}/no.such.Type, name: strange}}")).unwrap_err();
    assert_eq!((&*reject.kind, &*reject.resource), ("no.such.Type", "strange"));
    let typed = |name: &str| {
        format!("{{\"@type\": {T}/xds.type.v3.TypedStruct, type_url: {T}/{CLUSTER}, value: {{{name}: c}}}}")
    };
    assert_eq!(the_cluster(&typed("name")), the_cluster(&cluster_of("")));
    assert!(decode(&typed("nmae")).unwrap_err().reason.contains("nmae: unknown field"));
}

#[test]
fn a_listener_without_a_name_is_for_bootstraps_only() {
    let yaml = listener_of(&tcp("cluster: c"), "").replacen("name: l,", "", 1);
    assert_eq!(decode(&yaml).unwrap_err().path, "name");
}

#[test]
fn typed_structs_of_known_types_are_converted_and_nested_ones_refused() {
    let typed = |inner: &str| format!("{{name: x, typed_config: {{\"@type\": {T}/xds.type.v3.TypedStruct, {inner}}}}}");
    let good = typed(&format!(
        "type_url: {T}/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, value: {{stat_prefix: s, cluster: c}}"
    ));
    assert_eq!(the_listener(&listener_of(&good, "")), the_listener(&listener_of(&tcp("cluster: c"), "")));
    let path = "filter_chains[0].filters[0].typed_config";
    refused(&[
        (
            listener_of(
                &typed(&format!(
                    "type_url: {T}/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, value: {{clutser: c}}"
                )),
                "",
            ),
            &format!("{path}.value.clutser"),
            "unknown field",
        ),
        (
            listener_of(&typed(&format!("type_url: {T}/xds.type.v3.TypedStruct")), ""),
            &format!("{path}.type_url"),
            "TypedStruct",
        ),
        (listener_of(&typed(""), ""), &format!("{path}.type_url"), "not a type"),
        (
            listener_of(&typed(&format!("type_url: {T}/envoy.extensions.filters.network.ext_authz.v3.ExtAuthz")), ""),
            path,
            "ExtAuthz",
        ),
    ]);
}

#[test]
fn deep_nesting_is_refused_by_the_protobuf_decoder() {
    // NotMatch in NotMatch: field 3 of the predicate, length-delimited.
    let mut predicate = vec![];
    for _ in 0..5000 {
        let mut outer = vec![0x1a];
        prost::encoding::encode_varint(predicate.len() as u64, &mut outer);
        outer.extend(&predicate);
        predicate = outer;
    }
    // Listener field 9 (listener_filters), whose field 4 is the predicate.
    let wrap = |tag: u8, inner: &[u8]| {
        let mut outer = vec![tag];
        prost::encoding::encode_varint(inner.len() as u64, &mut outer);
        outer.extend(inner);
        outer
    };
    let value = wrap(0x4a, &wrap(0x22, &predicate));
    let any = Any { type_url: format!("{T}/{LISTENER}"), value };
    let reject = resource(&any, &mut Notes::default()).unwrap_err();
    assert!(reject.reason.contains("recursion limit"), "{reject}");
    assert!(PbListener::decode(any.value.as_slice()).is_err());
}
