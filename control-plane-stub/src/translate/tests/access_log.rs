use super::*;

fn logging(spec: &str) -> Resources {
    let bookinfo = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/tasks/bookinfo.yaml");
    let text = std::fs::read_to_string(bookinfo).unwrap();
    let mesh = "apiVersion: outrigger.dev/v1alpha1\nkind: MeshConfig\nmetadata: {name: m, namespace: istio-system}";
    sidecar(&world_of(&format!("{text}---\n{mesh}\nspec: {{{spec}}}\n")), "default", "10.244.0.21")
}

/// The access logs of all filters of a listener.
fn logs(resources: &Resources, listener: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut pending = vec![get(&resources.listeners, listener)];
    while let Some(value) = pending.pop() {
        match value {
            Value::Object(mut fields) => {
                found.extend(fields.remove("access_log"));
                pending.extend(fields.into_iter().map(|(_, value)| value));
            }
            Value::Array(values) => pending.extend(values),
            _ => {}
        }
    }
    found
}

#[test]
fn every_request_and_connection_is_logged_where_the_mesh_says_so() {
    let resources = logging("accessLogFile: /dev/stdout, accessLogEncoding: JSON");
    for listener in ["virtualInbound", "virtualOutbound", "0.0.0.0_9080"] {
        let found = logs(&resources, listener);
        assert!(!found.is_empty(), "{listener}");
        for log in found {
            let config = at(&log, "/0/typed_config");
            assert_eq!(at(config, "/path"), "/dev/stdout");
            assert_eq!(at(config, "/log_format/json_format/response_flags"), "%RESPONSE_FLAGS%");
        }
    }
    super::envoy::validate(&resources, "access-log");
}

#[test]
fn formats_are_the_operators_or_istios() {
    let format = |spec: &str| {
        let found = logs(&logging(&format!("accessLogFile: /l{spec}")), "virtualInbound").remove(0);
        at(&found, "/0/typed_config/log_format").clone()
    };
    let text = format("");
    assert!(at(&text, "/text_format_source/inline_string").as_str().unwrap().starts_with("[%START_TIME%] "));
    let text = format(", accessLogFormat: '%DURATION%'");
    assert_eq!(at(&text, "/text_format_source/inline_string"), "%DURATION%");
    let json = format(", accessLogEncoding: JSON, accessLogFormat: '{\"a\": \"%DURATION%\"}'");
    assert_eq!(at(&json, "/json_format"), &json!({"a": "%DURATION%"}));
    assert_eq!(logs(&logging(""), "virtualInbound"), Vec::<Value>::new());
}
