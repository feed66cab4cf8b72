//! Real resources through the real decoder, from the wire to the snapshot.

use std::sync::Arc;

use outrigger_wire::{json, pb::google::protobuf::Any};

use super::{Net, config, serve, snapshot, status};
use crate::{
    ir::{cluster::Discovery, http::RouteSource, listener::Terminal},
    xds::{Kind, start},
};

/// One resource in YAML.
fn any(kind: Kind, yaml: &str) -> Any {
    let full_name = kind.type_url().trim_start_matches("type.googleapis.com/");
    Any { type_url: kind.type_url().into(), value: json::read_bytes(full_name, yaml).unwrap() }
}

const CLUSTER: &str = "
name: reviews
type: EDS
connect_timeout: 1s
eds_cluster_config: { eds_config: { ads: {} }, service_name: reviews.default }
";

const ENDPOINTS: &str = "
cluster_name: reviews.default
endpoints:
- lb_endpoints:
  - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 18080 } } }
";

const LISTENER: &str = "
name: outbound
address: { socket_address: { address: 127.0.0.1, port_value: 15001 } }
filter_chains:
- filters:
  - name: any name
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: outbound
      rds: { route_config_name: '8080', config_source: { ads: {} } }
      http_filters:
      - name: router
        typed_config: { '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
";

const ROUTES: &str = "
name: '8080'
virtual_hosts:
- name: all
  domains: ['*']
  routes:
  - match: { prefix: / }
    route: { cluster: reviews }
";

#[tokio::test]
async fn real_resources_reach_the_snapshot() {
    for delta in [false, true] {
        let net = Net::new();
        let handle = start(config(delta), Arc::clone(&net) as _);
        let mut call = net.call().await;
        serve(
            &mut call,
            "1",
            [
                any(Kind::Cluster, CLUSTER),
                any(Kind::Endpoints, ENDPOINTS),
                any(Kind::Listener, LISTENER),
                any(Kind::Routes, ROUTES),
            ],
            ["reviews.default", "8080"],
        )
        .await;
        let got = snapshot(&handle, "listener", |s| s.listeners.contains_key("outbound")).await;
        assert!(matches!(&got.clusters["reviews"].discovery, Discovery::Eds { .. }));
        assert_eq!(got.endpoints["reviews.default"].localities[0].endpoints[0].address.to_string(), "127.0.0.1:18080");
        let Terminal::Http(http) = &got.listeners["outbound"].chains[0].terminal else { panic!() };
        assert!(matches!(&http.routes, RouteSource::Rds { name, .. } if &**name == "8080"));
        assert_eq!(got.routes["8080"].virtual_hosts.len(), 1);
        // An authorization filter that is not understood refuses the listener and says where.
        let armed = LISTENER.replace(
            "      - name: router",
            "      - name: authz
        typed_config: { '@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua }
      - name: router",
        );
        call.send(Kind::Listener, "2", "l2", vec![any(Kind::Listener, &armed)]).await;
        let nack = call.expect(Kind::Listener).await;
        let error = nack.ack().1.unwrap().to_owned();
        assert!(error.contains("outbound: filter_chains[0].filters[0]") && error.contains("lua"), "{error}");
        assert!(handle.snapshot().listeners.contains_key("outbound"));
        status(&handle, "rejected", |s| s.kinds[&Kind::Listener].update_rejected == 1).await;
    }
}
