//! "Mutual TLS Migration" and "Authentication Policy": who is let in while namespace after namespace becomes strict.

use outrigger_tests::need;

use super::{
    kubectl::{apply_text, delete},
    security::{Three, curl, step},
};

const FILE: &str = "peer-authentication.yaml";
const FOO: &str = "sleep.legacy to httpbin.foo: 000";
const BAR: &str = "sleep.legacy to httpbin.bar: 000";

#[test]
fn mutual_tls_migration() {
    need!("ip", "curl", "iptables");
    let mut three = Three::start();
    assert_eq!(three.failing(), Vec::<String>::new(), "permissive: everybody reaches everybody");
    apply_text(&three.mesh, "foo", &step(FILE, 1));
    assert_eq!(three.failing(), [FOO]);
    apply_text(&three.mesh, "istio-system", &step(FILE, 0));
    assert_eq!(three.failing(), [FOO, BAR]);
    three.assert_sound();
}

#[test]
fn authentication_policy() {
    need!("ip", "curl", "iptables");
    let mut three = Three::start();
    // Between sidecars TLS is mutual without anybody's doing, and the application hears of it.
    let head = curl(three.sleep("foo"), "GET", "foo", "/headers", &[]).body;
    let certificate = head.lines().find(|l| l.to_ascii_lowercase().starts_with("x-forwarded-client-cert: ")).unwrap();
    assert!(certificate.contains("By=spiffe://cluster.local/ns/foo/sa/httpbin;Hash="), "{certificate}");
    assert!(certificate.ends_with(";Subject=\"\";URI=spiffe://cluster.local/ns/foo/sa/sleep"), "{certificate}");
    let head = curl(three.sleep("foo"), "GET", "legacy", "/headers", &[]).body;
    assert!(!head.to_ascii_lowercase().contains("x-forwarded-client-cert"), "{head}");

    let mesh = &three.mesh;
    apply_text(mesh, "istio-system", &step(FILE, 0));
    assert_eq!(three.failing(), [FOO, BAR], "the whole mesh is strict");
    delete(mesh, "PeerAuthentication", "istio-system", "default");
    assert_eq!(three.failing(), Vec::<String>::new());

    apply_text(mesh, "foo", &step(FILE, 1));
    assert_eq!(three.failing(), [FOO], "one namespace");
    apply_text(mesh, "bar", &step(FILE, 2));
    assert_eq!(three.failing(), [FOO, BAR], "and one workload");
    apply_text(mesh, "bar", &step(FILE, 3));
    assert_eq!(three.failing(), [FOO], "but not its port 80");
    apply_text(mesh, "foo", &step(FILE, 4));
    assert_eq!(three.failing(), Vec::<String>::new(), "a workload's own policy comes before its namespace's");
    three.assert_sound();
}
