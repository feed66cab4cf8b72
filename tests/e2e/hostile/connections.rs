//! Clients that send too much or too slowly.

use std::{io::Write, net::TcpStream};

use outrigger_tests::{
    Exchange, Pair, need,
    pair::{by4, pair},
};

use crate::bystander::{Bystander, PORTS};

#[test]
fn huge_headers_and_slow_clients() {
    need!("ip", "curl");
    let mut pair = pair(PORTS);
    let bystander = Bystander::start(&pair);
    for port in [80, 7100] {
        huge_headers(&pair, port);
        many_headers(&pair, port);
        long_request_line(&pair, port);
    }
    huge_headers_over_http2(&pair);
    slow_heads(&pair);
    slow_bodies(&pair);
    bystander.end();
    pair.assert_sound();
}

/// Writes as much as is taken: a refusal may come before the end.
fn say_what_is_taken(client: &mut TcpStream, bytes: &[u8]) {
    let _ = client.write_all(bytes);
}

fn status(client: &mut TcpStream) -> String {
    let answer = client.hear_out();
    String::from_utf8_lossy(&answer).lines().next().unwrap_or("closed without a word").to_owned()
}

fn huge_headers(pair: &Pair, port: u16) {
    let mut client = pair.client.pod.connect(by4(port));
    say_what_is_taken(&mut client, b"GET / HTTP/1.1\r\nHost: app\r\nX-Huge: ");
    for _ in 0..64 {
        say_what_is_taken(&mut client, &[b'h'; 16 << 10]);
    }
    let status = status(&mut client);
    assert!(status.starts_with("HTTP/1.1 431"), "port {port}: {status}");
}

fn many_headers(pair: &Pair, port: u16) {
    let mut client = pair.client.pod.connect(by4(port));
    let many: String = (0..5000).map(|n| format!("h{n}: v\r\n")).collect();
    say_what_is_taken(&mut client, format!("GET / HTTP/1.1\r\nHost: app\r\n{many}\r\n").as_bytes());
    let status = status(&mut client);
    assert!(status.starts_with("HTTP/1.1 431"), "port {port}: {status}");
}

fn long_request_line(pair: &Pair, port: u16) {
    let mut client = pair.client.pod.connect(by4(port));
    say_what_is_taken(&mut client, b"GET /");
    for _ in 0..64 {
        say_what_is_taken(&mut client, &[b'p'; 16 << 10]);
    }
    let status = status(&mut client);
    let refused = ["HTTP/1.1 414", "HTTP/1.1 431", "HTTP/1.1 400"].iter().any(|s| status.starts_with(s));
    assert!(refused, "port {port}: {status}");
}

fn huge_headers_over_http2(pair: &Pair) {
    let file = pair.client.pod.dir().join("huge-header");
    std::fs::write(&file, format!("X-Huge: {}\n", "h".repeat(200_000))).unwrap();
    let (ok, output) = pair.client.pod.try_sh(&format!(
        "curl -sS -m 20 --http2-prior-knowledge -o /dev/null -w '%{{http_code}}' -H @{} http://app:7100/",
        file.display()
    ));
    assert!(output.contains("431") || !ok, "{output}");
}

/// kB of memory of the client's proxy.
fn memory(pair: &Pair) -> u64 {
    pair.client.proxy.resident_kb()
}

fn slow_heads(pair: &Pair) {
    const CLIENTS: usize = 300;
    let before = memory(pair);
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| pair.client.pod.connect(by4(80))).collect();
    for byte in b"GET / HTTP/1.1\r\nHost: app\r\nX-Slow: " {
        for client in &mut clients {
            client.say([*byte]);
        }
    }
    // While they sit there, everybody else is served.
    for _ in 0..20 {
        assert!(pair.client.pod.sh("curl -sS -m 5 http://app/").contains("\"version\":\"v1\""));
    }
    let held = memory(pair).saturating_sub(before) / CLIENTS as u64;
    println!("{held} kB for each slow client");
    assert!(held < 100, "{held} kB for each slow client");
    // Whoever does come to an end is served too.
    for client in clients.iter_mut().take(20) {
        client.say("end\r\nConnection: close\r\n\r\n");
        assert!(status(client).starts_with("HTTP/1.1 200"));
    }
}

fn slow_bodies(pair: &Pair) {
    let mut clients: Vec<TcpStream> = (0..100).map(|_| pair.client.pod.connect(by4(80))).collect();
    for client in &mut clients {
        client.say("POST /slow HTTP/1.1\r\nHost: app\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n");
    }
    for _ in 0..10 {
        for client in &mut clients {
            client.say("x");
        }
        assert!(pair.client.pod.sh("curl -sS -m 5 http://app/").contains("\"version\":\"v1\""));
    }
}
