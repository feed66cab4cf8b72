//! Protocols that are not HTTP: who speaks first, who stops first, and how much in each direction.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener},
    time::Instant,
};

use outrigger_tests::{
    Exchange, Pair,
    exchange::accept,
    need,
    pair::{by4, by6, pair},
    peers::program,
    process::run,
};

/// A declared port, an undeclared one (found out by its first bytes) and SSH's.
const PORTS: &[(&str, u16, u16)] = &[("tcp-plain", 7000, 7000), ("whatever", 7100, 7100), ("ssh", 2222, 2222)];

#[test]
fn half_close_server_first_and_bulk() {
    need!("ip", "curl");
    let mut pair = pair(PORTS);
    for port in [7000, 7100] {
        let listener = pair.server.pod.listen(port);
        client_stops_first(&pair, &listener, port);
        server_stops_first(&pair, &listener, port);
        server_speaks_first(&pair, &listener, port);
        bulk_both_ways(&pair, &listener, port);
        reset_is_a_reset(&pair, &listener, port);
    }
    pair.assert_sound();
}

fn client_stops_first(pair: &Pair, listener: &TcpListener, port: u16) {
    for address in [by4(port), by6(port)] {
        let mut client = pair.client.pod.connect(address);
        client.say(b"\x01question\x00");
        client.finish();
        let mut server = accept(listener);
        assert_eq!(server.hear_end(), b"\x01question\x00", "{address}");
        // Only now is the answer made, a large one: the client's silence must not have ended its other direction.
        let answer = vec![b'a'; 5 << 20];
        let writer = std::thread::spawn(move || {
            server.say(&answer);
            server.finish();
        });
        let heard = client.hear_end();
        assert!(heard.len() == 5 << 20 && heard.iter().all(|b| *b == b'a'), "{address}: {} bytes", heard.len());
        writer.join().unwrap();
    }
}

fn server_stops_first(pair: &Pair, listener: &TcpListener, port: u16) {
    let mut client = pair.client.pod.connect(by4(port));
    client.say(b"\x02go");
    let mut server = accept(listener);
    assert_eq!(server.hear(3), b"\x02go");
    server.say("that is all");
    server.finish();
    assert_eq!(client.hear_end(), b"that is all");
    client.say("but I have more");
    client.finish();
    assert_eq!(server.hear_end(), b"but I have more");
}

fn server_speaks_first(pair: &Pair, listener: &TcpListener, port: u16) {
    let started = Instant::now();
    let mut client = pair.client.pod.connect(by4(port));
    let mut server = accept(listener);
    server.say("220 speak\r\n");
    assert_eq!(client.hear_until("\r\n"), "220 speak\r\n");
    client.say("HELO\r\n");
    assert_eq!(server.hear_until("\r\n"), "HELO\r\n");
    // No detection timeout (5 s and more elsewhere) is waited out; the bound is far from both.
    assert!(started.elapsed().as_secs() < 3, "the greeting took {:?}", started.elapsed());
}

fn bulk_both_ways(pair: &Pair, listener: &TcpListener, port: u16) {
    const SIZE: usize = 64 << 20;
    let client = pair.client.pod.connect(by4(port));
    let block: Vec<u8> = (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::thread::scope(|scope| {
        let block = &block;
        let send = move |mut stream: std::net::TcpStream| {
            for _ in 0..SIZE / block.len() {
                stream.say(block);
            }
            stream.finish();
        };
        let check = move |mut stream: std::net::TcpStream| {
            for n in 0..SIZE / block.len() {
                assert!(stream.hear(block.len()) == *block, "megabyte {n} differs");
            }
            assert!(stream.hear_end().is_empty());
        };
        let (reading, writing) = (client.try_clone().unwrap(), client);
        scope.spawn(move || send(writing));
        scope.spawn(move || {
            let server = accept(listener);
            let server_reading = server.try_clone().unwrap();
            std::thread::scope(|inner| {
                inner.spawn(|| send(server));
                check(server_reading);
            });
        });
        check(reading);
    });
}

fn reset_is_a_reset(pair: &Pair, listener: &TcpListener, port: u16) {
    let mut client = pair.client.pod.connect(by4(port));
    client.say(b"\x03x");
    let mut server = accept(listener);
    server.hear(2);
    socket2::SockRef::from(&server).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(server);
    // A clean end would tell the client that it has everything.
    let end = client.read(&mut [0; 16]);
    assert!(end.is_err(), "port {port}: the server's reset arrived as {end:?}");
    let _ = client.shutdown(Shutdown::Both);
    let _ = client.flush();
}

#[test]
fn ssh() {
    need!("ip", "curl", "sshd", "ssh", "ssh-keygen");
    let mut pair = pair(PORTS);
    let dir = pair.server.pod.dir().to_path_buf();
    let at = |name: &str| dir.join(name).display().to_string();
    for key in ["host", "user"] {
        run(std::process::Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &at(key)]));
    }
    std::fs::create_dir_all("/run/sshd").unwrap();
    let sshd = pair.server.pod.serve(
        "sshd",
        2222,
        &format!(
            "{} -D -e -f /dev/null -p 2222 -h {} -o AuthorizedKeysFile={} -o StrictModes=no -o UsePAM=no \
             -o PermitRootLogin=yes -o PasswordAuthentication=no -o PidFile=none",
            program("sshd").display(),
            at("host"),
            at("user.pub")
        ),
    );
    let ssh = |input: &str, command: &str| {
        pair.client.pod.sh(&format!(
            "{input} ssh -F /dev/null -p 2222 -i {} -o UserKnownHostsFile={} -o StrictHostKeyChecking=accept-new \
             -o BatchMode=yes -o ConnectTimeout=20 root@app '{command}'",
            at("user"),
            at("known_hosts"),
        ))
    };
    assert_eq!(ssh("", "echo from $(hostname >/dev/null; echo there)").trim(), "from there");
    let expected = pair.client.pod.sh("yes outrigger | head -c 20000000 | sha256sum");
    assert_eq!(ssh("yes outrigger | head -c 20000000 |", "sha256sum"), expected);
    drop(sshd);
    pair.assert_sound();
}
