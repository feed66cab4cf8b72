//! Seeded garbage on every port there is, from outside the mesh and from an application inside of it.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
    time::Duration,
};

use outrigger_tests::{
    Pod, need,
    pair::{SERVICE4, SERVICE6, pair},
};

use crate::{
    bootstrap::Random,
    bystander::{Bystander, PORTS},
};

const ROUNDS: usize = 30;

/// What real protocols begin with: garbage alone is refused too early to reach anything interesting.
const BEGINNINGS: &[&[u8]] = &[
    b"",
    b"GET / HTTP/1.1\r\nHost: app\r\n",
    b"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\xff\xff\x01\x04\x00\x00\x00\x01",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\x16\x03\x01\xff\xff",
    b"\x17\x03\x03\x00\x10",
    b"CONNECT ",
    b"\x00",
];

#[test]
fn garbage_on_every_port() {
    need!("ip", "curl");
    let mut pair = pair(PORTS);
    let mut outsider = pair.mesh.outsider("outsider");
    outsider.name = "outsider".to_owned();
    let bystander = Bystander::start(&pair);
    let mut random = Random(0x0175_1663);
    let control = pair.mesh.control_pod().ip4;
    let (server4, server6) = (pair.server.pod.ip4, pair.server.pod.ip6);
    let mut from_outside: Vec<SocketAddr> = [15006, 15021, 9080, 7000, 7100, 80, 1]
        .into_iter()
        .flat_map(|port| [SocketAddr::from((server4, port)), SocketAddr::from((server6, port))])
        .collect();
    from_outside.extend([15012].map(|port| SocketAddr::from((control, port))));
    attack(&outsider, &from_outside, &mut random);
    let mut from_inside: Vec<SocketAddr> = [80, 7000, 7100]
        .into_iter()
        .flat_map(|port| [SocketAddr::from((SERVICE4, port)), (SERVICE6, port).into()])
        .collect();
    from_inside.extend([15000, 15001, 15006, 15021].map(|port| SocketAddr::from(([127, 0, 0, 1], port))));
    attack(&pair.client.pod, &from_inside, &mut random);
    attack(pair.mesh.control_pod(), &[15010, 15014].map(|port| SocketAddr::from(([127, 0, 0, 1], port))), &mut random);

    bystander.end();
    pair.assert_sound();
    // The control plane still serves, and its proxies are where they were.
    pair.mesh.settle();
    pair.mesh.assert_no_refusals();
    let output = pair.mesh.control().output();
    assert!(!output.contains("panicked"), "{output}");
    let files = std::fs::read_dir(format!("/proc/{}/fd", pair.server.proxy.pid())).unwrap().count();
    assert!(files < 300, "the server's proxy still holds {files} descriptors");
}

fn attack(from: &Pod, targets: &[SocketAddr], random: &mut Random) {
    for target in targets {
        for round in 0..ROUNDS {
            let mut bytes = BEGINNINGS[random.below(BEGINNINGS.len())].to_vec();
            let size = random.below(if round % 10 == 0 { 70_000 } else { 300 });
            bytes.extend(random.bytes(size));
            // Nobody listens on some of them, or the proxy closes at once: that is as good as any answer.
            let Ok(mut stream) = from.try_connect(*target) else { continue };
            stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            for part in bytes.chunks(1 + random.below(bytes.len().max(1))) {
                if stream.write_all(part).is_err() {
                    break;
                }
            }
            if random.below(2) == 0 {
                let _ = stream.shutdown(Shutdown::Write);
            }
            let _ = stream.read(&mut [0; 4096]);
            if random.below(3) == 0 {
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
        }
    }
}
