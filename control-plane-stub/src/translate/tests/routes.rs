//! What VirtualServices become.

use super::*;

fn hosts(resources: &Resources, name: &str) -> Vec<Value> {
    get(&resources.routes, name)["virtual_hosts"].as_array().unwrap().clone()
}

fn host(resources: &Resources, config: &str, name: &str) -> Value {
    let hosts = hosts(resources, config);
    hosts.iter().find(|host| host["name"] == name).unwrap_or_else(|| panic!("no {name} in {hosts:#?}")).clone()
}

#[test]
fn reviews_is_split_as_documented() {
    let resources = sidecar(&world("bookinfo"), "default", "10.244.0.10");
    let reviews = host(&resources, "9080", "reviews.default.svc.cluster.local:9080");
    assert_eq!(
        reviews["domains"],
        json!([
            "reviews.default.svc.cluster.local",
            "reviews.default.svc.cluster.local:9080",
            "reviews",
            "reviews:9080",
            "reviews.default",
            "reviews.default:9080",
            "reviews.default.svc",
            "reviews.default.svc:9080",
            "10.96.0.11",
            "10.96.0.11:9080",
        ])
    );
    assert_eq!(reviews["include_request_attempt_count"], true);
    let retry = json!({
        "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
        "num_retries": 2,
        "retriable_status_codes": [503],
        "retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}],
        "host_selection_retry_max_attempts": "5",
    });
    assert_eq!(
        reviews["routes"],
        json!([
            {
                "match": {"prefix": "/", "headers": [{"name": "end-user", "string_match": {"exact": "jason"}}]},
                "route": {"cluster": "outbound|9080|v2|reviews.default.svc.cluster.local", "timeout": "0s", "max_grpc_timeout": "0s", "retry_policy": retry},
            },
            {
                "match": {"prefix": "/"},
                "route": {
                    "weighted_clusters": {"clusters": [
                        {"name": "outbound|9080|v1|reviews.default.svc.cluster.local", "weight": 90},
                        {"name": "outbound|9080|v2|reviews.default.svc.cluster.local", "weight": 10},
                    ]},
                    "timeout": "0s", "max_grpc_timeout": "0s", "retry_policy": retry,
                },
            },
        ])
    );
    let product = host(&resources, "9080", "productpage.default.svc.cluster.local:9080");
    assert!(product["domains"].as_array().unwrap().contains(&json!("[fd00:10:96::a]:9080")));
    let last = hosts(&resources, "9080").pop().unwrap();
    assert_eq!((&last["name"], &last["domains"]), (&json!("allow_any"), &json!(["*"])));
    assert_eq!(at(&last, "/routes/0/route/cluster"), "PassthroughCluster");
    // From another namespace the shortest name is nobody's.
    let foreign = sidecar(&world("bookinfo"), "other", "10.9.9.9");
    let reviews = host(&foreign, "9080", "reviews.default.svc.cluster.local:9080");
    assert!(!reviews["domains"].as_array().unwrap().contains(&json!("reviews")));
}

#[test]
fn every_kind_of_http_route() {
    let resources = sidecar(&world("bookinfo"), "default", "10.244.0.10");
    let ratings = host(&resources, "9080", "ratings.default.svc.cluster.local:9080");
    let routes = ratings["routes"].as_array().unwrap();
    assert_eq!(routes.len(), 4);
    let action = &routes[0]["route"];
    assert_eq!(routes[0]["match"], json!({"prefix": "/v1"}));
    // "/v1" to "/" would make "//x" of "/v1/x".
    assert_eq!(action["regex_rewrite"], json!({"pattern": {"regex": "^/v1(/?)(.*)"}, "substitution": "/\\2"}));
    assert_eq!(action["timeout"], "0.500s");
    assert_eq!(action["retry_policy"]["retry_on"], "gateway-error,connect-failure,retriable-status-codes");
    assert_eq!(action["retry_policy"]["retriable_status_codes"], json!([503]));
    assert_eq!(action["retry_policy"]["per_try_timeout"], "0.100s");
    assert_eq!(
        routes[0]["request_headers_to_add"],
        json!([{"header": {"key": "x-mesh", "value": "yes"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}])
    );
    assert_eq!(routes[0]["request_headers_to_remove"], json!(["x-secret"]));
    assert_eq!(routes[1]["match"], json!({"path": "/old"}));
    assert_eq!(routes[1]["redirect"], json!({"path_redirect": "/new", "response_code": "FOUND"}));
    assert_eq!(
        routes[2]["match"],
        json!({
            "safe_regex": {"regex": "/health(z)?"},
            "headers": [{"name": "x-debug", "present_match": true, "invert_match": true}],
            "query_parameters": [{"name": "full", "string_match": {"exact": "1"}}],
        })
    );
    assert_eq!(routes[2]["direct_response"], json!({"status": 503, "body": {"inline_string": "down for now"}}));
    // No port at the destination: that which was called.
    assert_eq!(routes[3]["route"]["cluster"], "outbound|9080||ratings.default.svc.cluster.local");
    // On the other port the route for 9080 is not there.
    let other = hosts(&resources, "ratings.default.svc.cluster.local:9090");
    assert_eq!(other[0]["domains"], json!(["*"]));
    assert_eq!(other[0]["routes"].as_array().unwrap().len(), 3);
    assert_eq!(at(&other[0], "/routes/2/route/cluster"), "outbound|9090||ratings.default.svc.cluster.local");
}

#[test]
fn a_host_without_service_is_routed_on_port_80() {
    let resources = sidecar(&world("mixed"), "apps", "10.244.1.1");
    let outside = host(&resources, "80", "nobody.example.com:80");
    let routes = outside["routes"].as_array().unwrap();
    assert_eq!(
        routes[0]["match"],
        json!({
            "prefix": "/Api", "case_sensitive": false,
            "headers": [
                {"name": ":method", "string_match": {"exact": "GET"}},
                {"name": ":authority", "string_match": {"prefix": "nobody"}},
            ],
        })
    );
    assert_eq!(at(&routes[0], "/route/host_rewrite_literal"), "api.example.com");
    assert_eq!(at(&routes[0], "/route/cluster"), "outbound|80||api.example.com");
    assert_eq!(
        routes[1]["redirect"],
        json!({"host_redirect": "example.com", "scheme_redirect": "https", "response_code": "PERMANENT_REDIRECT"})
    );
}

#[test]
fn pods_of_a_headless_service_have_names() {
    let resources = sidecar(&world("mixed"), "apps", "192.0.2.10");
    let pods = host(&resources, "80", "pods.web.apps.svc.cluster.local:80");
    let domains = pods["domains"].as_array().unwrap();
    for name in ["10.244.1.1", "web-0.web", "web-1.web.apps.svc.cluster.local:80"] {
        assert!(domains.contains(&json!(name)), "{name} in {domains:?}");
    }
    let web = host(&resources, "80", "web.apps.svc.cluster.local:80");
    assert_eq!(at(&web, "/routes/0/route/cluster"), "outbound-pod|80||web.apps.svc.cluster.local");
}

fn sourced(spec: &str) -> World {
    world_of(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{clusterIP: 10.0.0.1, ports: [{{name: http, port: 80}}]}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: p, labels: {{team: blue}}}}\nspec: {{}}\nstatus: {{podIP: 10.1.0.1}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: a}}\nspec: {{hosts: [a], http: [{spec}]}}\n"
    ))
}

fn routes_of(world: &World, namespace: &str, ip: &str) -> Vec<Value> {
    host(&sidecar(world, namespace, ip), "80", "a.default.svc.cluster.local:80")["routes"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

#[test]
fn sources_decide_which_routes_a_client_gets() {
    let world = sourced(
        "{match: [{sourceLabels: {team: blue}}], redirect: {uri: /blue}}, {match: [{sourceNamespace: other}], redirect: {uri: /other}}, \
         {match: [{gateways: [edge]}], redirect: {uri: /edge}}, {redirect: {uri: /rest}}, {redirect: {uri: /never}}",
    );
    let uris = |namespace: &str, ip: &str| -> Vec<String> {
        routes_of(&world, namespace, ip)
            .iter()
            .map(|r| at(r, "/redirect/path_redirect").as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(uris("default", "10.1.0.1"), ["/blue"], "a route for everything ends the list");
    assert_eq!(uris("default", "10.9.9.9"), ["/rest"]);
    assert_eq!(uris("other", "10.9.9.9"), ["/other"]);
    // The address of another namespace's Pod does not make its labels ours.
    assert_eq!(uris("other", "10.1.0.1"), ["/other"]);
}

#[test]
fn headers_of_destinations_and_hosts() {
    let world = sourced(
        "{headers: {request: {set: {Host: x.example}, add: {x-a: '%PROTOCOL%'}}, response: {remove: [server]}}, \
         retries: {attempts: 0}, route: [{destination: {host: a}, headers: {response: {set: {x-d: '1'}}}}]}",
    );
    let route = &routes_of(&world, "default", "10.9.9.9")[0];
    assert_eq!(at(route, "/route/host_rewrite_literal"), "x.example");
    assert_eq!(
        route["request_headers_to_add"],
        json!([{"header": {"key": "x-a", "value": "%PROTOCOL%"}}]),
        "setting the host is a rewrite, not a header"
    );
    assert_eq!(route["response_headers_to_add"][0]["header"], json!({"key": "x-d", "value": "1"}));
    assert_eq!(route["response_headers_to_remove"], json!(["server"]));
    assert_eq!(route["route"].get("retry_policy"), None);
}

#[test]
fn without_headers_holds_where_the_header_is_not() {
    let world = sourced(
        "{match: [{withoutHeaders: {x: {exact: a}}}, {headers: {y: {regex: 'b.*'}, z: {}}}], redirect: {uri: /x}}",
    );
    let routes = routes_of(&world, "default", "10.9.9.9");
    assert_eq!(
        at(&routes[0], "/match/headers/0"),
        &json!({"name": "x", "string_match": {"exact": "a"}, "invert_match": true, "treat_missing_header_as_empty": true})
    );
    assert_eq!(
        at(&routes[1], "/match/headers"),
        &json!([{"name": "y", "string_match": {"safe_regex": {"regex": "b.*"}}}, {"name": "z", "present_match": true}])
    );
}

#[test]
fn a_virtual_service_that_says_nothing_to_a_client_is_as_none() {
    let world = sourced(
        "{match: [{sourceNamespace: other}], redirect: {uri: /other}}, {match: [{port: 81}], redirect: {uri: /81}}",
    );
    let own = routes_of(&world, "default", "10.9.9.9");
    assert_eq!(at(&own[0], "/route/cluster"), "outbound|80||a.default.svc.cluster.local");
    assert_eq!(own[0]["name"], "default");
    assert_eq!(at(&routes_of(&world, "other", "10.9.9.9")[0], "/redirect/path_redirect"), "/other");
}
