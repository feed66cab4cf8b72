//! A gigabyte each way: equal at the end, and never in the proxies' memory.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use outrigger_tests::{Pair, Process, need, pair::pair, peers::python};

const SIZE: u64 = 1 << 30;
/// A deterministic gigabyte, faster than the network.
const SOURCE: &str = "openssl enc -aes-128-ctr -nosalt -K 00112233445566778899aabbccddeeff \
                      -iv 000102030405060708090a0b0c0d0e0f -in /dev/zero 2>/dev/null";
/// kB by which a proxy may grow while a gigabyte passes.
const GROWTH: u64 = 30_000;

#[test]
fn a_gigabyte_each_way_at_flat_memory() {
    need!("ip", "curl", "openssl", "sha256sum", "python:grpc");
    let mut pair = pair(&[("http", 80, 9080)]);
    let app = pair.server.pod.serve("bulk", 9080, &python("bulk_server.py", "9080"));
    let client = |line: &str| pair.client.pod.sh(&format!("set -e; {line}")).trim().to_owned();
    // Buffers and pools are allocated once: that is not growth.
    client("curl -sSf http://app/67108864 -o /dev/null");
    client(&format!("{SOURCE} | head -c 67108864 | curl -sSf -T - http://app/up"));

    flat(&pair, "download", || {
        let downloaded = client(&format!("curl -sSf http://app/{SIZE} | sha256sum"));
        assert_eq!(downloaded.split(' ').next().unwrap(), client(&format!("curl -sSf http://app/sha256/{SIZE}")));
    });
    flat(&pair, "upload", || {
        let uploaded = client(&format!("{SOURCE} | head -c {SIZE} | curl -sSf -T - http://app/up"));
        let sent = client(&format!("{SOURCE} | head -c {SIZE} | sha256sum"));
        assert_eq!(uploaded, format!("{SIZE} {}", sent.split(' ').next().unwrap()));
    });
    // With a length instead of chunks, and a reader that is slower than the writer: backpressure, not a buffer.
    flat(&pair, "slow reader", || {
        client("curl -sSf --limit-rate 20M http://app/104857600 -o /dev/null");
    });
    drop(app);
    pair.assert_sound();
}

/// Runs `work` and fails when either proxy grew meanwhile.
fn flat(pair: &Pair, what: &str, work: impl FnOnce() + Send) {
    let done = AtomicBool::new(false);
    let proxies = [&pair.client.proxy, &pair.server.proxy];
    let before = proxies.map(Process::resident_kb);
    let peak = [AtomicU64::new(0), AtomicU64::new(0)];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for (proxy, peak) in proxies.iter().zip(&peak) {
                    peak.fetch_max(proxy.resident_kb(), Ordering::Relaxed);
                }
                std::thread::park_timeout(std::time::Duration::from_millis(20));
            }
        });
        let finished = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        finished.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    for ((proxy, before), peak) in proxies.iter().zip(before).zip(&peak) {
        let peak = peak.load(Ordering::Relaxed);
        println!("{what}: {} {before} kB before, {peak} kB at most", proxy.name());
        assert!(peak < before + GROWTH, "{what}: {} grew from {before} to {peak} kB", proxy.name());
    }
}
