//! Random bytes, whole and as mutations of what would be right, into every port there is.

use std::{net::SocketAddr, time::Duration};

use outrigger_tests::{Pod, need, pair::by4};

use crate::{
    frames::{HEADERS, PREFACE, SETTINGS, frame, get},
    target::{Dice, Target, local, throw},
};

/// Connections to each port.
const THROWS: usize = 40;

/// A seed of this test's own; change it to look elsewhere.
const SEED: u64 = 0x0bad_5eed_0bad_5eed;

#[test]
fn garbage_on_every_port() {
    need!("ip", "curl");
    let mut target = Target::new();
    let mut dice = Dice(SEED);
    let outsider = target.pair.mesh.outsider("outsider");
    let server = &target.pair.server.pod;
    let control4 = target.pair.mesh.control_pod().ip4;
    let ports: Vec<(&str, &Pod, SocketAddr)> = vec![
        ("admin", &target.pair.client.pod, local(15000)),
        ("outbound capture", &target.pair.client.pod, local(15001)),
        ("inbound capture", &target.pair.client.pod, local(15006)),
        ("status", &target.pair.client.pod, local(15021)),
        ("an HTTP service", &target.pair.client.pod, by4(80)),
        ("a service found out by its bytes", &target.pair.client.pod, by4(81)),
        ("a TCP service", &target.pair.client.pod, by4(7000)),
        ("status from outside", &outsider, (server.ip4, 15021).into()),
        ("inbound capture from outside", &outsider, (server.ip4, 15006).into()),
        ("outbound capture from outside", &outsider, (server.ip4, 15001).into()),
        ("the application's port from outside", &outsider, (server.ip4, 9080).into()),
        ("an undeclared port from outside", &outsider, (server.ip6, 9999).into()),
        ("xDS", target.pair.mesh.control_pod(), local(15010)),
        ("xDS over TLS", &outsider, (control4, 15012).into()),
        ("status of the control plane", target.pair.mesh.control_pod(), local(15014)),
    ];
    for (what, pod, to) in ports {
        for n in 0..THROWS {
            let bytes = garbage(&mut dice);
            let Ok(stream) = pod.try_connect(to) else { continue };
            // Some wait for an answer, most go at once, in the middle of whatever the other side is doing.
            let patience = Duration::from_millis(if n % 8 == 0 { 100 } else { 1 });
            let heard = throw(stream, &bytes, patience).unwrap_or_else(|heard| heard);
            assert!(heard.len() < 1 << 20, "{what}: {} bytes as the answer to garbage", heard.len());
        }
        target.answers(&format!("garbage on {what}"));
    }
    let (ok, said) = target.pair.mesh.ctl("status");
    assert!(ok, "{said}");
    target.unharmed("all garbage");
    // STRICT let none of it through to the application, in the clear from outside.
    let stats = target.pair.server.pod.sh("curl -sS 'http://127.0.0.1:15000/stats?filter=no_filter_chain_match'");
    assert!(stats.lines().any(|l| !l.ends_with(": 0")), "nothing was refused: {stats}");
}

fn garbage(dice: &mut Dice) -> Vec<u8> {
    let sizes = [1, 2, 5, 16, 100, 1000, 20_000, 200_000];
    let size = sizes[dice.below(sizes.len())];
    let noise = dice.bytes(size);
    match dice.below(8) {
        0 | 1 => noise,
        2 => [b"GET / HTTP/1.1\r\n".as_slice(), &noise].concat(),
        3 => [PREFACE, &noise].concat(),
        // The beginning of a TLS ClientHello of some length.
        4 => [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &noise].concat(),
        5 => [&[0x16, 3, 1, 0xff, 0xff][..], &noise].concat(),
        6 => {
            let whole = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, 5, 1, &get("/"))].concat();
            mutated(dice, whole)
        }
        _ => {
            let whole = b"POST /x?y=z HTTP/1.1\r\nHost: app\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello";
            mutated(dice, whole.to_vec())
        }
    }
}

/// A few bytes turned, cut somewhere.
fn mutated(dice: &mut Dice, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..1 + dice.below(6) {
        let at = dice.below(bytes.len());
        bytes[at] ^= 1 << dice.below(8);
    }
    let keep = dice.below(bytes.len()) + 1;
    bytes.truncate(keep);
    bytes
}
