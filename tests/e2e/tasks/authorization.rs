//! "HTTP Traffic", "TCP Traffic", "Explicit Deny" and "Dry Run" of authorization.

use std::net::{IpAddr, Ipv4Addr};

use outrigger_tests::{Member, Mesh, Workload, need};

use super::{
    apps::{App, say_line},
    bookinfo::Bookinfo,
    join,
    kubectl::{apply_text, published, stage},
    security::{Foo, step},
};

#[test]
fn http_traffic() {
    // By chance one of three versions is missed once in 100 million times.
    const LOADS: usize = 48;
    need!("ip", "curl");
    let mut bookinfo = Bookinfo::start();
    let apply = |n: usize| apply_text(&bookinfo.mesh, "default", &step("authz-http.yaml", n));
    let shows = |wanted: &[&str]| {
        let page = bookinfo.page("");
        wanted.iter().for_each(|text| assert!(page.contains(text), "no {text:?} in {page:?}"));
    };
    shows(&["Book Details", "reviews-v"]);
    apply(0);
    assert_eq!(bookinfo.page(""), "RBAC: access denied");
    apply(1);
    shows(&["Error fetching product details", "Error fetching product reviews"]);
    apply(2);
    shows(&["Book Details", "Error fetching product reviews"]);
    apply(3);
    let pages = |bookinfo: &Bookinfo| -> Vec<String> { (0..LOADS).map(|_| bookinfo.page("")).collect() };
    for page in pages(&bookinfo) {
        assert!(page.contains("reviews-v1") || page.contains("Ratings service is currently unavailable"), "{page}");
    }
    apply(4);
    let pages = pages(&bookinfo);
    for text in ["reviews-v1", "black stars", "red stars"] {
        assert!(pages.iter().any(|page| page.contains(text)), "no {text} in {pages:?}");
    }
    assert!(!pages.iter().any(|page| page.contains("unavailable") || page.contains("Error")), "{pages:?}");
    bookinfo.assert_sound();
}

#[test]
fn tcp_traffic() {
    need!("ip", "curl");
    let mut mesh = Mesh::start(&[]);
    stage(&mesh, "foo", published("tcp-echo.yaml").split("---\n").next().unwrap());
    let member = |name, labels| Member { namespace: "foo", ..Member::new(name, labels) };
    let mut workloads =
        join(&mut mesh, [member("sleep", &[("app", "sleep")]), member("tcp-echo", &[("app", "tcp-echo")])]);
    let [sleep, echo] = &workloads;
    let _apps = [9000, 9001, 9002].map(|port| App::lines(&echo.pod, port, "hello"));
    mesh.settle();
    // Port 9002 is not the service's: it is reached by the Pod's address.
    let answers = || {
        [9000, 9001, 9002].map(|port| {
            let service = Ipv4Addr::new(10, 96, 0, 30);
            let address = if port == 9002 { echo.pod.ip4 } else { service };
            let answer = say_line(&sleep.pod, (IpAddr::from(address), port), &format!("port {port}"));
            assert!(answer.is_empty() || answer == format!("hello port {port}"), "{answer}");
            !answer.is_empty()
        })
    };
    assert_eq!(answers(), [true, true, true]);
    for (n, wanted, why) in [
        (0, [true, true, false], "two ports are allowed; the third has no service and is denied all the same"),
        (1, [false, false, false], "an HTTP rule allows nothing of TCP"),
        (2, [false, false, false], "an HTTP rule denies all of TCP"),
        (3, [false, true, true], "but for the ports that it is not about"),
    ] {
        apply_text(&mesh, "foo", &step("authz-tcp.yaml", n));
        assert_eq!(answers(), wanted, "{why}");
    }
    workloads.iter_mut().for_each(Workload::assert_sound);
    mesh.assert_no_refusals();
}

#[test]
fn explicit_deny() {
    need!("ip", "curl");
    let mut foo = Foo::start();
    let with = |token: &'static str| vec![("x-token", token)];
    foo.apply(&step("authz-deny.yaml", 0));
    assert_eq!(foo.status("GET", "/get", &[]), 403);
    assert_eq!(foo.status("POST", "/post", &[]), 200);
    foo.apply(&step("authz-deny.yaml", 1));
    assert_eq!(foo.status("GET", "/get", &with("admin")), 200);
    assert_eq!(foo.status("GET", "/get", &with("guest")), 403);
    foo.apply(&step("authz-deny.yaml", 2));
    assert_eq!(foo.status("GET", "/ip", &with("guest")), 403, "what denies comes before what allows");
    assert_eq!(foo.status("GET", "/ip", &with("admin")), 200);
    assert_eq!(foo.status("GET", "/get", &with("admin")), 403, "and what nobody allows is denied");
    foo.assert_sound();
}

#[test]
fn dry_run() {
    const REQUESTS: u64 = 7;
    need!("ip", "curl");
    let mut foo = Foo::start();
    let policy = step("authz-dry-run.yaml", 0);
    let requests = || -> Vec<u16> { (0..REQUESTS).map(|_| foo.status("GET", "/headers", &[])).collect() };
    let count = |name: &str| foo.httpbin.stats_ending(name);
    foo.apply(&policy);
    assert_eq!(requests(), [200; REQUESTS as usize]);
    assert_eq!(foo.status("GET", "/ip", &[]), 200);
    assert_eq!((count(".shadow_denied"), count(".rbac.denied")), (REQUESTS, 0));
    foo.apply(&policy.replace("\"istio.io/dry-run\": \"true\"", "\"istio.io/dry-run\": \"false\""));
    assert_eq!(requests(), [403; REQUESTS as usize]);
    assert_eq!(foo.status("GET", "/ip", &[]), 200);
    assert_eq!(count(".rbac.denied"), REQUESTS, "as many as were foreseen on the same traffic");
    foo.assert_sound();
}
