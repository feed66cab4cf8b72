//! "Mirroring": v1 answers, v2 gets a copy whose answer nobody sees.

use outrigger_tests::{need, until};

use super::{apps::Message, httpbin::Httpbin, kubectl::apply_text};

#[test]
fn mirroring() {
    const REQUESTS: usize = 20;
    need!("ip", "curl");
    let mut httpbin = Httpbin::start(&["v1", "v2"], |version, _| match version {
        "v1" => Message::answer(200, "v1"),
        _ => Message::answer(500, "nobody should read this"),
    });
    let rules = super::kubectl::published("mirroring.yaml");
    let copies = rules.find("    mirror:\n").unwrap();
    apply_text(&httpbin.mesh, "default", &rules[..copies]);
    for _ in 0..REQUESTS {
        assert_eq!(httpbin.get("/headers").body, "v1");
    }
    assert!(httpbin.servers[1].1.requests().is_empty(), "all traffic goes to v1");

    apply_text(&httpbin.mesh, "default", &rules);
    for n in 0..REQUESTS {
        let answer = httpbin.get(&format!("/headers?copy={n}"));
        assert_eq!((answer.status(), answer.body.as_str()), (200, "v1"));
    }
    let [(_, v1), (_, v2)] = &httpbin.servers[..] else { unreachable!() };
    until("a copy of every request", || v2.requests().len() >= REQUESTS);
    let paths = |requests: &[Message]| {
        let mut paths: Vec<String> = requests.iter().map(|r| r.path().to_owned()).collect();
        paths.sort_unstable();
        paths
    };
    let (originals, copies) = (v1.requests().split_off(REQUESTS), v2.requests());
    assert_eq!(paths(&originals), paths(&copies), "each is copied once");
    for original in &originals {
        assert_eq!(original.header("host"), "httpbin:8000");
    }
    for copy in &copies {
        assert_eq!(copy.header("host"), "httpbin-shadow:8000");
    }
    httpbin.assert_sound();
}
