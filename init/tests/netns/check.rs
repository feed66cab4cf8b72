//! check in real network namespaces: passes where capture works and names what is wrong where it does not.

use std::net::TcpListener;
use std::process::Stdio;

use crate::harness::{BACKENDS, Namespace, in_namespace};

/// The findings of a check with a status, as `name family detail`.
fn findings(ns: &Namespace, args: &[&str], status: &str) -> Vec<String> {
    let run = ns.init(&[&["check", "--output", "json"], args].concat());
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap_or_else(|_| panic!("{run:?}"));
    let all = report["findings"].as_array().unwrap();
    let failed = all.iter().any(|finding| finding["status"] == "fail");
    assert_eq!(run.code, i32::from(failed), "{run:?}");
    assert_eq!(report["passed"], !failed);
    let text = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap_or("-").to_owned();
    all.iter()
        .filter(|finding| finding["status"] == status)
        .map(|finding| format!("{} {} {}", text(finding, "name"), text(finding, "family"), text(finding, "detail")))
        .collect()
}

fn starts(findings: &[String], prefix: &str) -> bool {
    findings.iter().any(|finding| finding.starts_with(prefix))
}

const PROOFS: [&str; 8] = [
    "outbound-capture",
    "proxy-bypass",
    "source-port",
    "own-service",
    "application-to-itself",
    "loop-guard",
    "loopback",
    "inbound-capture",
];

#[test]
fn passes_after_install_in_both_families() {
    for backend in BACKENDS {
        in_namespace(|ns| {
            assert_eq!(ns.with_backend("install", backend, &[]).code, 0);
            let before = ns.snapshot();
            let passed = findings(ns, &[], "pass");
            for proof in PROOFS {
                for family in ["IPv4", "IPv6"] {
                    assert!(starts(&passed, &format!("{proof} {family} ")), "{backend}: {proof} {family}: {passed:?}");
                }
            }
            assert!(starts(&passed, "rules - installed exactly as planned"), "{passed:?}");
            assert_eq!(findings(ns, &[], "fail"), Vec::<String>::new());
            assert_eq!(findings(ns, &[], "skip"), Vec::<String>::new());
            assert_eq!(ns.snapshot(), before);
            let links = outrigger_init::links::Links::open().unwrap().links().unwrap();
            assert_eq!(links.iter().filter(|link| link.name.starts_with("outrigger")).count(), 0, "{links:?}");
        });
    }
}

#[test]
fn many_ports_and_networks_work_as_planned() {
    let ports: Vec<String> = (0..40).map(|index| (2000 + 3 * index).to_string()).collect();
    let ports = ports.join(",");
    let options = [
        "--exclude-inbound-ports",
        ports.as_str(),
        "--exclude-outbound-ports",
        ports.as_str(),
        "--include-outbound-cidrs",
        "192.0.2.0/24,10.0.0.0/8,2001:db8::/32",
        "--exclude-outbound-cidrs",
        "169.254.169.254,10.9.0.0/16,fd00:ec2::254",
        "--exclude-interfaces",
        "net1",
        "--drop-invalid",
    ];
    for backend in BACKENDS {
        in_namespace(|ns| {
            assert_eq!(ns.with_backend("install", backend, &options).code, 0);
            assert!(ns.with_backend("install", backend, &options).stdout.contains("nothing changed"), "{backend}");
            assert_eq!(findings(ns, &options, "fail"), Vec::<String>::new(), "{backend}");
            let passed = findings(ns, &options, "pass");
            assert!(starts(&passed, "outbound-capture IPv6") && starts(&passed, "inbound-capture IPv4"), "{passed:?}");
            // Other settings than the installed ones are a difference, named rule by rule.
            let failed = findings(ns, &[], "fail");
            assert!(failed.iter().any(|finding| finding.contains("unexpected")), "{failed:?}");
        });
    }
}

#[test]
fn included_lists_only() {
    let options =
        ["--include-inbound-ports", "8080,9000-9010", "--include-outbound-cidrs", "", "--include-outbound-ports", "80"];
    for backend in BACKENDS {
        in_namespace(|ns| {
            assert_eq!(ns.with_backend("install", backend, &options).code, 0);
            assert_eq!(findings(ns, &options, "fail"), Vec::<String>::new(), "{backend}");
            let passed = findings(ns, &options, "pass");
            assert!(passed.iter().any(|finding| finding.contains("original destination 192.0.2.2:8080")), "{passed:?}");
        });
    }
    in_namespace(|ns| {
        let nothing = ["--include-inbound-ports", "", "--include-outbound-cidrs", ""];
        ns.must(&[&["install"], &nothing[..]].concat());
        assert!(starts(&findings(ns, &nothing, "skip"), "outbound-capture IPv4 the options capture no outbound"));
        assert_eq!(findings(ns, &nothing, "fail"), Vec::<String>::new());
    });
}

#[test]
fn nothing_installed_is_a_failure() {
    in_namespace(|ns| {
        let failed = findings(ns, &[], "fail");
        assert!(starts(&failed, "rules - no rules of outrigger"), "{failed:?}");
        for proof in ["outbound-capture IPv4", "outbound-capture IPv6", "inbound-capture IPv4", "inbound-capture IPv6"]
        {
            assert!(starts(&failed, proof), "{proof}: {failed:?}");
        }
    });
}

#[test]
fn a_deleted_rule_is_named_and_its_effect_shown() {
    for (backend, v4, v6) in
        [("iptables", "iptables-nft", "ip6tables-nft"), ("iptables-legacy", "iptables-legacy", "ip6tables-legacy")]
    {
        in_namespace(|ns| {
            let repair = || assert_eq!(ns.with_backend("install", backend, &[]).code, 0);
            repair();
            ns.tool(&format!("{v4} -t nat -D OUTRIGGER_OUTPUT -m owner --uid-owner 1337 -j RETURN"));
            let failed = findings(ns, &[], "fail");
            assert!(
                failed.iter().any(|finding| finding.contains("missing: -A OUTRIGGER_OUTPUT -m owner --uid-owner 1337")),
                "{failed:?}"
            );
            assert!(starts(&failed, "proxy-bypass IPv4 by user") && failed.len() == 2, "{failed:?}");

            repair();
            ns.tool(&format!("{v6} -t nat -D OUTPUT -p tcp -j OUTRIGGER_OUTPUT"));
            let failed = findings(ns, &[], "fail");
            assert!(
                starts(&failed, "rules IPv6 table nat: missing: -A OUTPUT -p tcp -j OUTRIGGER_OUTPUT"),
                "{failed:?}"
            );
            assert!(
                starts(&failed, "outbound-capture IPv6") && !starts(&failed, "outbound-capture IPv4"),
                "{failed:?}"
            );

            repair();
            ns.tool(&format!("{v4} -t nat -F OUTRIGGER_INBOUND"));
            let failed = findings(ns, &[], "fail");
            assert!(starts(&failed, "inbound-capture IPv4") && starts(&failed, "own-service IPv4"), "{failed:?}");
            assert!(!starts(&failed, "inbound-capture IPv6"), "{failed:?}");

            repair();
            ns.tool(&format!("{v4} -t nat -I OUTPUT -p tcp -j ACCEPT"));
            let failed = findings(ns, &[], "fail");
            assert!(starts(&failed, "outbound-capture IPv4") && !starts(&failed, "rules"), "{failed:?}");
            let warned = findings(ns, &[], "warn");
            assert!(starts(&warned, "foreign-rules IPv4") && warned[0].contains("-p tcp -j ACCEPT"), "{warned:?}");
        });
    }
}

#[test]
fn a_damaged_nft_table_is_named_and_its_effect_shown() {
    in_namespace(|ns| {
        let repair = || assert!(ns.must(&["install", "--backend", "nft"]).starts_with("installed"));
        repair();
        ns.tool("nft flush chain inet outrigger OUTRIGGER_INBOUND");
        let failed = findings(ns, &[], "fail");
        assert!(starts(&failed, "rules - table inet outrigger: missing in chain OUTRIGGER_INBOUND"), "{failed:?}");
        assert!(starts(&failed, "inbound-capture IPv4") && starts(&failed, "inbound-capture IPv6"), "{failed:?}");
        repair();
        ns.tool("nft insert rule inet outrigger OUTRIGGER_OUTPUT ip6 daddr 2001:db8::/32 return");
        let failed = findings(ns, &[], "fail");
        assert!(failed.iter().any(|finding| finding.contains("unexpected in chain OUTRIGGER_OUTPUT")), "{failed:?}");
        assert!(starts(&failed, "outbound-capture IPv6") && !starts(&failed, "outbound-capture IPv4"), "{failed:?}");
        repair();
        assert_eq!(findings(ns, &[], "fail"), Vec::<String>::new());
    });
}

#[test]
fn checks_at_the_same_time_do_not_disturb_each_other() {
    in_namespace(|ns| {
        ns.must(&["install"]);
        let children: Vec<_> = (0..3).map(|_| ns.command(&["check"]).stdout(Stdio::null()).spawn().unwrap()).collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
    });
}

#[test]
fn a_missing_guard_address_is_named() {
    in_namespace(|ns| {
        ns.must(&["install"]);
        ns.tool("ip address del ::6/128 dev lo");
        let failed = findings(ns, &[], "fail");
        assert!(starts(&failed, "loop-guard-address IPv6") && starts(&failed, "loop-guard IPv6"), "{failed:?}");
        assert_eq!(failed.len(), 2, "{failed:?}");
    });
}

#[test]
fn with_a_proxy_listening_acceptance_is_the_proof() {
    in_namespace(|ns| {
        ns.must(&["install"]);
        // Dual-stack listeners, as a proxy binds them.
        let outbound = TcpListener::bind("[::]:15001").unwrap();
        let inbound = TcpListener::bind("[::]:15006").unwrap();
        let passed = findings(ns, &[], "pass");
        for proof in ["outbound-capture IPv4", "outbound-capture IPv6", "inbound-capture IPv4", "own-service IPv6"] {
            let told = |finding: &&String| finding.starts_with(proof) && finding.contains("a proxy is listening");
            assert!(passed.iter().any(|finding| told(&finding)), "{proof}: {passed:?}");
        }
        assert_eq!(findings(ns, &[], "fail"), Vec::<String>::new());
        ns.must(&["uninstall"]);
        let failed = findings(ns, &[], "fail");
        assert!(starts(&failed, "outbound-capture IPv4") && starts(&failed, "inbound-capture IPv6"), "{failed:?}");
        drop((outbound, inbound));
    });
}

#[test]
fn ipv6_switched_off_by_sysctl_is_no_failure() {
    in_namespace(|ns| {
        // As in a Docker container without IPv6. /proc/sys/net shows the namespace of the thread that opens it.
        for interface in ["all", "default"] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "1").unwrap();
        }
        let installed = ns.init(&["install"]);
        assert_eq!(installed.code, 0, "{installed:?}");
        assert!(installed.stderr.contains("switched off by sysctl"), "{installed:?}");
        assert!(ns.snapshot().contains("ip6 saddr ::6"), "the rules are there before IPv6 is");
        assert_eq!(findings(ns, &[], "fail"), Vec::<String>::new());
        assert!(starts(&findings(ns, &[], "warn"), "loop-guard-address IPv6"));
        assert!(starts(&findings(ns, &[], "skip"), "outbound-capture IPv6"));
    });
}

#[test]
fn an_application_with_the_proxys_user_is_pointed_out() {
    in_namespace(|ns| {
        ns.must(&["install", "--proxy-uid", "0", "--proxy-gid", ""]);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let warned = findings(ns, &["--proxy-uid", "0", "--proxy-gid", ""], "warn");
        assert!(
            starts(&warned, &format!("user-collision - something listens as the proxy's user on port {port}")),
            "{warned:?}"
        );
    });
}
