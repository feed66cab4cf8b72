//! What a dial of the proxy leaves behind in connection tracking, and the application that gets its source port.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;

use crate::harness::{BACKENDS, Namespace, in_namespace};

const PROXY: u32 = 1337;
const APP: u32 = 1000;
const DESTINATIONS: [&str; 2] = ["10.77.0.9:80", "[fd77::9]:80"];

/// An interface that swallows what is sent: nobody behind it answers.
fn swallow(ns: &Namespace) {
    ns.tool("ip link add silent0 type veth peer name silent1");
    ns.tool("ip address add 10.77.0.1/24 dev silent0");
    ns.tool("ip -6 address add fd77::1/64 dev silent0 nodad");
    ns.tool("ip link set silent0 up");
    ns.tool("ip link set silent1 up");
}

/// How a connection attempt ends: the program's own answer line.
fn probe(ns: &Namespace, program: &str, id: u32, args: &[&str]) -> String {
    let mut command = std::process::Command::new(program);
    let output = command.arg("probe").args(args).uid(id).gid(id).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?} {}", ns.snapshot());
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Runs the body with the rules of one backend and a program other users may run.
fn installed(backend: &str, body: impl FnOnce(&Namespace, &str) + Send) {
    in_namespace(|ns| {
        swallow(ns);
        let copy = tempfile::tempdir_in("/tmp").unwrap();
        let program = copy.path().join("outrigger-init");
        // By a process of its own: a test forking meanwhile would hold our descriptor, and the file be busy.
        ns.tool(&format!("cp {} {}", env!("CARGO_BIN_EXE_outrigger-init"), program.display()));
        std::fs::set_permissions(copy.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let run = ns.with_backend("install", backend, &[]);
        assert!(run.code == 0 && run.stderr.is_empty(), "{run:?}");
        body(ns, program.to_str().unwrap());
    });
}

/// The application's connection from the source port of a dial of the proxy that nobody answered.
fn reuse(ns: &Namespace, program: &str, to: &str) -> String {
    let left = probe(ns, program, PROXY, &["--to", to, "--abandon"]);
    let from: SocketAddr = left.strip_prefix("abandoned ").unwrap_or_else(|| panic!("{left}")).parse().unwrap();
    probe(ns, program, APP, &["--to", to, "--from", &from.to_string()])
}

#[test]
fn a_port_the_proxy_called_from_does_not_lead_past_it() {
    for backend in BACKENDS {
        installed(backend, |ns, program| {
            let proxy = std::net::TcpListener::bind("[::]:15001").unwrap();
            for to in DESTINATIONS {
                assert_eq!(reuse(ns, program, to), "refused", "{backend} {to}");
                // From any other port it is captured as ever.
                let captured = probe(ns, program, APP, &["--to", to]);
                assert!(captured.starts_with("connected "), "{backend} {to}: {captured}");
                // And the proxy itself may call again from that port.
                let left = probe(ns, program, PROXY, &["--to", to, "--abandon"]);
                let from = left.strip_prefix("abandoned ").unwrap();
                assert_eq!(probe(ns, program, PROXY, &["--to", to, "--from", from]), "silence");
            }
            drop(proxy);
        });
    }
}

/// The danger is real, and `check` sees it by traffic where somebody takes the guard away.
#[test]
fn without_the_guard_the_application_would_leave_uncaptured() {
    for (backend, removal) in [
        ("nft", ["flush chain inet outrigger OUTRIGGER_PORT_GUARD"].as_slice()),
        (
            "iptables",
            ["iptables-nft -t filter -F OUTRIGGER_PORT_GUARD", "ip6tables-nft -t filter -F OUTRIGGER_PORT_GUARD"]
                .as_slice(),
        ),
        (
            "iptables-legacy",
            ["iptables-legacy -t filter -F OUTRIGGER_PORT_GUARD", "ip6tables-legacy -t filter -F OUTRIGGER_PORT_GUARD"]
                .as_slice(),
        ),
    ] {
        installed(backend, |ns, program| {
            for line in removal {
                ns.tool(&if backend == "nft" { format!("nft {line}") } else { (*line).to_owned() });
            }
            for to in DESTINATIONS {
                assert_eq!(reuse(ns, program, to), "silence", "{backend} {to}");
            }
            let check = ns.with_backend("check", backend, &[]);
            assert_eq!(check.code, 1, "{check:?}");
            for finding in ["source-port", "left uncaptured", "OUTRIGGER_PORT_GUARD"] {
                assert!(check.stdout.contains(finding), "{finding}: {}", check.stdout);
            }
            assert_eq!(ns.with_backend("install", backend, &[]).code, 0);
            assert_eq!(ns.with_backend("check", backend, &[]).code, 0);
        });
    }
}

#[test]
fn marks_of_others_stay() {
    let Ok(_) = std::fs::read_to_string("/proc/thread-self/net/nf_conntrack") else {
        eprintln!("SKIPPED: this kernel does not list connection tracking in /proc");
        return;
    };
    installed("iptables", |ns, program| {
        ns.tool("iptables-nft -t mangle -A OUTPUT -p tcp -j CONNMARK --set-xmark 0x5/0x5");
        probe(ns, program, PROXY, &["--to", DESTINATIONS[0], "--abandon"]);
        let table = std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap();
        assert!(table.contains(&format!("mark={}", 0x0800_0005)), "{table}");
    });
}

/// A kernel without the filter table's REJECT or without connmark: capture goes on, and it is said.
#[test]
fn a_kernel_that_lacks_it_costs_the_guard_alone() {
    let cases = [
        (
            "nft",
            "nft",
            "case \"$*\" in *-f*) input=$(/bin/cat); case \"$input\" in *'ct mark'*) \
            echo 'Error: Could not process rule: No such file or directory' >&2; exit 1;; esac; \
            echo \"$input\" | /usr/sbin/nft -f -; exit;; esac; exec /usr/sbin/nft \"$@\"",
        ),
        (
            "iptables",
            "iptables-nft-restore",
            "input=$(/bin/cat); case \"$input\" in *CONNMARK*) \
            echo 'iptables-restore v1.8.9 (nf_tables): line 9: RULE_APPEND failed (No such file or directory)' >&2; exit 4;; esac; \
            echo \"$input\" | /usr/sbin/iptables-nft-restore \"$@\"",
        ),
        (
            "iptables-legacy",
            "ip6tables-legacy-restore",
            "input=$(/bin/cat); case \"$input\" in *REJECT*) \
            echo 'ip6tables-restore: line 31 failed' >&2; exit 1;; esac; \
            echo \"$input\" | /usr/sbin/ip6tables-legacy-restore \"$@\"",
        ),
    ];
    for (backend, program, script) in cases {
        in_namespace(|ns| {
            let (_keep, path) = crate::harness::programs(&[(program, script)], &[]);
            let lame = ns.with_path(&path);
            let first = lame.with_backend("install", backend, &[]);
            assert_eq!(first.code, 0, "{first:?}");
            assert!(first.stderr.contains("WARNING: without the port guard"), "{first:?}");
            let once = ns.snapshot();
            assert!(once.contains("OUTRIGGER_OUTPUT") && !once.contains("PORT_GUARD"), "{once}");
            let second = lame.with_backend("install", backend, &[]);
            assert!(second.code == 0 && second.stdout.contains("nothing changed"), "{second:?}");
            assert!(second.stderr.contains("WARNING: without the port guard"), "{second:?}");
            assert_eq!(ns.snapshot(), once, "{backend}");
            let check = ns.with_backend("check", backend, &[]);
            assert!(check.code == 0 && check.stdout.contains("without the port guard"), "{check:?}");
        });
    }
}
