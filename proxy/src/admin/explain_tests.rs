use serde_json::{Value, json};

use super::tests::{Rig, start_beside};

const LISTENERS: &str = r#"
  - name: capture
    address: {socket_address: {address: 127.0.0.1, port_value: 15001}}
    use_original_dst: true
    traffic_direction: OUTBOUND
    filter_chains:
    - filters:
      - name: tcp
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: a}
  - name: web
    address: {socket_address: {address: 0.0.0.0, port_value: 80}}
    bind_to_port: false
    traffic_direction: OUTBOUND
    filter_chains:
    - name: plain
      filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          http_filters:
          - name: guard
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
              rules:
                action: DENY
                policies:
                  "no admin":
                    permissions: [{url_path: {path: {prefix: /admin}}}]
                    principals: [{any: true}]
          - name: limit
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
              stat_prefix: l
              token_bucket: {max_tokens: 2, tokens_per_fill: 1, fill_interval: 3600s}
              filter_enabled: {default_value: {numerator: 100}}
              filter_enforced: {default_value: {numerator: 100}}
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            name: routes
            validate_clusters: false
            virtual_hosts:
            - name: shop
              domains: [shop.test]
              routes:
              - match: {prefix: /old}
                redirect: {path_redirect: /new}
              - match: {path: /gone}
                direct_response: {status: 410}
              - match: {prefix: /lost}
                route: {cluster: nowhere}
              - match: {prefix: /empty}
                route: {cluster: nobody}
              - name: rest
                match: {prefix: /}
                route:
                  cluster: a
                  prefix_rewrite: /v2/
                  timeout: 3s
                  retry_policy: {retry_on: "5xx,reset", num_retries: 4, per_try_timeout: 1s}
"#;

const PASSTHROUGH: &str = r#"
  - name: through
    address: {socket_address: {address: 127.0.0.1, port_value: 15002}}
    use_original_dst: true
    traffic_direction: OUTBOUND
    filter_chains:
    - filters:
      - name: tcp
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: origin}
"#;

const CLUSTERS: &str = r#"
  - name: nobody
    type: STATIC
    load_assignment: {cluster_name: nobody}
  - name: origin
    type: ORIGINAL_DST
    lb_policy: CLUSTER_PROVIDED
"#;

async fn rig() -> Rig {
    start_beside(&[LISTENERS.to_owned(), PASSTHROUGH.to_owned()], &[CLUSTERS.to_owned()]).await
}

async fn ask(rig: &Rig, query: &str) -> Value {
    rig.json(&format!("/explain?{query}")).await
}

#[tokio::test]
async fn a_captured_request_is_followed_to_its_endpoints() {
    let rig = rig().await;
    let report = ask(&rig, "host=shop.test&path=/x?q=1").await;
    assert_eq!(report["listener"]["accepted_by"], "capture");
    assert_eq!(report["listener"]["name"], "web");
    assert_eq!(report["filter_chain"]["name"], "plain");
    assert_eq!((&report["virtual_host"], &report["route"]["name"]), (&json!("shop"), &json!("rest")));
    assert_eq!(report["outcome"], json!({"kind": "forwarded", "cluster": "a"}));
    let forwarding = &report["forwarding"];
    assert_eq!(forwarding["upstream_request"]["path"], "/v2/x?q=1");
    assert_eq!(forwarding["timeouts"]["response_ms"], 3000);
    assert_eq!(forwarding["retry"]["max_retries"], 4);
    assert_eq!(forwarding["retry"]["conditions"], json!(["5xx", "reset"]));
    assert_eq!(forwarding["endpoints"]["hosts"][0]["address"], "127.0.0.1:1");
    assert_eq!(forwarding["endpoints"]["hosts"][0]["eligible"], true);
    assert_eq!(report["unknown"], json!([]));
    let (status, text) = rig.get("/explain?host=shop.test&format=text").await;
    assert_eq!(status, 200);
    assert!(text.contains("\nroute:\n  name: rest\n") && text.contains("kind: forwarded\n"), "{text}");
}

#[tokio::test]
async fn answers_of_our_own_are_told_with_their_reasons() {
    let rig = rig().await;
    let outcome = async |query: &str| ask(&rig, query).await["outcome"].clone();
    let denied = ask(&rig, "host=shop.test&path=/admin/x").await;
    assert_eq!((&denied["outcome"]["status"], &denied["filters"][0]["policy"]), (&json!(403), &json!("no admin")));
    assert_eq!(denied["outcome"]["details"], "rbac_access_denied_matched_policy[no_admin]");
    let moved = outcome("host=shop.test&path=/old/1").await;
    assert_eq!((&moved["status"], &moved["location"]), (&json!(301), &json!("http://shop.test/new")));
    assert_eq!(outcome("host=shop.test&path=/gone").await["status"], 410);
    assert_eq!(outcome("host=shop.test&path=/lost").await["flags"], "NC");
    assert_eq!(outcome("host=other.test").await["flags"], "NR");
    assert_eq!(outcome("host=").await["details"], "missing_host_header");
    assert_eq!(outcome("port=81&protocol=tcp").await, json!({"kind": "forwarded", "cluster": "a"}));
    assert_eq!(outcome("listener=nothing").await["kind"], "refused");
}

#[tokio::test]
async fn nobody_to_go_to_is_no_forwarding() {
    let rig = rig().await;
    let report = ask(&rig, "host=shop.test&path=/empty").await;
    assert_eq!((&report["outcome"]["kind"], &report["outcome"]["status"]), (&json!("answered"), &json!(503)));
    assert_eq!(
        (&report["outcome"]["flags"], &report["outcome"]["details"]),
        (&json!("UH"), &json!("no_healthy_upstream"))
    );
    let through = ask(&rig, "listener=through&address=10.1.2.3&port=5432&protocol=tcp").await;
    assert_eq!(through["outcome"], json!({"kind": "forwarded", "cluster": "origin"}));
    assert_eq!(through["tcp"]["endpoints"][0], json!({"address": "10.1.2.3:5432", "eligible": true}));
    let own = ask(&rig, "listener=through&port=15002&protocol=tcp").await;
    assert_eq!(own["outcome"], json!({"kind": "refused", "details": "no_healthy_upstream"}));
}

#[tokio::test]
async fn a_handshake_is_nothing_to_a_chain_without_tls() {
    let rig = rig().await;
    let outcome = async |query: &str| ask(&rig, query).await["outcome"].clone();
    assert_eq!(outcome("host=shop.test&tls=true").await["kind"], "refused");
    assert_eq!(outcome("host=shop.test&principal=spiffe://cluster.local/ns/a/sa/b").await["kind"], "refused");
    assert_eq!(outcome("port=81&protocol=tcp&sni=x").await["kind"], "forwarded", "bytes like any other");
}

#[tokio::test]
async fn who_serves_nobody_says_so() {
    let rig = rig().await;
    rig.overload();
    let outcome = &ask(&rig, "host=shop.test").await["outcome"];
    assert_eq!(outcome["kind"], "refused");
    assert!(outcome["details"].as_str().unwrap().starts_with("overload"), "{outcome}");
}

#[tokio::test]
async fn asking_takes_no_tokens_and_counts_nothing() {
    let rig = rig().await;
    for _ in 0..10 {
        let report = ask(&rig, "host=shop.test").await;
        assert_eq!(
            (&report["outcome"]["kind"], &report["filters"][1]["tokens_left"]),
            (&json!("forwarded"), &json!(2))
        );
    }
    let counted = rig.get("/stats?usedonly&filter=web").await.1;
    assert_eq!(counted, "");
}

#[tokio::test]
async fn what_is_not_understood_is_refused() {
    let rig = rig().await;
    for query in [
        "metod=GET",
        "port=x",
        "source=a",
        "header=x",
        "protocol=ftp",
        "method=A%20B",
        "path=a%20b",
        "format=xml",
        "direction=up",
    ] {
        assert_eq!(rig.get(&format!("/explain?{query}")).await.0, 400, "{query}");
    }
}
