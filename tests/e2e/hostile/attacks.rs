//! Attacks on who one is taken for: look-alikes of identities, weaker TLS, invented headers, and connections that were
//! let in before the policy said no.

use std::{io::Read, time::Duration};

use outrigger_tests::{Exchange, need, pair::STRICT, until};
use rcgen::{ExtendedKeyUsagePurpose, SanType};

use crate::{
    certificates::{CLIENT, Stolen, attempt, attempt_with, stat},
    target::Target,
};

const VALID: (i32, i32) = (2020, 2090);

/// Even an authority of the mesh cannot make these pass: no reader may take them for what they look like.
#[test]
fn look_alikes_of_an_identity_are_refused() {
    need!("ip", "curl", "openssl");
    let mut target = Target::new();
    let outsider = target.pair.mesh.outsider("outsider");
    let dir = target.pair.mesh.dir().to_path_buf();
    let mesh = Stolen::from(&dir.join("state"));
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let dns = |text: &str| SanType::DnsName(text.try_into().unwrap());
    let admin = "spiffe://cluster.local/ns/default/sa/admin";
    let cases = [
        ("two URIs", vec![uri(CLIENT), uri(admin)], "bad_svid"),
        ("an identity behind a URL", vec![uri("https://example.com/"), uri(CLIENT)], "bad_svid"),
        ("case of the scheme", vec![uri("SPIFFE://cluster.local/ns/default/sa/client")], "bad_svid"),
        ("case of the trust domain", vec![uri("spiffe://CLUSTER.local/ns/default/sa/client")], "bad_svid"),
        ("trailing slash", vec![uri("spiffe://cluster.local/ns/default/sa/client/")], "bad_svid"),
        ("percent-encoding", vec![uri("spiffe://cluster.local/ns/default/sa/%63lient")], "bad_svid"),
        ("dot segments", vec![uri("spiffe://cluster.local/ns/x/../default/sa/client")], "bad_svid"),
        ("a DNS name", vec![dns(CLIENT)], "bad_svid"),
        ("a DNS name besides", vec![uri(CLIENT), dns(admin)], "bad_svid"),
        ("a longer trust domain", vec![uri("spiffe://cluster.local.evil/ns/default/sa/client")], "trust_domain"),
    ];
    let server = &target.pair.server.pod;
    for (number, (what, names, cause)) in cases.into_iter().enumerate() {
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        let files = mesh.issue_named(&dir, &format!("look-alike-{number}"), names, VALID, usage);
        let counter = format!("ssl_fail_{cause}");
        let before = stat(server, &counter);
        let said = attempt(&outsider, server, Some(&files));
        assert!(!said.contains("HTTP/1.1"), "{what}: {said}");
        until(&format!("{what} counted in {counter}"), || stat(server, &counter) == before + 1);
        target.answers(what);
    }
    target.unharmed("look-alikes");
}

#[test]
fn weaker_tls_is_refused() {
    need!("ip", "curl", "openssl");
    let mut target = Target::new();
    let outsider = target.pair.mesh.outsider("outsider");
    let dir = target.pair.mesh.dir().to_path_buf();
    let mesh = Stolen::from(&dir.join("state"));
    let name = vec![SanType::URI(CLIENT.try_into().unwrap())];
    let files = mesh.issue_named(&dir, "right", name, VALID, ExtendedKeyUsagePurpose::ClientAuth);
    let server = &target.pair.server.pod;
    for (what, options, cause) in [
        ("TLS 1.0", "-tls1 -cipher DEFAULT@SECLEVEL=0", "version"),
        ("TLS 1.1", "-tls1_1 -cipher DEFAULT@SECLEVEL=0", "version"),
        ("a suite without forward secrecy", "-tls1_2 -cipher AES128-GCM-SHA256", "parameters"),
        ("a suite without authentication", "-tls1_2 -cipher aNULL@SECLEVEL=0", "parameters"),
        ("a weak group", "-tls1_3 -groups ffdhe2048", "parameters"),
    ] {
        let counter = format!("ssl_fail_{cause}");
        let before = stat(server, &counter);
        let said = attempt_with(&outsider, server, Some(&files), options, "");
        assert!(!said.contains("HTTP/1.1"), "{what}: {said}");
        until(&format!("{what} counted in {counter}: {said}"), || stat(server, &counter) == before + 1);
        target.answers(what);
    }
    for fine in ["-tls1_2", "-tls1_3", "-groups X25519", "-groups P-256"] {
        let said = attempt_with(&outsider, server, Some(&files), fine, "");
        assert!(said.contains("HTTP/1.1 200"), "{fine}: {said}");
    }
    target.unharmed("weaker TLS");
}

/// What only the mesh may say of a request is not believed from anybody else, with a good certificate or without any.
#[test]
fn invented_headers_do_not_reach_the_application() {
    need!("ip", "curl", "openssl");
    let mut target = Target::new();
    let outsider = target.pair.mesh.outsider("outsider");
    let dir = target.pair.mesh.dir().to_path_buf();
    let mesh = Stolen::from(&dir.join("state"));
    let name = vec![SanType::URI(CLIENT.try_into().unwrap())];
    let files = mesh.issue_named(&dir, "right", name, VALID, ExtendedKeyUsagePurpose::ClientAuth);
    let admin = "spiffe://cluster.local/ns/default/sa/admin";
    let invented = [
        ("X-Forwarded-Client-Cert", format!("By=x;Hash=0;URI={admin}")),
        ("x-forwarded-client-cert", format!("URI={admin}")),
        ("X-Envoy-Internal", "true".to_owned()),
        ("X-Envoy-Peer-Metadata", "invented".to_owned()),
        ("X-Envoy-Peer-Metadata-Id", "invented".to_owned()),
        ("X-Envoy-Original-Url", "invented".to_owned()),
        ("X-Envoy-Upstream-Rq-Timeout-Ms", "1".to_owned()),
        ("X-Envoy-Retry-On", "5xx".to_owned()),
        ("X-Envoy-Max-Retries", "100".to_owned()),
    ];
    let lines: String = invented.iter().map(|(name, value)| format!("{name}: {value}\\r\\n")).collect();
    let server = &target.pair.server.pod;
    let check = |what: &str, said: &str, identity: Option<&str>| {
        let body = said.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{what}: {said}"));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let headers = body["headers"].as_object().unwrap();
        for (name, value) in headers.iter().filter(|(name, _)| *name != "x-forwarded-client-cert") {
            let value = value.as_str().unwrap();
            assert!(!value.contains("sa/admin") && !value.contains("invented"), "{what}: {name}: {value}");
        }
        for (name, _) in invented.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("x-forwarded-client-cert")) {
            assert!(!headers.contains_key(&name.to_ascii_lowercase()), "{what}: {name} arrived: {headers:?}");
        }
        let told = headers.get("x-forwarded-client-cert").and_then(|v| v.as_str());
        match identity {
            // A peer of the mesh may say whom it speaks for; who speaks is the last element, which is not its to write.
            Some(id) => {
                let last = told.and_then(|t| t.rsplit_once("By=")).unwrap_or_else(|| panic!("{what}: {told:?}")).1;
                assert!(last.contains(id) && !last.contains("sa/admin"), "{what}: {told:?}");
            }
            None => assert_eq!(told, None, "{what}"),
        }
    };
    let said = attempt_with(&outsider, server, Some(&files), "", &lines);
    check("mutual TLS", &said, Some(CLIENT));
    target.pair.mesh.apply_and_wait("strict.yaml", &STRICT.replace("STRICT", "PERMISSIVE"));
    let mut plain = outsider.connect((server.ip4, 9080));
    plain.say(format!("GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n{}\r\n", lines.replace("\\r\\n", "\r\n")));
    check("plaintext", &String::from_utf8(plain.hear_end()).unwrap(), None);
    target.unharmed("invented headers");
}

/// STRICT comes while plaintext connections are open: they end, and mutual TLS goes on.
#[test]
fn a_policy_that_is_tightened_holds_for_open_connections() {
    need!("ip", "curl");
    let mut target = Target::new();
    let outsider = target.pair.mesh.outsider("outsider");
    target.pair.mesh.apply_and_wait("strict.yaml", &STRICT.replace("STRICT", "PERMISSIVE"));
    let server = &target.pair.server.pod;
    let request = "GET /open HTTP/1.1\r\nHost: app\r\n\r\n";
    let mut idle = outsider.connect((server.ip4, 9080));
    idle.say(request);
    assert!(idle.head().starts_with("HTTP/1.1 200 "));
    let mut silent = outsider.connect((server.ip4, 9080));
    silent.say("HEAD /open HTTP/1.1\r\nHost: app\r\n\r\nGET /second HTTP/1.1\r\n");
    assert!(silent.head().starts_with("HTTP/1.1 200 "));
    let mut meshed = target.pair.client.pod.connect(outrigger_tests::pair::by4(80));
    meshed.say("HEAD /open HTTP/1.1\r\nHost: app\r\n\r\n");
    assert!(meshed.head().starts_with("HTTP/1.1 200 "));

    let before = stat(server, "downstream_cx_revoked");
    target.pair.mesh.apply_and_wait("strict.yaml", STRICT);
    until("both plaintext connections turned out", || stat(server, "downstream_cx_revoked") == before + 2);
    for (what, stream) in [("idle", &mut idle), ("in the middle of a head", &mut silent)] {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "{what}: {e}"),
        }
        let rest = String::from_utf8_lossy(&rest);
        assert!(!rest.contains("HTTP/1.1 200"), "{what}: {rest}");
    }
    meshed.say("GET /open HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n");
    assert!(String::from_utf8_lossy(&meshed.hear_end()).contains("sa/client"), "mutual TLS goes on");
    target.unharmed("a tightened policy");
}
