//! Heads that are too large, too many or never end.

use std::{io::Write, net::TcpStream, time::Duration};

use outrigger_tests::{Exchange, need, pair::by4};

use crate::target::{Target, throw};

/// Slow clients at once.
const SLOW: usize = 300;

#[test]
fn heads_without_measure() {
    need!("ip", "curl");
    let mut target = Target::new();
    let mut bystander = target.pair.client.pod.connect(by4(80));
    bystander.say("HEAD /bystander HTTP/1.1\r\nHost: app\r\n\r\n");
    assert!(bystander.head().starts_with("HTTP/1.1 200 "));
    let client = |target: &Target| target.pair.client.pod.connect(by4(80));

    let huge = |count: usize, size: usize| {
        let mut head = "GET / HTTP/1.1\r\nHost: app\r\n".to_owned();
        (0..count).for_each(|n| head += &format!("x-{n}: {}\r\n", "v".repeat(size)));
        head + "\r\n"
    };
    for (what, head) in [
        ("one header of 100 kB", huge(1, 100 << 10)),
        ("one header of 10 MB", huge(1, 10 << 20)),
        ("100 kB of headers", huge(90, 1200)),
        ("1000 headers", huge(1000, 1)),
        ("100000 headers", huge(100_000, 1)),
        ("a target of 1 MB", format!("GET /{} HTTP/1.1\r\nHost: app\r\n\r\n", "a".repeat(1 << 20))),
    ] {
        for _ in 0..5 {
            let answer = throw(client(&target), head.as_bytes(), Duration::from_secs(10)).expect("closed");
            let answer = String::from_utf8_lossy(&answer);
            // A reset may overtake the answer when more is on its way than was read; never is there another answer.
            assert!(answer.is_empty() || is_refusal(&answer), "{what}: {answer}");
        }
        target.answers(what);
    }
    // Sent so that nothing is left unread, the answer must arrive.
    for (what, head) in [("headers just over the limit", huge(60, 1100)), ("101 headers", huge(110, 1))] {
        let answer = throw(client(&target), head.as_bytes(), Duration::from_secs(10)).expect("closed");
        assert!(is_refusal(&String::from_utf8_lossy(&answer)), "{what}: {:?}", String::from_utf8_lossy(&answer));
    }
    // Below the limit is fine.
    let mut large = client(&target);
    large.say(huge(40, 1000));
    assert!(large.head().starts_with("HTTP/1.1 200 "));
    target.unharmed("huge heads");

    slow(&mut target);
    // Who had connected before all of it is served as if nothing had been.
    bystander.say("GET /bystander HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n");
    assert!(String::from_utf8_lossy(&bystander.hear_end()).contains("/bystander"));
    target.unharmed("slow clients");
}

fn is_refusal(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 431 ") || answer.starts_with("HTTP/1.1 414 ")
}

/// Heads and bodies that come a byte at a time and never end.
fn slow(target: &mut Target) {
    let begun = "POST /slow HTTP/1.1\r\nHost: app\r\nContent-Length: 1000\r\n";
    let mut streams: Vec<TcpStream> = (0..SLOW)
        .map(|n| {
            let mut stream = target.pair.client.pod.connect(by4([80, 81][n % 2]));
            stream.say(if n % 3 == 0 { format!("{begun}\r\n") } else { begun.to_owned() });
            stream
        })
        .collect();
    for round in 0..5 {
        for stream in &mut streams {
            let _ = stream.write_all(b"x");
        }
        target.answers(&format!("{round} rounds of slow bytes"));
    }
}
