//! The shipped file for an application that only speaks HTTP: HTTPS in front of it, and certificates that change.

use std::{os::unix::fs::symlink, path::Path};

use outrigger_tests::{
    Fabric, Kind, Pod, eventually, mesh::bin, need, pki::Authority, proxies::write_bootstrap, until,
};

const SHIPPED: &str = include_str!("../../../deploy/static/https-for-legacy.yaml");
const HOST: &str = "legacy.example";

/// A folder of a mounted Secret, as the kubelet writes it: `..data` leads to the files in force.
struct Mounted<'a> {
    dir: &'a Path,
    authority: &'a Authority,
}

impl Mounted<'_> {
    /// Puts a new pair in force in one step. With `key_of` another's key lies beside the certificate.
    fn swap(&self, name: &str, key_of: Option<&str>) {
        let version = self.dir.join(format!("..{name}"));
        std::fs::create_dir(&version).unwrap();
        let files = self.authority.issue_host(&version, "tls", HOST);
        if let Some(other) = key_of {
            std::fs::copy(self.dir.join(format!("..{other}/tls.key")), &files.key).unwrap();
        }
        outrigger_tests::process::run(std::process::Command::new("chmod").args(["-R", "a+rX"]).arg(self.dir));
        let link = self.dir.join("..data_tmp");
        symlink(format!("..{name}"), &link).unwrap();
        std::fs::rename(link, self.dir.join("..data")).unwrap();
        for file in ["tls.crt", "tls.key"] {
            let path = self.dir.join(file);
            if !path.exists() {
                symlink(format!("..data/{file}"), path).unwrap();
            }
        }
    }
}

fn stat(pod: &Pod, name: &str) -> u64 {
    let text = pod.sh("curl -sS http://127.0.0.1:15000/stats");
    text.lines().find_map(|l| l.strip_prefix(&format!("{name}: "))).and_then(|v| v.parse().ok()).unwrap_or(0)
}

#[test]
fn an_application_without_tls_is_served_over_https() {
    need!("ip", "curl", "openssl");
    let mut fabric = Fabric::new();
    let (client, server) = (fabric.pod("client", &[]), fabric.pod("server", &[]));
    let authority = Authority::new("public");
    let root = authority.write_root(fabric.dir(), "root");
    let dir = fabric.dir().join("tls");
    std::fs::create_dir(&dir).unwrap();
    let mounted = Mounted { dir: &dir, authority: &authority };
    mounted.swap("first", None);

    let file = write_bootstrap(&server, &SHIPPED.replace("/etc/outrigger/tls", &dir.display().to_string()), &[]);
    let demo = bin("outrigger-demo-app");
    let _application = server.serve("app", 8080, &format!("{} http 127.0.0.1:8080 app v1", demo.display()));
    let mut proxy = Kind::Outrigger.start_ready(&server, &file);
    let resolve = format!("--resolve {HOST}:8443:{0} --resolve {HOST}:8081:{0}", server.ip4);
    let https = |options: &str| {
        client.try_sh(&format!(
            "curl -sS -i -m 20 {resolve} --cacert {} {options} https://{HOST}:8443/a?b",
            root.display()
        ))
    };
    for version in ["--http1.1", "--http2", "--tls-max 1.2"] {
        let (ok, answer) = https(version);
        assert!(ok && answer.contains("strict-transport-security: max-age"), "{version}: {answer}");
        assert!(answer.contains(r#""x-forwarded-proto":"https""#), "the application knows: {answer}");
    }
    let invented =
        "-H 'x-forwarded-client-cert: URI=spiffe://a/b' -H 'x-envoy-internal: true' -H 'x-forwarded-proto: http'";
    let (_, answer) = https(invented);
    assert!(!answer.contains("spiffe://a/b") && answer.contains(r#""x-forwarded-proto":"https""#), "{answer}");

    let (_, moved) = client.try_sh(&format!("curl -sS -i -m 20 {resolve} http://{HOST}:8081/a/b?c=d"));
    assert!(moved.starts_with("HTTP/1.1 308"), "{moved}");
    assert!(moved.to_ascii_lowercase().contains(&format!("location: https://{HOST}/a/b?c=d\r\n")), "{moved}");

    for (options, counter) in [
        ("-tls1_1 -cipher DEFAULT@SECLEVEL=0", "ssl_fail_version"),
        ("-tls1_2 -cipher AES128-SHA", "ssl_fail_parameters"),
    ] {
        let counter = format!("listener.https.{counter}");
        let before = stat(&server, &counter);
        client.try_sh(&format!("timeout 20 openssl s_client -connect {}:8443 {options} </dev/null", server.ip4));
        until(&counter, || stat(&server, &counter) == before + 1);
    }
    client.try_sh(&format!("curl -sS -m 20 http://{}:8443/", server.ip4));
    until("plaintext is counted", || stat(&server, "listener.https.ssl_fail_not_tls") == 1);

    let serial = || {
        client.sh(&format!(
            "openssl s_client -connect {}:8443 -servername {HOST} </dev/null 2>/dev/null | openssl x509 -noout -serial",
            server.ip4
        ))
    };
    let first = serial();
    assert!(first.starts_with("serial="), "{first}");
    mounted.swap("unfit", Some("first"));
    for _ in 0..10 {
        assert_eq!(serial(), first, "a certificate without its key is not taken");
    }
    mounted.swap("second", None);
    eventually("the new certificate", || match serial() {
        now if now != first => Ok(()),
        now => Err(now),
    });
    let (ok, answer) = https("--http2");
    assert!(ok && answer.contains(r#""version":"v1""#), "{answer}");
    let days = stat(&server, "server.days_until_first_cert_expiring");
    assert!((1..40_000).contains(&days), "{days}");
    assert!(proxy.is_running() && !proxy.output().contains("panicked"), "{}", proxy.output());
}
