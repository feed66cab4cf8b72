//! Peers with wrong certificates at the mesh's inbound port: refused, counted, and nobody else notices.

use std::{path::Path, sync::Arc, time::Duration};

use outrigger_tests::{
    Pod, need,
    pki::{Authority, Files},
    process::run,
    until,
};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd};

use crate::target::{Target, throw};

/// Issues with the mesh's own root, as nobody but the control plane could.
pub(crate) struct Stolen {
    issuer: Issuer<'static, KeyPair>,
}

impl Stolen {
    pub(crate) fn from(state: &Path) -> Self {
        let key = std::fs::read_to_string(state.join("root-key.pem")).unwrap();
        let certificate = std::fs::read_to_string(state.join("root-cert.pem")).unwrap();
        Self { issuer: Issuer::from_ca_cert_pem(&certificate, KeyPair::from_pem(&key).unwrap()).unwrap() }
    }

    fn issue(&self, dir: &Path, name: &str, uris: &[&str], years: (i32, i32), usage: ExtendedKeyUsagePurpose) -> Files {
        let names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        self.issue_named(dir, name, names, years, usage)
    }

    /// With any names at all.
    pub(crate) fn issue_named(
        &self,
        dir: &Path,
        name: &str,
        names: Vec<SanType>,
        years: (i32, i32),
        usage: ExtendedKeyUsagePurpose,
    ) -> Files {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names;
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        let files = Files { certificate: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) };
        std::fs::write(&files.certificate, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

pub(crate) const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/client";

#[test]
fn wrong_certificates_are_refused_and_counted() {
    need!("ip", "curl", "openssl");
    let mut target = Target::new();
    let outsider = target.pair.mesh.outsider("outsider");
    let dir = target.pair.mesh.dir().to_path_buf();
    let mesh = Stolen::from(&dir.join("state"));
    let stranger = Authority::new("stranger");
    let usage = ExtendedKeyUsagePurpose::ClientAuth;
    let valid = (2020, 2090);
    let attempt = |files: Option<&Files>| attempt(&outsider, &target.pair.server.pod, files);

    // The test's way in works at all: with a right certificate it does.
    let right = mesh.issue(&dir, "right", &[CLIENT], valid, usage.clone());
    let said = attempt(Some(&right));
    assert!(said.contains("HTTP/1.1 200") && said.contains("sa/client"), "{said}");

    let client = |name: &str, years| Some(mesh.issue(&dir, name, &[CLIENT], years, usage.clone()));
    let named = |name: &str, uri: &str| Some(mesh.issue(&dir, name, &[uri], valid, usage.clone()));
    let cases: Vec<(&str, Option<Files>, &str)> = vec![
        ("none", None, "no_certificate"),
        ("expired", client("expired", (2001, 2002)), "expired"),
        ("not yet valid", client("early", (2090, 2091)), "not_yet_valid"),
        ("self-signed", Some(self_signed(&dir, "alone", CLIENT)), "self_signed"),
        ("wrong CA", Some(stranger.issue(&dir, "stranger", CLIENT)), "unknown_issuer"),
        ("another trust domain", named("elsewhere", "spiffe://elsewhere/ns/default/sa/client"), "trust_domain"),
        ("no SPIFFE id", named("web", "https://example.com/"), "name"),
        (
            "for servers only",
            Some(mesh.issue(&dir, "server-only", &[CLIENT], valid, ExtendedKeyUsagePurpose::ServerAuth)),
            "purpose",
        ),
    ];
    let counted = |name: &str| stat(&target.pair.server.pod, name);
    for (what, files, cause) in &cases {
        let counter = &format!("ssl_fail_{cause}");
        let (before, all) = (counted(counter), counted("ssl_connection_error"));
        let handshakes = counted("ssl_handshake");
        let said = attempt(files.as_ref());
        assert!(!said.contains("HTTP/1.1"), "{what}: {said}");
        assert!(said.contains("alert"), "{what} was not refused by an alert: {said}");
        until(&format!("{what} counted in {counter}"), || counted(counter) == before + 1);
        assert_eq!(counted("ssl_handshake"), handshakes, "{what} counts as a handshake");
        assert_eq!(counted("ssl_connection_error"), all + 1, "{what} is not one failure: {}", failures(&target));
        target.answers(what);
    }

    let before = counted("no_chain_plaintext");
    for n in 1..=3 {
        let stream = outsider.connect((target.pair.server.pod.ip4, 9080));
        let heard = throw(stream, b"GET / HTTP/1.1\r\nHost: app\r\n\r\n", Duration::from_secs(10)).expect("closed");
        assert!(heard.is_empty(), "plaintext under STRICT: {:?}", String::from_utf8_lossy(&heard));
        until("plaintext counted", || counted("no_chain_plaintext") == before + n);
    }
    target.answers("plaintext under STRICT");

    many_at_once(&target, &outsider, &cases);
    target.unharmed("wrong certificates");
}

/// What handshakes failed of, for people.
fn failures(target: &Target) -> String {
    target.pair.server.pod.sh("curl -sS http://127.0.0.1:15000/stats | grep ssl_ | grep -v ': 0$'")
}

/// A storm of bad handshakes while good requests go on.
fn many_at_once(target: &Target, outsider: &Pod, cases: &[(&str, Option<Files>, &str)]) {
    let server = &target.pair.server.pod;
    let wrong = Arc::new(cases.iter().collect::<Vec<_>>());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let wrong = wrong.clone();
            scope.spawn(move || {
                for n in 0..10 {
                    let (what, files, _) = wrong[(thread + n) % wrong.len()];
                    let said = attempt(outsider, server, files.as_ref());
                    assert!(!said.contains("HTTP/1.1"), "{what}: {said}");
                }
            });
        }
        for _ in 0..30 {
            target.answers("a storm of bad handshakes");
        }
    });
}

fn self_signed(dir: &Path, name: &str, uri: &str) -> Files {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    let key = KeyPair::generate().unwrap();
    let files = Files { certificate: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) };
    std::fs::write(&files.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

/// Sends a request over TLS as the mesh's proxies do, to the application's port, which is captured.
pub(crate) fn attempt(from: &Pod, server: &Pod, files: Option<&Files>) -> String {
    attempt_with(from, server, files, "", "")
}

/// With more options for the client's TLS and more header lines.
pub(crate) fn attempt_with(from: &Pod, server: &Pod, files: Option<&Files>, options: &str, headers: &str) -> String {
    let certificate =
        files.map(|f| format!("-cert {} -key {}", f.certificate.display(), f.key.display())).unwrap_or_default();
    let (_, said) = from.try_sh(&format!(
        "printf 'GET / HTTP/1.1\\r\\nHost: app\\r\\nConnection: close\\r\\n{headers}\\r\\n' | timeout 20 openssl s_client \
         -quiet -connect {}:9080 -alpn istio-http/1.1,http/1.1 {certificate} {options}",
        server.ip4
    ));
    said
}

/// A statistic of the inbound listener, whatever its prefix is.
pub(crate) fn stat(pod: &Pod, name: &str) -> u64 {
    let stats = run(pod.command("curl").args(["-sS", "http://127.0.0.1:15000/stats"]));
    let of_listeners = stats.lines().filter(|line| line.starts_with("listener."));
    of_listeners.filter_map(|l| l.split_once(&format!(".{name}: "))).filter_map(|(_, v)| v.parse::<u64>().ok()).sum()
}
