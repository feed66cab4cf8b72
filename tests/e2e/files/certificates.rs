//! Certificates that must not be accepted, on either side of a connection, and right ones that go on meanwhile.

use std::{io::Write, process::Command};

use outrigger_tests::{
    Exchange, Fabric, Kind, Pod, eventually, exchange::patient, mesh::bin, need, pki::Authority, process::run,
    proxies::write_bootstrap,
};

const OUTBOUND: &str = include_str!("../interop/outbound.yaml");
const INBOUND: &str = include_str!("../interop/inbound.yaml");
const CLIENT: &str = "spiffe://interop/ns/default/sa/client";
const SERVER: &str = "spiffe://interop/ns/default/sa/server";

struct Stage {
    client: Pod,
    server: Pod,
    authority: Authority,
    stranger: Authority,
    fabric: Fabric,
}

impl Stage {
    fn new() -> Self {
        let mut fabric = Fabric::new();
        let (client, server) = (fabric.pod("client", &[]), fabric.pod("server", &[]));
        let stage = Self {
            client,
            server,
            authority: Authority::new("interop"),
            // The same name, another key.
            stranger: Authority::new("interop"),
            fabric,
        };
        stage.authority.write_root(stage.fabric.dir(), "root");
        stage.issue("right", "client", CLIENT);
        stage.issue("right", "server", SERVER);
        stage
    }

    /// Issues a certificate with that defect into `FILE.crt` and `FILE.key`.
    fn issue(&self, defect: &str, file: &str, uri: &str) {
        let dir = self.fabric.dir();
        let files = match defect {
            "right" => self.authority.issue(dir, file, uri),
            "expired" => self.authority.issue_until(dir, file, uri, 2021),
            "wrong SAN" => self.authority.issue(dir, file, "spiffe://interop/ns/other/sa/x"),
            "wrong CA" => self.stranger.issue(dir, file, uri),
            other => panic!("{other}?"),
        };
        run(Command::new("chmod").arg("644").args([files.certificate, files.key]));
    }

    fn bootstrap(&self, pod: &Pod, template: &str) -> std::path::PathBuf {
        let server = self.server.ip4.to_string();
        write_bootstrap(pod, template, &[("DIR", &self.fabric.dir().display().to_string()), ("SERVER", &server)])
    }
}

#[test]
fn a_server_with_a_wrong_certificate_is_not_talked_to() {
    need!("ip", "curl");
    let stage = Stage::new();
    let demo = bin("outrigger-demo-app");
    let _application = stage.server.serve("app", 9080, &format!("{} http 127.0.0.1:9080 app v1", demo.display()));
    let tcp = stage.server.listen(7001);
    let mut outbound = Kind::Outrigger.start_ready(&stage.client, &stage.bootstrap(&stage.client, OUTBOUND));
    let inbound_file = stage.bootstrap(&stage.server, INBOUND);
    let ask = || stage.client.sh("curl -sS -m 20 -w '\\n%{http_code}' http://localhost:8080/");
    let mut failed = 0;
    for defect in ["right", "expired", "wrong SAN", "wrong CA", "right"] {
        stage.issue(defect, "server", SERVER);
        let mut inbound = Kind::Outrigger.start_ready(&stage.server, &inbound_file);
        let answer = ask();
        if defect == "right" {
            assert!(answer.contains("\"version\":\"v1\"") && answer.ends_with("\n200"), "{answer}");
        } else {
            assert!(answer.ends_with("\n503"), "{defect}: {answer}");
            assert!(!answer.contains("version"), "{defect}: {answer}");
            // A server may refuse to start a handshake with an expired certificate of its own; either way it is counted.
            let stats = stage.client.sh("curl -sS http://127.0.0.1:15000/stats");
            let now = failures(&stats);
            assert!(now > failed, "{defect}: not counted: {stats}");
            failed = now;
            // And not a byte over TCP.
            if let Ok(mut application) = stage.client.try_connect((std::net::Ipv4Addr::LOCALHOST, 7000)) {
                let _ = application.write_all(b"secret");
                assert!(patient(application).hear_out().is_empty(), "{defect}");
            }
            tcp.set_nonblocking(true).unwrap();
            assert!(tcp.accept().is_err(), "{defect}: the server's application was connected");
        }
        inbound.stop();
        assert!(!inbound.output().contains("panicked"), "{}", inbound.output());
    }
    assert!(outbound.is_running() && !outbound.output().contains("panicked"), "{}", outbound.output());
}

/// Handshakes of the HTTP cluster that failed, for whatever reason.
fn failures(stats: &str) -> u64 {
    let counters = stats.lines().filter_map(|line| line.strip_prefix("cluster.server.ssl_")?.split_once(": "));
    let failed = counters.filter(|(name, _)| name.starts_with("fail_") || *name == "connection_error");
    failed.map(|(_, count)| count.parse().unwrap_or(0)).sum::<u64>()
}

#[test]
fn a_client_with_a_wrong_certificate_is_not_let_in() {
    need!("ip", "curl", "openssl");
    let stage = Stage::new();
    let demo = bin("outrigger-demo-app");
    let _application = stage.server.serve("app", 9080, &format!("{} http 127.0.0.1:9080 app v1", demo.display()));
    let mut inbound = Kind::Outrigger.start_ready(&stage.server, &stage.bootstrap(&stage.server, INBOUND));
    let _outbound = Kind::Outrigger.start_ready(&stage.client, &stage.bootstrap(&stage.client, OUTBOUND));
    let dir = stage.fabric.dir().display().to_string();
    for version in ["-tls1_2", "-tls1_3"] {
        for defect in ["right", "none", "expired", "wrong SAN", "wrong CA"] {
            let credentials = if defect == "none" {
                String::new()
            } else {
                stage.issue(defect, "tried", CLIENT);
                format!("-cert {dir}/tried.crt -key {dir}/tried.key")
            };
            let (_, output) = stage.client.try_sh(&format!(
                "printf 'GET /tried HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' | timeout 20 openssl s_client \
                 -quiet {version} -connect {}:8443 -servername server.interop -CAfile {dir}/root.pem {credentials}",
                stage.server.ip4
            ));
            if defect == "right" {
                assert!(output.contains("HTTP/1.1 200") && output.contains(CLIENT), "{version}: {output}");
            } else {
                assert!(!output.contains("HTTP/1.1"), "{version}, {defect}: {output}");
                assert!(output.contains("alert"), "{version}, {defect}: no alert: {output}");
            }
        }
    }
    // Versions and names nobody serves.
    let stat = |name: &str| {
        let stats = stage.server.sh("curl -sS http://127.0.0.1:15000/stats");
        let of = stats.lines().filter(|line| line.starts_with("listener.")).filter_map(|line| line.split_once(": "));
        of.filter(|(n, _)| n.ends_with(&format!(".{name}"))).map(|(_, v)| v.parse::<u64>().unwrap()).sum::<u64>()
    };
    for (wrong, reason) in [
        ("-tls1_1 -cipher DEFAULT@SECLEVEL=0 -servername server.interop", "ssl_fail_version"),
        ("-servername nobody.interop", "no_chain_server_name"),
    ] {
        let before = stat(reason);
        let (ok, output) = stage.client.try_sh(&format!(
            "printf 'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' | timeout 20 openssl s_client -quiet {wrong} \
             -connect {}:8443 -cert {dir}/client.crt -key {dir}/client.key",
            stage.server.ip4
        ));
        assert!(!output.contains("HTTP/1.1"), "{wrong}: {ok} {output}");
        eventually(reason, || if stat(reason) == before + 1 { Ok(()) } else { Err(format!("{wrong} is not counted")) });
    }
    let answer = stage.client.sh("curl -sS -m 20 http://localhost:8080/");
    assert!(answer.contains("\"version\":\"v1\""), "the right client goes on: {answer}");
    assert!(inbound.is_running() && !inbound.output().contains("panicked"), "{}", inbound.output());
}

/// Files are swapped for bad ones and good ones while the proxy runs: what is bad is not taken, what is good is.
#[test]
fn rotated_files_are_taken_when_they_fit() {
    need!("ip", "curl", "openssl");
    let stage = Stage::new();
    let demo = bin("outrigger-demo-app");
    let _application = stage.server.serve("app", 9080, &format!("{} http 127.0.0.1:9080 app v1", demo.display()));
    let mut inbound = Kind::Outrigger.start_ready(&stage.server, &stage.bootstrap(&stage.server, INBOUND));
    let _outbound = Kind::Outrigger.start_ready(&stage.client, &stage.bootstrap(&stage.client, OUTBOUND));
    let dir = stage.fabric.dir().to_path_buf();
    let serial = || {
        stage.client.sh(&format!(
            "openssl s_client -connect {}:8443 -servername server.interop -cert {dir}/client.crt -key {dir}/client.key \
             </dev/null 2>/dev/null | openssl x509 -noout -serial",
            stage.server.ip4,
            dir = dir.display(),
        ))
    };
    let ask = || stage.client.sh("curl -sS -m 20 http://localhost:8080/");
    let first = serial();
    assert!(first.starts_with("serial="), "{first}");
    // Nonsense, and a certificate whose key is another's: the former goes on being served.
    for (certificate, key) in [("nonsense", "nonsense"), ("", "right-key-of-another")] {
        let kept = (std::fs::read(dir.join("server.crt")).unwrap(), std::fs::read(dir.join("server.key")).unwrap());
        if certificate.is_empty() {
            stage.issue("right", "another", SERVER);
            std::fs::copy(dir.join("another.key"), dir.join("server.key")).unwrap();
        } else {
            std::fs::write(dir.join("server.crt"), certificate).unwrap();
            std::fs::write(dir.join("server.key"), key).unwrap();
        }
        for _ in 0..20 {
            assert_eq!(serial(), first);
            assert!(ask().contains("\"version\":\"v1\""));
        }
        std::fs::write(dir.join("server.crt"), kept.0).unwrap();
        std::fs::write(dir.join("server.key"), kept.1).unwrap();
    }
    stage.issue("right", "server", SERVER);
    eventually("the new certificate", || match serial() {
        now if now != first => Ok(()),
        now => Err(now),
    });
    assert!(ask().contains("\"version\":\"v1\""));
    assert!(inbound.is_running() && !inbound.output().contains("panicked"), "{}", inbound.output());
}
