use std::time::Instant;

use outrigger_wire::packed::Packed;
use outrigger_wire::pb::{
    envoy::{
        config::{
            bootstrap::v3::{Bootstrap, bootstrap::StaticResources},
            cluster::v3::Cluster,
            core::v3::{DataSource, data_source::Specifier},
        },
        extensions::transport_sockets::tls::v3::{Secret, TlsCertificate, secret::Type},
    },
    google::protobuf::Any,
};
use prost::Message;
use serde_json::{Value, json};

use super::*;
use crate::{
    ir::ConfigSource,
    xds::{
        StartConfig,
        client::Item,
        status::KindStatus,
        store::{Frame, prepare},
        testing::{self, eds, endpoints, fixed, listener, now, routes, secret},
    },
};

fn dump(query: &DumpQuery) -> Value {
    rendered(query).unwrap()
}

fn rendered(query: &DumpQuery) -> Result<Value, DumpError> {
    let bootstrap = Bootstrap {
        static_resources: Some(StaticResources {
            clusters: vec![Cluster { name: "static".into(), ..Default::default() }],
            secrets: vec![Secret {
                name: "own".into(),
                r#type: Some(Type::TlsCertificate(TlsCertificate {
                    private_key: Some(DataSource {
                        specifier: Some(Specifier::InlineString("TOP-SECRET".into())),
                        ..Default::default()
                    }),
                    certificate_chain: Some(DataSource {
                        specifier: Some(Specifier::InlineString("PUBLIC".into())),
                        ..Default::default()
                    }),
                    ..Default::default()
                })),
            }],
            ..Default::default()
        }),
        ..Default::default()
    };
    let config = StartConfig { lds: Some(ConfigSource::Ads), cds: Some(ConfigSource::Ads), ..Default::default() };
    let time = now(Instant::now(), 1_700_000_000);
    let mut store = Store::new(&config, testing::decode, time);
    let source = ConfigSource::Ads;
    let mut deliver = |kind, version: &str, resources: Vec<Any>| {
        let items = resources.into_iter().map(|r| prepare(&store, &source, kind, Item::bare(r))).collect();
        let frame = Frame { source: &source, kind, version, full: true, removed: &[] };
        store.apply(&frame, items, time);
        store.resolve(time);
    };
    deliver(Kind::Cluster, "c1", vec![fixed("live", 1, "secrets=s"), eds("cold", 1, ""), eds("warm", 1, "")]);
    deliver(Kind::Secret, "s1", vec![secret("s", 1)]);
    deliver(Kind::Endpoints, "e1", vec![endpoints("warm", 120)]);
    deliver(Kind::Listener, "l1", vec![listener("l", "rds=r"), listener("bad", "")]);
    deliver(Kind::Routes, "r1", vec![routes("r", "live")]);
    let mut status = Status::default();
    status.kinds.insert(Kind::Cluster, KindStatus { version: "c1".into(), ..Default::default() });
    Dump::of(&store, Some(Packed::pack(&bootstrap.encode_to_vec())), &status).render(query)
}

fn named<'a>(dump: &'a Value, message: &str) -> &'a Value {
    let url = format!("type.googleapis.com/envoy.admin.v3.{message}");
    dump["configs"].as_array().unwrap().iter().find(|c| c["@type"] == *url).unwrap()
}

#[test]
fn everything_is_shown_in_envoys_shape() {
    let dump = dump(&DumpQuery::default());
    let types: Vec<&str> = dump["configs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["@type"].as_str().unwrap().rsplit('.').next().unwrap())
        .collect();
    assert_eq!(
        types,
        ["BootstrapConfigDump", "ClustersConfigDump", "ListenersConfigDump", "RoutesConfigDump", "SecretsConfigDump"]
    );
    let clusters = named(&dump, "ClustersConfigDump");
    assert_eq!(clusters["version_info"], "c1");
    assert_eq!(clusters["static_clusters"][0]["cluster"]["name"], "static");
    let active = clusters["dynamic_active_clusters"].as_array().unwrap();
    assert_eq!(active.len(), 2);
    assert_eq!(
        active[0],
        json!({
            "version_info": "c1",
            "cluster": {
                "@type": Kind::Cluster.type_url(),
                "name": "live",
                "connect_timeout": "1s",
                "alt_stat_name": "secrets=s",
            },
            "last_updated": "2023-11-14T22:13:20Z",
            "client_status": "ACKED",
        })
    );
    assert_eq!(clusters["dynamic_warming_clusters"][0]["cluster"]["name"], "cold");
    let listeners = named(&dump, "ListenersConfigDump")["dynamic_listeners"].as_array().unwrap();
    assert_eq!(listeners[0]["name"], "bad");
    assert_eq!(listeners[0]["client_status"], "NACKED");
    assert!(listeners[0]["error_state"]["details"].as_str().unwrap().contains("bad by name"));
    assert_eq!(listeners[0]["error_state"]["failed_configuration"]["name"], "bad");
    assert_eq!(listeners[1]["active_state"]["listener"]["stat_prefix"], "rds=r");
    assert_eq!(named(&dump, "RoutesConfigDump")["dynamic_route_configs"][0]["route_config"]["name"], "r");
}

#[test]
fn every_part_parses_as_envoys_own_message() {
    let dump = dump(&DumpQuery { include_eds: true, ..Default::default() });
    for config in dump["configs"].as_array().unwrap() {
        let mut config = config.clone();
        let url = config.as_object_mut().unwrap().remove("@type").unwrap();
        let name = url.as_str().unwrap().trim_start_matches("type.googleapis.com/");
        assert!(!outrigger_wire::json::bytes_from_value(name, config).unwrap().is_empty(), "{name}");
    }
    let endpoints = named(&dump, "EndpointsConfigDump")["dynamic_endpoint_configs"].as_array().unwrap();
    assert_eq!(endpoints[0]["endpoint_config"]["cluster_name"], "cold");
    assert_eq!(endpoints[0]["client_status"], "REQUESTED");
    assert_eq!(endpoints[1]["endpoint_config"]["policy"]["overprovisioning_factor"], 120);
}

#[test]
fn private_keys_are_blanked_everywhere() {
    let dump = dump(&DumpQuery::default());
    let text = dump.to_string();
    assert!(!text.contains("TOP-SECRET"));
    assert_eq!(text.matches("[redacted]").count(), 2, "in the bootstrap and among the secrets");
    assert_eq!(text.matches("PUBLIC").count(), 2);
    let mut value = json!({
        "private_key": { "inline_bytes": "AAAA", "filename": "/key" },
        "x": [{ "session_ticket_keys": { "keys": [{ "inline_string": "k" }] } }],
        "password": "p",
    });
    redact::redact(&mut value);
    assert_eq!(
        value,
        json!({
            "private_key": { "inline_bytes": "W3JlZGFjdGVkXQ==", "filename": "/key" },
            "x": [{ "session_ticket_keys": { "keys": [{ "inline_string": "[redacted]" }] } }],
            "password": "[redacted]",
        })
    );
}

#[test]
fn queries_narrow_the_answer() {
    let resource = |name: &str| DumpQuery { resource: Some(name.into()), ..Default::default() };
    let configs = dump(&resource("dynamic_active_clusters"));
    assert_eq!(configs["configs"].as_array().unwrap().len(), 2);
    assert_eq!(configs["configs"][0]["@type"], "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.DynamicCluster");
    assert_eq!(rendered(&resource("nonsense")), Err(DumpError::NotFound("nonsense".into())));
    let single = rendered(&resource("bootstrap")).unwrap_err().to_string();
    assert_eq!(single, "bootstrap is not a repeated field. Use ?mask=bootstrap to get only this field");
    assert_eq!(dump(&resource("static_route_configs")), json!({"configs": []}), "known, and there is none");
    let names = DumpQuery { name_regex: Some("li.e".into()), ..Default::default() };
    let narrowed = dump(&names);
    assert_eq!(named(&narrowed, "ClustersConfigDump")["dynamic_active_clusters"].as_array().unwrap().len(), 1);
    assert!(named(&narrowed, "ListenersConfigDump")["dynamic_listeners"].is_null());
    let broken = DumpQuery { name_regex: Some("(".into()), ..Default::default() };
    assert!(rendered(&broken).unwrap_err().to_string().contains("name_regex"));
}

#[test]
fn masks_leave_what_they_name() {
    let ask = |resource: Option<&str>, mask: &str| {
        rendered(&DumpQuery { resource: resource.map(Into::into), mask: Some(mask.into()), ..Default::default() })
    };
    let names = ask(Some("dynamic_active_clusters"), "cluster.name").unwrap();
    let (of, url) = ("type.googleapis.com/envoy.admin.v3.ClustersConfigDump.DynamicCluster", Kind::Cluster.type_url());
    assert_eq!(names["configs"][0], json!({"@type": of, "cluster": {"@type": url, "name": "live"}}));
    let whole = ask(None, "version_info").unwrap();
    let types: Vec<&str> = whole["configs"].as_array().unwrap().iter().map(|c| c["@type"].as_str().unwrap()).collect();
    assert!(types.iter().any(|t| t.ends_with("ClustersConfigDump")) && !types.iter().any(|t| t.contains("Bootstrap")));
    assert_eq!(whole["configs"][0].as_object().unwrap().len(), 2, "{whole}");
    for (resource, mask) in [(None, "nope"), (None, "static_clusters.cluster.name"), (Some("static_clusters"), "x")] {
        assert!(matches!(ask(resource, mask), Err(DumpError::Bad(_))), "{mask}");
    }
}
