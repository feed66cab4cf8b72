//! Malformed bootstraps: exit code 64 and a message that says where; never a proxy that runs with half of a file.

use std::{path::Path, process::Command, time::Instant};

use outrigger_tests::{Kind, mesh::bin, pki::Authority};

const SOUND: &str = include_str!("sound.yaml");

const TLS: &str = r#"transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context: {validation_context: {trusted_ca: {filename: @ROOT@}}}"#;

/// Runs the proxy on a file that must be refused, to check it and to serve it: (what it said).
fn refused(file: &Path, what: &str) -> String {
    let mut said = String::new();
    for mode in ["validate", "serve"] {
        let started = Instant::now();
        let mut command = Command::new("timeout");
        command.args(["20"]).arg(bin("outrigger-proxy")).arg("-c").arg(file).args(["--mode", mode]);
        let output = command.output().unwrap();
        said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let excerpt: String = said.chars().take(2000).collect();
        assert_eq!(output.status.code(), Some(64), "{what}, {mode}: {:?}: {excerpt}", output.status);
        assert!(!said.contains("panicked"), "{what}, {mode}: {excerpt}");
        assert!(said.len() < 20_000, "{what}, {mode}: {} bytes of complaint", said.len());
        println!("{what}, {mode}: {:?}, {excerpt}", started.elapsed());
    }
    said
}

fn refused_text(text: impl AsRef<[u8]>, what: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bootstrap.yaml");
    std::fs::write(&file, text).unwrap();
    let said = refused(&file, what);
    assert!(said.contains("bootstrap.yaml"), "{what}: the file is not named: {said}");
    said
}

#[test]
fn the_sound_file_is_sound() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bootstrap.yaml");
    std::fs::write(&file, SOUND).unwrap();
    let mut programs = vec![Kind::Outrigger];
    if outrigger_tests::find("envoy").is_some() {
        programs.push(Kind::Envoy);
    }
    for program in programs {
        let output =
            Command::new(program.program()).arg("-c").arg(&file).args(["--mode", "validate"]).output().unwrap();
        assert!(output.status.success(), "{program:?}: {output:?}");
    }
}

#[test]
fn one_thing_wrong_is_named_by_its_path() {
    let listener = "static_resources.listeners[0]";
    let hcm = "filter_chains[0].filters[0].typed_config";
    let cases: &[(&str, &str, &[&str])] = &[
        ("stat_prefix: http", "stat_prefixx: http", &["stat_prefixx"]),
        ("port_value: 8080", "port_value: 70000", &["port_value", "70000"]),
        ("port_value: 8080", "port_value: many", &["port_value"]),
        ("address: 0.0.0.0", "address: 300.0.0.1", &[listener, "300.0.0.1"]),
        ("{cluster: server}", "{cluster: absent}", &["absent"]),
        ("{prefix: /}", "{safe_regex: {regex: \"a(b\"}}", &["safe_regex"]),
        ("{prefix: /}", "{}", &["routes[0].match"]),
        ("connect_timeout: 5s", "connect_timeout: soon", &["connect_timeout"]),
        ("connect_timeout: 5s", "connect_timeout: -5s", &["connect_timeout"]),
        ("type: STATIC", "type: EXTATIC", &["EXTATIC"]),
        ("lb_policy: ROUND_ROBIN", "lb_policy: CLUSTER_PROVIDED", &["lb_policy"]),
        ("envoy.extensions.filters.http.router.v3.Router", "envoy.extensions.filters.http.unheard.v3.Of", &["unheard"]),
        // A filter that would have refused somebody must not be passed over.
        ("envoy.extensions.filters.http.router.v3.Router", "envoy.extensions.filters.http.lua.v3.Lua", &[hcm, "lua"]),
        ("domains: [\"*\"]", "domains: []", &["domains"]),
        ("domains: [\"*\"]", "domains: [\"*\", \"*\"]", &["domains"]),
        ("name: http\n", "name: tcp\n", &["tcp"]),
        ("cluster: tcp-server", "cluster: tcp-server, weighted_clusters: {clusters: []}", &["weighted_clusters"]),
        ("filename: @ROOT@", "filename: /nowhere/root.pem", &["/nowhere/root.pem"]),
        ("trusted_ca: {filename: @ROOT@}", "trusted_ca: {inline_string: \"-----BEGIN NONSENSE\"}", &["trusted_ca"]),
        ("prefix_ranges: []", "prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 64}]", &["prefix_len"]),
        ("node: {", "node: {id: twice, ", &["id"]),
    ];
    let tls = SOUND.replace("# TLS", TLS).replace("# RANGES", "filter_chain_match: {prefix_ranges: []}");
    let dir = tempfile::tempdir().unwrap();
    let root = Authority::new("root").write_root(dir.path(), "root").display().to_string();
    envoy_takes(&tls.replace("@ROOT@", &root));
    let mut wrong = Vec::new();
    for (from, to, expected) in cases {
        assert!(tls.contains(from), "the sound file has no {from:?}");
        let text = tls.replacen(from, to, 1).replace("@ROOT@", &root);
        let judged = std::panic::catch_unwind(|| {
            let said = refused_text(&text, to);
            for part in *expected {
                assert!(said.contains(part), "{to}: {part:?} is not in: {said}");
            }
            // What Envoy lets pass: the second of two listeners of one name, a prefix cut to what there is, a key given twice.
            if !["name: tcp", "prefix_ranges", "node: "].iter().any(|s| to.starts_with(s)) {
                envoy_refuses(&text, to);
            }
        });
        if let Err(panic) = judged {
            wrong.push(panic.downcast_ref::<String>().cloned().unwrap_or_default());
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// The reference agrees that it is wrong, where there is one.
fn envoy_refuses(text: &str, what: &str) {
    assert!(!envoy_validates(text).unwrap_or(false), "{what}: Envoy takes it");
}

fn envoy_takes(text: &str) {
    assert!(envoy_validates(text).unwrap_or(true), "Envoy refuses what should be sound");
}

fn envoy_validates(text: &str) -> Option<bool> {
    outrigger_tests::find("envoy")?;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bootstrap.yaml");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(Kind::Envoy.program());
    let output = command.arg("-c").arg(&file).args(["--mode", "validate", "-l", "error"]).output().unwrap();
    println!("Envoy: {}", String::from_utf8_lossy(&output.stderr));
    Some(output.status.success())
}

#[test]
fn not_even_a_bootstrap() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let line = format!("*a{}", n - 1);
        bomb += &format!("a{n}: &a{n} [{}]\n", [line.as_str(); 9].join(", "));
    }
    let deep_json = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let deep_map = "{a: ".repeat(100_000);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("a word", b"hello".to_vec()),
        ("a list", b"- a\n- b\n".to_vec()),
        ("null", b"null".to_vec()),
        ("not text", (0..=255).cycle().take(100_000).collect()),
        ("not UTF-8", b"node: {id: \"\xff\xfe\"}\n".to_vec()),
        ("unclosed", b"static_resources: {listeners: [{name: x".to_vec()),
        ("two documents", b"node: {id: a}\n---\nnode: {id: b}\n".to_vec()),
        ("deep JSON", deep_json.into_bytes()),
        ("deep YAML", deep_map.into_bytes()),
        ("alias bomb", bomb.into_bytes()),
        ("long line", format!("node: {{id: {}", "x".repeat(1 << 20)).into_bytes()),
    ];
    for (what, text) in cases {
        refused_text(text, what);
    }
    let dir = tempfile::tempdir().unwrap();
    for (what, file) in [("a folder", dir.path().to_path_buf()), ("no file", dir.path().join("absent"))] {
        let said = refused(&file, what);
        assert!(said.contains(&file.display().to_string()), "{what}: {said}");
    }
}

/// Seeded damage: whatever comes of it, it is not a crash and not a hang.
#[test]
fn damaged_files_end_in_a_decision() {
    let mut random = Random(20_261_120);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bootstrap.yaml");
    for round in 0..150 {
        let mut text = SOUND.as_bytes().to_vec();
        for _ in 0..=random.below(8) {
            let at = random.below(text.len());
            match random.below(4) {
                0 => text[at] = random.below(256) as u8,
                1 => drop(text.remove(at)),
                2 => text.insert(at, b"{}[]:,\"'&*#\n -0"[random.below(15)]),
                _ => text.truncate(at.max(1)),
            }
        }
        std::fs::write(&file, &text).unwrap();
        let mut command = Command::new("timeout");
        let output =
            command.args(["20"]).arg(bin("outrigger-proxy")).arg("-c").arg(&file).args(["--mode", "validate"]).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let decided = matches!(output.status.code(), Some(0 | 64)) && !said.contains("panicked");
        assert!(decided, "round {round}: {:?}: {said}\n{}", output.status, String::from_utf8_lossy(&text));
    }
}

/// Small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}
