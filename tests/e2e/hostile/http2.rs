//! Floods of HTTP/2 frames that cost the sender nothing.

use outrigger_tests::{need, pair::pair, peers::python};

use crate::bystander::{Bystander, PORTS};

const ATTACKS: &[&str] = &[
    "rapid_reset",
    "continuation_flood",
    "settings_flood",
    "ping_flood",
    "empty_data_flood",
    "hpack_bomb",
    "too_many_streams",
    "zero_window",
    "wrong_frames",
];
/// kB by which the attacked proxy may grow over all of them.
const GROWTH: u64 = 40_000;

#[test]
fn floods_of_frames() {
    need!("ip", "curl", "python:h2");
    let mut pair = pair(PORTS);
    let bystander = Bystander::start(&pair);
    let before = pair.client.proxy.resident_kb();
    for attack in ATTACKS {
        let said = pair.client.pod.sh(&python("hostile_http2.py", &format!("app 7100 {attack}")));
        assert!(said.starts_with(&format!("{attack}: ")), "{said}");
        println!("{} {} kB", said.trim(), pair.client.proxy.resident_kb());
        assert!(pair.client.pod.sh("curl -sS -m 10 http://app/").contains("\"version\":\"v1\""), "after {attack}");
        pair.client.assert_sound();
    }
    let after = pair.client.proxy.resident_kb();
    assert!(after < before + GROWTH, "memory grew from {before} to {after} kB");
    bystander.end();
    pair.assert_sound();
}
