//! install and uninstall in real network namespaces: idempotent, atomic, reversible, and careful with what is foreign.

use std::net::{TcpListener, TcpStream};

use crate::harness::{BACKENDS, in_namespace, programs};

const OPTIONS: &[&str] = &["--drop-invalid", "--exclude-outbound-ports", "25,465", "--exclude-inbound-ports", "22"];

#[test]
fn twice_is_once() {
    for backend in BACKENDS {
        in_namespace(|ns| {
            let first = ns.with_backend("install", backend, OPTIONS);
            assert_eq!(first.code, 0, "{first:?}");
            assert!(first.stdout.starts_with("installed for IPv4 and IPv6"), "{first:?}");
            let once = ns.snapshot();
            assert!(once.contains("OUTRIGGER_OUTPUT") && once.contains("::6"), "{once}");
            let second = ns.with_backend("install", backend, OPTIONS);
            assert_eq!(second.code, 0);
            assert!(second.stdout.contains("nothing changed"), "{second:?}");
            assert_eq!(ns.snapshot(), once);
            // Without being told, the backend that has our rules is found again.
            assert!(ns.must(&[&["install"], OPTIONS].concat()).contains("nothing changed"));
            assert_eq!(ns.snapshot(), once);
        });
    }
}

#[test]
fn at_the_same_time_is_once() {
    for backend in BACKENDS {
        in_namespace(|ns| {
            let args = ["install", "--backend", backend];
            let children: Vec<_> = (0..4).map(|_| ns.command(&args).spawn().unwrap()).collect();
            for mut child in children {
                assert!(child.wait().unwrap().success());
            }
            let many = ns.snapshot();
            ns.must(&["uninstall"]);
            ns.must(&args);
            assert_eq!(many, ns.snapshot());
        });
    }
}

#[test]
fn other_options_replace_the_former() {
    for backend in BACKENDS {
        in_namespace(|ns| {
            ns.seed_foreign(backend);
            let direct = {
                assert_eq!(ns.with_backend("install", backend, &[]).code, 0);
                let direct = ns.snapshot();
                ns.must(&["uninstall"]);
                direct
            };
            assert_eq!(ns.with_backend("install", backend, OPTIONS).code, 0);
            assert_ne!(ns.snapshot(), direct);
            let back = ns.with_backend("install", backend, &[]);
            assert!(back.stdout.starts_with("installed"), "{back:?}");
            assert_eq!(ns.snapshot(), direct, "{backend}");
        });
    }
}

#[test]
fn uninstall_restores_the_former_ruleset() {
    for backend in BACKENDS {
        in_namespace(|ns| {
            ns.seed_foreign(backend);
            let before = ns.snapshot();
            assert_eq!(ns.with_backend("install", backend, OPTIONS).code, 0);
            assert_ne!(ns.snapshot(), before);
            assert!(ns.must(&["uninstall"]).starts_with("removed rules"));
            assert_eq!(ns.snapshot(), before, "{backend}");
            assert!(ns.must(&["uninstall"]).contains("nothing changed"));
            assert_eq!(ns.snapshot(), before, "{backend}");
        });
    }
}

#[test]
fn nothing_remains_in_a_namespace_that_had_nothing() {
    // A legacy table stays with its kernel module; the others go.
    for backend in ["nft", "iptables"] {
        in_namespace(|ns| {
            let before = ns.snapshot();
            assert_eq!(ns.with_backend("install", backend, OPTIONS).code, 0);
            ns.must(&["uninstall"]);
            assert_eq!(ns.snapshot(), before, "{backend}");
        });
    }
    // Rules of others that came later into the table we brought stay.
    in_namespace(|ns| {
        assert_eq!(ns.with_backend("install", "iptables", &[]).code, 0);
        ns.tool("iptables-nft -t nat -A OUTPUT -d 203.0.113.9/32 -j ACCEPT");
        ns.must(&["uninstall"]);
        assert_eq!(
            ns.tool("iptables-nft -t nat -S OUTPUT"),
            "-P OUTPUT ACCEPT\n-A OUTPUT -d 203.0.113.9/32 -j ACCEPT\n"
        );
    });
}

#[test]
fn a_failed_install_leaves_nothing() {
    let broken = "echo 'no luck today' >&2; exit 1";
    let cases: [(&str, &str, i32); 5] = [
        ("iptables", "ip6tables-nft-restore", 3),
        ("iptables-legacy", "ip6tables-legacy-restore", 3),
        ("iptables", "iptables-nft-restore", 1),
        ("iptables-legacy", "iptables-legacy-restore", 1),
        ("nft", "nft", 1),
    ];
    for (backend, program, code) in cases {
        in_namespace(|ns| {
            let script = match program {
                "nft" => format!("case \"$*\" in *-f*) {broken};; esac; exec /usr/sbin/nft \"$@\""),
                _ => broken.to_owned(),
            };
            let (_keep, path) = programs(&[(program, script.as_str())], &[]);
            let lame = ns.with_path(&path);
            ns.seed_foreign(backend);
            for former in [None, Some("--exclude-outbound-ports=99")] {
                if let Some(option) = former {
                    assert_eq!(ns.with_backend("install", backend, &[option]).code, 0);
                }
                let before = ns.snapshot();
                let failed = lame.with_backend("install", backend, OPTIONS);
                assert_eq!(failed.code, code, "{backend} {program}: {failed:?}");
                assert!(failed.stderr.contains("no luck today"), "{failed:?}");
                assert_eq!(failed.stderr.contains("--ipv6 off"), code == 3, "{failed:?}");
                assert_eq!(ns.snapshot(), before, "{backend} {program}");
            }
        });
    }
}

#[test]
fn a_failure_between_two_tables_leaves_nothing() {
    for (backend, infix) in [("iptables", "nft"), ("iptables-legacy", "legacy")] {
        in_namespace(|ns| {
            let (program, real) = (format!("iptables-{infix}-restore"), format!("/usr/sbin/iptables-{infix}-restore"));
            // Lets the nat table pass and fails at the mangle table, once.
            let marker = tempfile::NamedTempFile::new().unwrap();
            let marker = marker.path().display();
            let script = format!(
                "input=$(cat); if [ -e {marker} ]; then rm {marker}; \
                 echo \"$input\" | sed '/^COMMIT/q' | {real} \"$@\"; echo 'half way' >&2; exit 1; fi; \
                 echo \"$input\" | exec {real} \"$@\""
            );
            let (_keep, path) = programs(&[(program.as_str(), script.as_str())], &[]);
            std::os::unix::fs::symlink("/bin/cat", path.join("cat")).unwrap();
            std::os::unix::fs::symlink("/bin/rm", path.join("rm")).unwrap();
            std::os::unix::fs::symlink("/bin/sed", path.join("sed")).unwrap();
            ns.seed_foreign(backend);
            let before = ns.snapshot();
            let failed = ns.with_path(&path).with_backend("install", backend, OPTIONS);
            assert_eq!(failed.code, 1, "{failed:?}");
            assert!(failed.stderr.contains("half way") && !failed.stderr.contains("rollback"), "{failed:?}");
            assert_eq!(ns.snapshot(), before, "{backend}");
        });
    }
}

#[test]
fn what_is_missing_is_named() {
    in_namespace(|ns| {
        let before = ns.snapshot();
        let (_keep, path) = programs(&[], &["ip6tables-nft-restore", "ip6tables-restore", "nft"]);
        let no_v6 = ns.with_path(&path).with_backend("install", "iptables", &[]);
        assert_eq!(no_v6.code, 3, "{no_v6:?}");
        assert!(no_v6.stderr.contains("ip6tables-restore") && no_v6.stderr.contains("--ipv6 off"), "{no_v6:?}");
        assert_eq!(ns.snapshot(), before);

        let empty = tempfile::tempdir().unwrap();
        for backend in ["auto", "nft", "iptables", "iptables-legacy"] {
            let nothing = ns.with_path(empty.path()).with_backend("install", backend, &[]);
            assert_eq!(nothing.code, 3, "{nothing:?}");
            assert!(nothing.stderr.contains("PATH"), "{nothing:?}");
        }
        let usage = ns.init(&["install", "--inbound-port", "15001"]);
        assert_eq!(usage.code, 2, "{usage:?}");
        assert_eq!(ns.init(&["install", "--backend", "pf"]).code, 2);
        assert_eq!(ns.snapshot(), before);
    });
}

#[test]
fn without_privilege_only_print_works() {
    in_namespace(|ns| {
        use std::os::unix::process::CommandExt;
        // The build directory may be closed to others; the program itself is not.
        let copy = tempfile::tempdir_in("/tmp").unwrap();
        let program = copy.path().join("outrigger-init");
        // By a process of its own: a test forking meanwhile would hold our descriptor, and the file be busy.
        ns.tool(&format!("cp {} {}", env!("CARGO_BIN_EXE_outrigger-init"), program.display()));
        std::fs::set_permissions(copy.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let run = |command: &str| -> crate::harness::Run {
            std::process::Command::new(&program).arg(command).uid(65534).gid(65534).output().unwrap().into()
        };
        for command in ["install", "uninstall", "check"] {
            let refused = run(command);
            assert_eq!(refused.code, 3, "{refused:?}");
            assert!(refused.stderr.contains("NET_ADMIN"), "{refused:?}");
        }
        let printed = run("print");
        assert_eq!(printed.code, 0, "{printed:?}");
        assert!(printed.stdout.contains("*nat\n") && printed.stdout.contains("table inet outrigger {"), "{printed:?}");
    });
}

#[test]
fn what_print_shows_is_what_install_does() {
    in_namespace(|ns| {
        assert_eq!(ns.with_backend("install", "nft", OPTIONS).code, 0);
        let installed = ns.tool("nft -y -s list table inet outrigger");
        let printed = ns.with_backend("print", "nft", OPTIONS).stdout;
        assert!(printed.contains(&installed), "{printed}\n{installed}");
        ns.must(&["uninstall"]);

        assert_eq!(ns.with_backend("install", "iptables", OPTIONS).code, 0);
        let installed = ns.tool("iptables-nft-save");
        let printed = ns.with_backend("print", "iptables", OPTIONS).stdout;
        let v4 = printed.split("# ip6tables-restore").next().unwrap();
        let rules: Vec<&str> = v4.lines().filter(|line| line.starts_with("-A")).collect();
        assert!(rules.len() > 12);
        for rule in rules {
            assert!(installed.lines().any(|line| line == rule), "{rule}\n{installed}");
        }
    });
}

#[test]
fn auto_takes_the_tables_in_use_and_refuses_conflicts() {
    in_namespace(|ns| {
        ns.tool("iptables-legacy -t nat -A OUTPUT -d 203.0.113.1/32 -j ACCEPT");
        assert!(ns.must(&["install"]).contains("iptables-legacy (its tables are in use"));
        let other = ns.with_backend("install", "nft", &[]);
        assert_eq!(other.code, 1);
        assert!(other.stderr.contains("installed with the backend iptables-legacy"), "{other:?}");
        // Somebody installs the same by hand elsewhere: now there are two, and that has a name.
        ns.tool("nft add table inet outrigger");
        for command in ["install", "check"] {
            let conflict = ns.init(&[command]);
            assert_eq!(conflict.code, 1);
            assert!(conflict.stderr.contains("more than one packet filter: iptables-legacy and nft"), "{conflict:?}");
        }
        let removed = ns.must(&["uninstall"]);
        assert!(removed.contains("iptables-legacy") && removed.contains("nft"), "{removed}");
        assert!(ns.tool("iptables-legacy-save").contains("203.0.113.1/32"));
    });
    in_namespace(|ns| {
        ns.tool("iptables-nft -t filter -A OUTPUT -d 203.0.113.1/32 -j ACCEPT");
        assert!(ns.must(&["install"]).contains("iptables (nf_tables) (its tables are in use"));
    });
    in_namespace(|ns| assert!(ns.must(&["install"]).contains("with nft (no packet filter is in use")));
}

#[test]
fn ipv6_left_alone_is_said_aloud_and_undone() {
    for backend in BACKENDS {
        in_namespace(|ns| {
            let bare = ns.with_backend("install", backend, &[]);
            assert!(bare.stderr.is_empty(), "{bare:?}");
            let off = ns.with_backend("install", backend, &["--ipv6", "off"]);
            assert_eq!(off.code, 0, "{off:?}");
            assert!(off.stderr.contains("WARNING") && off.stderr.contains("NOT intercepted"), "{off:?}");
            let snapshot = ns.snapshot();
            assert!(snapshot.contains("127.0.0.6") && !snapshot.contains("::6"), "{backend}: {snapshot}");
            let links = outrigger_init::links::Links::open().unwrap();
            assert!(links.addresses().unwrap().iter().all(|address| address.ip.to_string() != "::6"));
            assert_eq!(ns.with_backend("check", backend, &["--ipv6", "off"]).code, 0);
        });
    }
}

#[test]
fn a_guard_address_of_somebody_else_stays() {
    in_namespace(|ns| {
        let links = outrigger_init::links::Links::open().unwrap();
        let present = || links.addresses().unwrap().iter().any(|address| address.ip.to_string() == "::6");
        ns.must(&["install"]);
        assert!(present());
        ns.must(&["uninstall"]);
        assert!(!present());
        if !links.keeps_origin().unwrap() {
            eprintln!("SKIPPED: this kernel does not keep who added an address");
            return;
        }
        ns.tool("ip address add ::6/128 dev lo");
        ns.must(&["install"]);
        ns.must(&["uninstall"]);
        assert!(present());
    });
}

#[test]
fn dockers_dns_keeps_working() {
    for backend in BACKENDS {
        in_namespace(|ns| {
            let resolver = TcpListener::bind("127.0.0.11:0").unwrap();
            let port = resolver.local_addr().unwrap().port();
            let program = if backend == "iptables-legacy" { "iptables-legacy" } else { "iptables-nft" };
            ns.tool(&format!("{program} -t nat -N DOCKER_OUTPUT"));
            ns.tool(&format!("{program} -t nat -A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT"));
            ns.tool(&format!(
                "{program} -t nat -A DOCKER_OUTPUT -d 127.0.0.11/32 -p tcp --dport 53 -j DNAT --to-destination 127.0.0.11:{port}"
            ));
            let docker = ns.tool(&format!("{program} -t nat -S DOCKER_OUTPUT"));
            let ask = || {
                let client = TcpStream::connect("127.0.0.11:53").expect("Docker's chain leads to its resolver");
                assert_eq!(resolver.accept().unwrap().1, client.local_addr().unwrap());
            };
            ask();
            assert_eq!(ns.with_backend("install", backend, &[]).code, 0);
            ask();
            assert_eq!(ns.tool(&format!("{program} -t nat -S DOCKER_OUTPUT")), docker);
            ns.must(&["uninstall"]);
            ask();
        });
    }
}
