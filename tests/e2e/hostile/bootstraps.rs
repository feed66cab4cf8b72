//! Bootstrap files that cannot be used: the exit code says so and the message says what and where.

use std::{path::Path, process::Command};

use outrigger_tests::mesh::bin;

/// What went into the file and what the message must have besides the file's name.
type Case = (&'static str, &'static str, &'static [&'static str]);

const CASES: &[Case] = &[
    ("not YAML at all", "static_resources: [", &[]),
    ("a scalar", "just words", &[]),
    ("a list", "- a\n- b\n", &[]),
    ("tabs", "static_resources:\n\tlisteners: []\n", &[]),
    ("a key twice", "admin: {}\nadmin: {}\n", &["admin"]),
    ("an unknown field", "static_resources:\n  clustres: []\n", &["clustres"]),
    ("a deep unknown field", "static_resources: {clusters: [{name: a, conect_timeout: 1s}]}", &["conect_timeout"]),
    ("a wrong type", "static_resources: {clusters: [{name: [a]}]}", &["name"]),
    ("a port that is none", "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 70000}}}", &["70000"]),
    ("an address that is none", "admin: {address: {socket_address: {address: nowhere, port_value: 1}}}", &["nowhere"]),
    ("a wrong enum", "static_resources: {clusters: [{name: a, type: MAGIC}]}", &["MAGIC"]),
    ("a wrong duration", "static_resources: {clusters: [{name: a, connect_timeout: soon}]}", &["soon"]),
    (
        "a cluster twice",
        "static_resources:\n  clusters:\n  - {name: twin, type: STATIC, connect_timeout: 1s}\n  \
         - {name: twin, type: STATIC, connect_timeout: 1s}\n",
        &["static_resources.clusters[1].name", "twin"],
    ),
    (
        "a listener twice",
        "static_resources:\n  clusters: [{name: c, type: STATIC, connect_timeout: 1s}]\n  listeners:\n  \
         - &a {name: twin, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, filter_chains: [{filters: \
         [{name: t, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, \
         stat_prefix: t, cluster: c}}]}]}\n  - *a\n",
        &["static_resources.listeners[1].name", "twin"],
    ),
    (
        "an extension nobody knows",
        "static_resources:\n  listeners:\n  - {name: a, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, \
         filter_chains: [{filters: [{name: t, typed_config: {\"@type\": type.googleapis.com/no.such.Message}}]}]}\n",
        &["no.such.Message"],
    ),
    (
        "an authorization filter that is not supported",
        "static_resources:\n  listeners:\n  - {name: a, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, \
         filter_chains: [{filters: [{name: guard, typed_config: {\"@type\": \
         type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/acme.authz.v1.Guard, \
         value: {deny: all}}}]}]}\n",
        &["static_resources.listeners[0].filter_chains[0].filters[0]", "acme.authz.v1.Guard"],
    ),
    (
        "a regular expression that is none",
        "static_resources:\n  listeners:\n  - {name: a, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, \
         filter_chains: [{filters: [{name: h, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.\
         network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: h, route_config: {virtual_hosts: [{name: v, \
         domains: [\"*\"], routes: [{match: {safe_regex: {regex: \"(\"}}, direct_response: {status: 200}}]}]}, \
         http_filters: [{name: r, typed_config: {\"@type\": \
         type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}]}]}\n",
        &["routes[0].match.safe_regex"],
    ),
];

#[test]
fn malformed_bootstraps_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for (what, text, wanted) in CASES {
        refused(dir.path(), what, text.as_bytes(), wanted);
    }
    refused(dir.path(), "bytes that are no text", b"\xff\xfe\x00\x01", &[]);
    // A billion laughs: each line ten times the one before, by reference.
    let mut bomb = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for n in 1..12 {
        let before = format!("*a{}, ", n - 1).repeat(10);
        bomb += &format!("a{n}: &a{n} [{}]\n", before.trim_end_matches(", "));
    }
    refused(dir.path(), "a YAML bomb", bomb.as_bytes(), &[]);
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    refused(dir.path(), "nesting without end", deep.as_bytes(), &[]);
    let deep = format!("{}1{}", "{\"a\":".repeat(200_000), "}".repeat(200_000));
    refused(dir.path(), "nested objects without end", deep.as_bytes(), &[]);
}

/// Neither serves nor validates, says why in one line with the file's name, and needs no memory for it.
fn refused(dir: &Path, what: &str, text: &[u8], wanted: &[&str]) {
    let file = dir.join("bootstrap.yaml");
    std::fs::write(&file, text).unwrap();
    for mode in ["serve", "validate"] {
        // 1 GiB of address space: a bomb that goes off ends in an abort, not in the machine's swap.
        let output = Command::new("sh")
            .args(["-c", "ulimit -v 1500000; exec timeout 20 \"$0\" -c \"$1\" --mode \"$2\""])
            .arg(bin("outrigger-proxy"))
            .arg(&file)
            .arg(mode)
            .output()
            .unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(64), "{what}, {mode}: {}: {said}", output.status);
        assert!(said.contains(file.to_str().unwrap()), "{what}, {mode}: the file is not named: {said}");
        assert!(!said.contains("panicked"), "{what}, {mode}: {said}");
        assert!(said.len() < 2000, "{what}, {mode}: {} bytes of message", said.len());
        for part in wanted {
            assert!(said.contains(part), "{what}, {mode}: no {part:?} in {said}");
        }
    }
}

#[test]
fn validation_of_files_that_are_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let run = |file: &Path| {
        let mut command = Command::new(bin("outrigger-proxy"));
        let output = command.arg("-c").arg(file).args(["--mode", "validate"]).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), said)
    };
    let missing = dir.path().join("missing.yaml");
    let (code, said) = run(&missing);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains(missing.to_str().unwrap()), "{said}");

    let file = dir.path().join("bootstrap.yaml");
    std::fs::write(
        &file,
        "static_resources: {secrets: [{name: s, tls_certificate: {certificate_chain: {filename: /no/such.crt}, \
         private_key: {filename: /no/such.key}}}]}",
    )
    .unwrap();
    let (code, said) = run(&file);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("/no/such."), "{said}");

    // A cluster may come later, from the control plane: allowed, and named.
    std::fs::write(
        &file,
        "static_resources: {listeners: [{name: a, address: {socket_address: {address: 127.0.0.1, port_value: 1}}, \
         filter_chains: [{filters: [{name: t, typed_config: {\"@type\": \
         type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: missing}}]}]}]}",
    )
    .unwrap();
    let (code, said) = run(&file);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("static_resources.listeners[0]") && said.contains("\"missing\""), "{said}");

    std::fs::write(&file, "static_resources: {clusters: [{name: c, type: STATIC, connect_timeout: 1s}]}").unwrap();
    let (code, said) = run(&file);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("configuration OK"), "{said}");
}

#[test]
fn command_lines_that_make_no_sense() {
    for (arguments, wanted) in [
        (&["--no-such-flag"][..], "--no-such-flag"),
        (&["--concurrency", "many"], "many"),
        (&["-l", "loud,=="], "--log-level"),
        (&["--mode", "dance"], "dance"),
    ] {
        let output = Command::new(bin("outrigger-proxy")).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(wanted), "{arguments:?}: {said}");
    }
    let output = Command::new(bin("outrigger-proxy")).env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--xds-address"));
}
