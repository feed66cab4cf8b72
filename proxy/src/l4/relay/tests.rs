use std::{io::ErrorKind, rc::Rc, sync::Arc};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    net::io::{Plain, Stream},
    tls::{
        ClientContext, ServerContext,
        testing::{self, tcp_pair},
    },
};

const OPTIONS: RelayOptions = RelayOptions { idle_timeout: None, max_duration: None, buffer: 1 << 20 };

/// What a leg of the relay is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leg {
    Plain,
    /// The relay is the TLS server of its peer.
    TlsServer,
    TlsClient,
}

const LEGS: [(Leg, Leg); 4] = [
    (Leg::Plain, Leg::Plain),
    (Leg::TlsServer, Leg::Plain),
    (Leg::Plain, Leg::TlsClient),
    (Leg::TlsServer, Leg::TlsClient),
];

struct Tls {
    server: Arc<ServerContext>,
    client: Arc<ClientContext>,
}

impl Tls {
    fn new() -> Self {
        let ca = testing::Ca::new("root");
        Self {
            server: testing::server(&ca.spiffe("a"), Some(ca.trust())),
            client: testing::client(Some(&ca.spiffe("b")), Some(ca.trust())),
        }
    }

    /// The peer's end and the relay's.
    async fn leg(&self, leg: Leg) -> (Io, Io) {
        let (client, server) = match leg {
            Leg::Plain => {
                let (near, far) = tcp_pair().await;
                return (near.into(), far.into());
            }
            Leg::TlsServer | Leg::TlsClient => testing::handshake(&self.client, &self.server).await,
        };
        let (client, server) = (client.unwrap().0, server.unwrap().0);
        if leg == Leg::TlsServer { (client, server) } else { (server, client) }
    }
}

/// A running relay and the two peers of it.
struct Rig {
    a: Io,
    b: Io,
    progress: Rc<Progress>,
    relay: tokio::task::JoinHandle<RelayEnd>,
}

impl Rig {
    async fn new(tls: &Tls, legs: (Leg, Leg), options: RelayOptions) -> Self {
        let (a, relay_a) = tls.leg(legs.0).await;
        let (b, relay_b) = tls.leg(legs.1).await;
        let progress = Rc::new(Progress::default());
        let counts = progress.clone();
        let relay = tokio::task::spawn_local(async move { relay(relay_a, relay_b, &options, &counts).await });
        Self { a, b, progress, relay }
    }

    async fn end(relay: tokio::task::JoinHandle<RelayEnd>) -> RelayEnd {
        tokio::time::timeout(Duration::from_secs(60), relay).await.expect("the relay ends").unwrap()
    }
}

fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

async fn read_all(io: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    io.read_to_end(&mut bytes).await.unwrap();
    bytes
}

fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

#[test]
fn the_future_is_small() {
    run(async {
        let ((_, a), (_, b)) = (tcp_pair().await, tcp_pair().await);
        let progress = Progress::default();
        let size = size_of_val(&relay(a.into(), b.into(), &OPTIONS, &progress));
        assert!(size < 1024, "{size} bytes");
    });
}

#[test]
fn half_close_in_either_direction_leaves_the_other_open() {
    let tls = Tls::new();
    run(async {
        for legs in LEGS {
            for forth_first in [true, false] {
                let mut rig = Rig::new(&tls, legs, OPTIONS).await;
                let (first, second) = if forth_first { (&mut rig.a, &mut rig.b) } else { (&mut rig.b, &mut rig.a) };
                first.write_all(b"question").await.unwrap();
                first.shutdown().await.unwrap();
                assert_eq!(read_all(second).await, b"question", "{legs:?}");
                for word in [b"long", b"live", b"tcp!"] {
                    second.write_all(word).await.unwrap();
                    second.flush().await.unwrap();
                    let mut got = [0; 4];
                    first.read_exact(&mut got).await.unwrap();
                    assert_eq!(&got, word);
                }
                second.shutdown().await.unwrap();
                assert_eq!(read_all(first).await, b"");
                let end = Rig::end(rig.relay).await;
                assert!(matches!(end.reason, RelayReason::Closed), "{legs:?}: {end:?}");
                let counts = (rig.progress.a_to_b.get(), rig.progress.b_to_a.get());
                assert_eq!(counts, if forth_first { (8, 12) } else { (12, 8) });
            }
        }
    });
}

#[test]
fn bulk_arrives_unchanged_both_ways_at_once() {
    let tls = Tls::new();
    run(async {
        for legs in LEGS {
            let len = if legs == (Leg::Plain, Leg::Plain) { 64 << 20 } else { 8 << 20 };
            let rig = Rig::new(&tls, legs, OPTIONS).await;
            let Rig { a, b, progress, relay } = rig;
            let exchange = async |io: Io, seed: u64| {
                let (mut reader, mut writer) = tokio::io::split(io);
                let send = async {
                    writer.write_all(&pattern(seed, len)).await.unwrap();
                    writer.shutdown().await.unwrap();
                };
                tokio::join!(read_all(&mut reader), send).0
            };
            let (at_a, at_b) = tokio::join!(exchange(a, 1), exchange(b, 2));
            assert!(at_a == pattern(2, len) && at_b == pattern(1, len), "{legs:?}");
            let end = Rig::end(relay).await;
            assert!(matches!(end.reason, RelayReason::Closed));
            assert_eq!(end.spliced, legs == (Leg::Plain, Leg::Plain));
            assert_eq!((progress.a_to_b.get(), progress.b_to_a.get()), (len as u64, len as u64));
        }
    });
}

#[test]
fn bytes_read_by_inspection_come_first() {
    run(async {
        let ((mut a, relay_a), (mut b, relay_b)) = (tcp_pair().await, tcp_pair().await);
        let prefix = pattern(1, 60_000);
        let rest = pattern(2, 1 << 20);
        let relay_a = Io::Plain(Plain::new(Stream::Tcp(relay_a), prefix.clone().into()));
        let expected = [prefix, rest.clone()].concat();
        let send = async {
            a.write_all(&rest).await.unwrap();
            a.shutdown().await.unwrap();
            let answer = read_all(&mut a).await;
            assert_eq!(answer, b"done");
        };
        let receive = async {
            assert!(read_all(&mut b).await == expected);
            b.write_all(b"done").await.unwrap();
            b.shutdown().await.unwrap();
        };
        let progress = Progress::default();
        let (end, ..) = tokio::join!(relay(relay_a, relay_b.into(), &OPTIONS, &progress), send, receive);
        assert!(matches!(end.reason, RelayReason::Closed));
    });
}

#[test]
fn a_reset_stays_a_reset_and_what_came_before_arrives() {
    let tls = Tls::new();
    run(async {
        for legs in LEGS {
            let mut rig = Rig::new(&tls, legs, OPTIONS).await;
            rig.a.write_all(b"partial").await.unwrap();
            rig.a.flush().await.unwrap();
            let mut got = [0; 7];
            rig.b.read_exact(&mut got).await.unwrap();
            rig.a.reset_on_close();
            drop(rig.a);
            let end = Rig::end(rig.relay).await;
            assert!(
                matches!(&end.reason, RelayReason::Error { side: Side::A, error } if error.kind() == ErrorKind::ConnectionReset),
                "{legs:?}: {end:?}"
            );
            let error = rig.b.read(&mut got).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{legs:?}");
        }
    });
}

#[test]
fn a_truncated_tls_stream_is_delivered_but_not_as_complete() {
    let tls = Tls::new();
    run(async {
        let mut rig = Rig::new(&tls, (Leg::TlsServer, Leg::Plain), OPTIONS).await;
        // Reading takes the session tickets off the socket, which would turn its close into a reset.
        rig.b.write_all(b"x").await.unwrap();
        rig.a.read_exact(&mut [0]).await.unwrap();
        rig.a.write_all(b"no close_notify").await.unwrap();
        rig.a.flush().await.unwrap();
        // Closes the socket under TLS: a FIN, but no close_notify.
        drop(rig.a);
        let end = Rig::end(rig.relay).await;
        assert!(
            matches!(&end.reason, RelayReason::Error { side: Side::A, error } if error.kind() == ErrorKind::UnexpectedEof),
            "{end:?}"
        );
        let mut got = [0; 15];
        rig.b.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"no close_notify");
        assert_eq!(rig.b.read(&mut got).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

/// A server that answers early and closes without reading the rest of the request.
#[test]
fn an_early_answer_is_delivered_although_the_request_cannot_be() {
    let tls = Tls::new();
    run(async {
        let mut rig = Rig::new(&tls, (Leg::Plain, Leg::Plain), OPTIONS).await;
        rig.a.write_all(&pattern(1, 100_000)).await.unwrap();
        let mut some = [0; 1000];
        rig.b.read_exact(&mut some).await.unwrap();
        rig.b.write_all(b"413 too large").await.unwrap();
        drop(rig.b);
        // The client goes on until it is told to stop.
        while rig.a.write_all(&pattern(1, 100_000)).await.is_ok() && !rig.relay.is_finished() {
            tokio::task::yield_now().await;
        }
        let mut answer = [0; 13];
        rig.a.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"413 too large");
        let end = Rig::end(rig.relay).await;
        assert!(matches!(end.reason, RelayReason::Error { side: Side::B, .. }), "{end:?}");
    });
}

#[test]
fn a_peer_that_does_not_read_holds_up_its_source_and_nothing_else() {
    let tls = Tls::new();
    run(async {
        for legs in [(Leg::Plain, Leg::Plain), (Leg::TlsServer, Leg::TlsClient)] {
            let mut rig = Rig::new(&tls, legs, RelayOptions { buffer: 10_000, ..OPTIONS }).await;
            let chunk = pattern(3, 1 << 16);
            // Until the buffers of all four sockets are full: far less than a stuck reader could make us hold.
            let mut sent = 0usize;
            while let Ok(n) = tokio::time::timeout(Duration::from_millis(200), rig.a.write(&chunk)).await {
                sent += n.unwrap();
                assert!(sent < 64 << 20, "no backpressure");
            }
            rig.b.write_all(b"still alive").await.unwrap();
            rig.b.flush().await.unwrap();
            let mut got = [0; 11];
            rig.a.read_exact(&mut got).await.unwrap();
            assert!(rig.progress.a_to_b.get() < sent as u64);
            rig.relay.abort();
        }
    });
}

#[test]
fn the_clock_counts_idle_time_from_the_last_byte() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let both = RelayOptions {
        idle_timeout: Some(Duration::from_secs(10)),
        max_duration: Some(Duration::from_secs(25)),
        buffer: 1,
    };
    let mut clock = Clock::new(&both, start);
    assert_eq!(clock.next(), Some(at(10)));
    assert!(clock.over(at(9)).is_none());
    assert!(matches!(clock.over(at(10)), Some(RelayReason::IdleTimeout)));
    clock.moved(1, at(9));
    assert!(clock.over(at(18)).is_none());
    assert_eq!(clock.next(), Some(at(19)));
    clock.moved(2, at(18));
    assert_eq!(clock.next(), Some(at(25)), "the longest duration comes first now");
    assert!(clock.over(at(24)).is_none());
    assert!(matches!(clock.over(at(25)), Some(RelayReason::MaxDuration)));
    let huge = RelayOptions { idle_timeout: Some(Duration::MAX), max_duration: Some(Duration::MAX), buffer: 1 };
    assert_eq!(Clock::new(&huge, start).next(), None, "no overflow");
}

#[test]
fn an_idle_relay_ends_in_order() {
    let tls = Tls::new();
    run(async {
        for legs in LEGS {
            let idle_timeout = Some(Duration::from_millis(30));
            let Rig { mut a, mut b, relay, .. } = Rig::new(&tls, legs, RelayOptions { idle_timeout, ..OPTIONS }).await;
            let end = Rig::end(relay).await;
            assert!(matches!(end.reason, RelayReason::IdleTimeout), "{legs:?}: {end:?}");
            assert_eq!(read_all(&mut a).await, b"");
            assert_eq!(read_all(&mut b).await, b"");
        }
    });
}

#[test]
fn the_longest_duration_holds_for_busy_connections_too() {
    let tls = Tls::new();
    run(async {
        let bound = RelayOptions { max_duration: Some(Duration::from_millis(50)), ..OPTIONS };
        let Rig { a, b, relay, .. } = Rig::new(&tls, (Leg::TlsServer, Leg::Plain), bound).await;
        let (mut reader, mut writer) = tokio::io::split(a);
        let chatter = async { while writer.write_all(&[1; 1000]).await.is_ok() && writer.flush().await.is_ok() {} };
        let mut sink = b;
        let drain = async { while sink.read(&mut [0; 4096]).await.is_ok_and(|n| n > 0) {} };
        let (end, ..) = tokio::join!(Rig::end(relay), chatter, drain, async {
            let _ = reader.read(&mut [0; 16]).await;
        });
        assert!(matches!(end.reason, RelayReason::MaxDuration), "{end:?}");
    });
}

#[test]
fn what_is_left_over_at_the_bound_is_not_passed_off_as_the_end() {
    let tls = Tls::new();
    run(async {
        let bound = RelayOptions { max_duration: Some(Duration::from_millis(500)), buffer: 4096, ..OPTIONS };
        let Rig { mut a, mut b, relay, .. } = Rig::new(&tls, (Leg::Plain, Leg::Plain), bound).await;
        let chunk = pattern(5, 1 << 16);
        let fill = async { while a.write_all(&chunk).await.is_ok() {} };
        let (end, ()) = tokio::join!(Rig::end(relay), fill);
        assert!(matches!(end.reason, RelayReason::MaxDuration));
        let mut got = Vec::new();
        assert_eq!(b.read_to_end(&mut got).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}
