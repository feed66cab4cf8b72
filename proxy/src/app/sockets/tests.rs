use std::{io::Write, sync::Arc};

use super::*;
use crate::{
    app::testing::{Rig, client, echo_server, echoes, free_port, is_closed, server},
    live::testing::{cluster, statics, tcp_listener},
};

const HELD: Held = Held { connections: 64, bytes: 16 << 10 };

fn ids(rig: &mut Rig) -> Vec<(usize, u64)> {
    rig.sockets().open.values().flat_map(|open| open.ids.clone()).collect()
}

#[test]
fn an_address_that_moves_to_another_listener_keeps_its_sockets() {
    let mut rig = Rig::new(2, None);
    let port = free_port();
    let greet = |word: &'static str| {
        server(move |mut stream: std::net::TcpStream| {
            let _ = stream.write_all(word.as_bytes());
        })
    };
    let clusters = [cluster("one", greet("1")), cluster("two", greet("2"))];
    let heard = |rig: &mut Rig, listener: &str| std::io::read_to_string(rig.connect(listener)).unwrap();
    assert!(rig.apply(&statics(&[tcp_listener("a", "127.0.0.1", port, "one", "")], &clusters)).is_empty());
    assert_eq!(heard(&mut rig, "a"), "1");
    let before = ids(&mut rig);
    assert_eq!(before.len(), 2, "one per worker");
    assert!(rig.apply(&statics(&[tcp_listener("b", "127.0.0.1", port, "two", "")], &clusters)).is_empty());
    assert_eq!(heard(&mut rig, "b"), "2");
    assert_eq!(ids(&mut rig), before);
    // Other options need other sockets.
    let changed = tcp_listener("b", "127.0.0.1", port, "two", "tcp_backlog_size: 7");
    assert!(rig.apply(&statics(&[changed], &clusters)).is_empty());
    assert_ne!(ids(&mut rig), before);
    assert_eq!(heard(&mut rig, "b"), "2");
}

#[test]
fn a_removed_listener_no_longer_accepts() {
    let mut rig = Rig::new(2, None);
    let clusters = [cluster("c", echo_server())];
    rig.apply(&statics(&[tcp_listener("l", "127.0.0.1", 0, "c", "")], &clusters));
    let mut open = rig.connect("l");
    echoes(&mut open, "before");
    let address = rig.address("l");
    assert!(rig.apply(&statics(&[], &clusters)).is_empty());
    crate::app::testing::until("refused", || match std::net::TcpStream::connect(address) {
        Err(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        Ok(mut stream) => !is_closed(&mut stream),
    });
    echoes(&mut open, "an open connection goes on");
}

#[test]
fn an_address_in_use_is_named_and_taken_once_it_is_free() {
    let mut rig = Rig::new(1, None);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let clusters = [cluster("c", echo_server())];
    let failed = rig.apply(&statics(&[tcp_listener("l", "127.0.0.1", address.port(), "c", "")], &clusters));
    let text = failed.iter().map(ToString::to_string).collect::<String>();
    assert!(text.starts_with(&format!("listener l: cannot bind {address}: Address already in use")), "{text}");
    assert_eq!(rig.reconcile().len(), 1, "still taken");
    drop(taken);
    assert!(rig.reconcile().is_empty());
    echoes(&mut client(address), "at last");
}

#[test]
fn connections_before_the_first_configuration_are_held_and_then_served() {
    let mut rig = Rig::new(2, None);
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    rig.sockets().reserve(address, HELD);
    let mut early: Vec<_> = (0..10).map(|_| client(address)).collect();
    early.iter_mut().for_each(|stream| stream.write_all(b"held").unwrap());
    assert_eq!(rig.sockets().held(), HoldCounts { waiting: 10, ..HoldCounts::default() });
    assert_eq!(rig.sockets().reserved().collect::<Vec<_>>(), [address]);
    let listener = tcp_listener("l", "127.0.0.1", address.port(), "c", "tcp_backlog_size: 100");
    rig.apply(&statics(&[listener], &[cluster("c", echo_server())]));
    assert_eq!(rig.sockets().reserved().count(), 0);
    assert_eq!(rig.sockets().held(), HoldCounts { served: 10, ..HoldCounts::default() });
    for stream in &mut early {
        let mut back = [0; 4];
        std::io::Read::read_exact(stream, &mut back).unwrap();
        assert_eq!(&back, b"held");
    }
}

/// What a peer that nobody serves can write, and how much of it the other side's kernel took.
fn taken(stream: &mut std::net::TcpStream) -> (usize, usize) {
    stream.set_nonblocking(true).unwrap();
    let mut written = 0;
    loop {
        match stream.write(&[0; 4096]) {
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    let mut taken = 0;
    // Until nothing moves any more.
    for _ in 0..1000 {
        let stream = tokio::net::TcpStream::from_std(stream.try_clone().unwrap()).unwrap();
        let now = written - socket::unacknowledged(&stream).unwrap();
        if now == taken && now > 0 {
            break;
        }
        taken = now;
        std::thread::yield_now();
    }
    (written, taken)
}

#[tokio::test]
async fn held_connections_are_bounded_in_number_and_bytes() {
    let mut rig = Rig::new(1, None);
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    rig.sockets().reserve(address, Held { connections: 4, bytes: 16 << 10 });
    let mut held: Vec<_> = (0..4).map(|_| client(address)).collect();
    assert_eq!(rig.sockets().held().waiting, 4);
    let mut written = 0;
    for stream in held.iter_mut().rev() {
        let (said, taken) = taken(stream);
        written = said;
        assert!(taken > 0 && taken <= 16 << 10, "{taken} bytes");
    }
    // One more waits at its client: nobody answers it before there is room, and nobody refuses it.
    let more = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    more.set_nonblocking(true).unwrap();
    assert_eq!(more.connect(&address.into()).unwrap_err().raw_os_error(), Some(libc::EINPROGRESS));
    assert_eq!(rig.sockets().held().waiting, 4);
    assert!(more.take_error().unwrap().is_none());
    // They are served with all that they have to say, once there is a listener.
    rig.apply(&statics(&[tcp_listener("l", "127.0.0.1", address.port(), "c", "")], &[cluster("c", echo_server())]));
    let mut first = held.remove(0);
    first.set_nonblocking(false).unwrap();
    std::io::Read::read_exact(&mut first, &mut vec![0; written]).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn a_reserved_address_nobody_wants_is_given_up() {
    let mut rig = Rig::new(1, None);
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    rig.sockets().reserve(address, HELD);
    drop(client(address));
    rig.sockets().release("nobody wants it");
    assert_eq!(rig.sockets().held(), HoldCounts { refused: 1, ..HoldCounts::default() });
    assert_eq!(std::net::TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn what_waits_in_the_queue_is_served_before_a_socket_closes() {
    let mut rig = Rig::new(2, None);
    rig.apply(&statics(&[tcp_listener("l", "127.0.0.1", 0, "c", "")], &[cluster("c", echo_server())]));
    let mut clients: Vec<_> = (0..100).map(|_| rig.connect("l")).collect();
    rig.sockets().close_direction(Direction::Unspecified);
    for stream in &mut clients {
        echoes(stream, "connected is connected");
    }
    assert!(rig.reconcile().is_empty() && ids(&mut rig).is_empty(), "a closed direction stays closed");
}

/// Connections to an address while its sockets go from a process with `before` workers to one with `after`.
fn succession(before: usize, after: usize) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let yaml = statics(&[tcp_listener("l", "127.0.0.1", address.port(), "c", "")], &[cluster("c", echo_server())]);
    let [mut old, mut new] = [before, after].map(|workers| {
        let mut rig = Rig::new(workers, None);
        rig.sockets = rig.sockets.take().map(Sockets::keeping);
        rig
    });
    assert!(old.apply(&yaml).is_empty());
    let mut kept = client(address);
    echoes(&mut kept, "before");
    let offered = old.sockets().offer().unwrap();
    assert_eq!(offered[0].sockets.len(), before);
    new.sockets().inherit(offered);
    assert_eq!(new.sockets().held(), HoldCounts::default(), "they are not held, somebody serves them");
    // Nobody notices a successor that thinks better of it.
    assert!(new.apply(&yaml).is_empty());
    assert_eq!(ids(&mut new).len(), before.max(after), "no socket without somebody who accepts on it");
    let mut early: Vec<_> = (0..50).map(|_| client(address)).collect();
    old.sockets().leave();
    crate::app::testing::until("nobody accepts", || old.sockets().emptied());
    assert!(old.reconcile().is_empty() && ids(&mut old).is_empty());
    let mut late: Vec<_> = (0..50).map(|_| client(address)).collect();
    early.iter_mut().chain(&mut late).for_each(|stream| echoes(stream, "in between"));
    echoes(&mut kept, "and the old ones go on");
    drop(old);
    let mut last: Vec<_> = (0..50).map(|_| client(address)).collect();
    last.iter_mut().for_each(|stream| echoes(stream, "after"));
}

#[test]
fn sockets_change_hands_whatever_the_number_of_workers() {
    succession(2, 2);
    succession(4, 1);
    succession(1, 3);
}

#[test]
fn a_successor_that_thinks_better_of_it_leaves_no_trace() {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let yaml = statics(&[tcp_listener("l", "127.0.0.1", address.port(), "c", "")], &[cluster("c", echo_server())]);
    let mut old = Rig::new(2, None);
    old.sockets = old.sockets.take().map(Sockets::keeping);
    assert!(old.apply(&yaml).is_empty());
    let offered = old.sockets().offer().unwrap();
    drop(offered);
    old.sockets().withdraw();
    (0..20).map(|_| client(address)).for_each(|mut stream| echoes(&mut stream, "served"));
    // And a socket that closes is emptied first, as ever.
    let mut waiting: Vec<_> = (0..50).map(|_| client(address)).collect();
    old.sockets().close_direction(Direction::Unspecified);
    waiting.iter_mut().for_each(|stream| echoes(stream, "connected is connected"));
}

#[test]
fn only_a_listener_with_an_ipv4_address_may_do_without_ipv6() {
    let mut rig = Rig::new(1, None);
    rig.apply(&statics(&[tcp_listener("dual", "127.0.0.1", 0, "c", "")], &[cluster("c", echo_server())]));
    let unbound = |listener: &str, address: &str, code| Unbound {
        listener: listener.into(),
        address: address.parse().unwrap(),
        error: io::Error::from_raw_os_error(code),
    };
    let sockets = rig.sockets();
    assert!(sockets.may_miss(&unbound("dual", "[::]:15001", libc::EAFNOSUPPORT)));
    assert!(!sockets.may_miss(&unbound("only-v6", "[::]:15001", libc::EAFNOSUPPORT)));
    assert!(!sockets.may_miss(&unbound("dual", "[::]:15001", libc::EADDRINUSE)));
    assert!(!sockets.may_miss(&unbound("dual", "[fd00::1]:15001", libc::EADDRNOTAVAIL)), "a wrong address is an error");
    assert!(!sockets.may_miss(&unbound("dual", "127.0.0.2:1", libc::EAFNOSUPPORT)));
}

#[test]
fn two_wildcards_of_one_port_are_two_sockets() {
    let listener = |more: &str| {
        let text = tcp_listener("l", "0.0.0.0", 80, "c", more);
        let snapshot = crate::live::testing::snapshot(1, &statics(&[text], &[cluster("c", echo_server())]));
        Arc::clone(&snapshot.listeners["l"])
    };
    let both = listener("additional_addresses: [{address: {socket_address: {address: '::', port_value: 80}}}]");
    assert!(options("[::]:80".parse().unwrap(), &both).v6only);
    assert!(!options("0.0.0.0:80".parse().unwrap(), &both).v6only);
}
