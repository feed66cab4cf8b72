use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Wake, Waker},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    net::io::Io,
    tls::testing::{Ca, TIMEOUT, client, handshake, server, tcp_pair},
};

type Client = Box<TlsStream<rustls::ClientConnection>>;
type Server = Box<TlsStream<rustls::ServerConnection>>;

async fn pair() -> (Client, Server) {
    let ca = Ca::new("root");
    let (near, far) = handshake(&client(None, Some(ca.trust())), &server(&ca.spiffe("a"), None)).await;
    match (near.unwrap().0, far.unwrap().0) {
        (Io::TlsClient(mut near), Io::TlsServer(mut far)) => {
            // The server's tickets are out of the way.
            far.write_all(b"!").await.unwrap();
            far.flush().await.unwrap();
            near.read_exact(&mut [0]).await.unwrap();
            (near, far)
        }
        other => panic!("{other:?}"),
    }
}

fn pattern(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(len as u64).fill(&mut bytes);
    bytes
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[tokio::test]
async fn bulk_of_any_shape_arrives_whole_and_leaves_nothing_behind() {
    let (mut near, mut far) = pair().await;
    let data = pattern(3_000_001);
    let sent = data.clone();
    let writer = tokio::spawn(async move {
        let (mut rest, mut size) = (&sent[..], 1);
        while !rest.is_empty() {
            let (a, b) = rest[..size.min(rest.len())].split_at(size.min(rest.len()) / 3);
            let n = near.write_vectored(&[IoSlice::new(a), IoSlice::new(&[]), IoSlice::new(b)]).await.unwrap();
            rest = &rest[n..];
            size = size * 3 % 400_000 + 1;
        }
        near.flush().await.unwrap();
        near
    });
    let mut got = vec![0; data.len()];
    far.read_exact(&mut got).await.unwrap();
    assert!(got == data);
    let near = writer.await.unwrap();
    assert_eq!((near.tail.capacity(), near.queued), (0, 0));
    assert!(far.incoming.bytes().is_empty());
}

#[tokio::test]
async fn frames_share_full_records_and_a_small_message_does_not_wait() {
    let (mut near, mut far) = pair().await;
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    let mut cx = Context::from_waker(&waker);
    let frame = pattern(RECORD + 9);
    for _ in 0..3 {
        near.write_all(&frame).await.unwrap();
        assert!(matches!(near.poll_flush_lazily(&mut cx), Poll::Ready(Ok(()))));
    }
    assert!(near.queued > 3 * RECORD, "the batch is not full: nothing was sent");
    assert!(wakes.0.load(SeqCst) > 0, "somebody will come back to flush");
    assert!(matches!(near.poll_flush_lazily(&mut cx), Poll::Ready(Ok(()))), "nothing came in between: a real flush");
    assert_eq!((near.queued, near.tail.len()), (0, 0));

    let mut sizes = Vec::new();
    let mut left = 3 * frame.len();
    while left > 0 {
        let mut head = [0; 5];
        far.plain.read_exact(&mut head).await.unwrap();
        let size = usize::from(u16::from_be_bytes([head[3], head[4]]));
        far.plain.read_exact(&mut vec![0; size]).await.unwrap();
        // Type and tag of TLS 1.3.
        sizes.push(size - 17);
        left -= size - 17;
    }
    assert_eq!(sizes, [RECORD, RECORD, RECORD, 27]);

    near.write_all(b"small").await.unwrap();
    assert_eq!((near.queued, near.tail.len()), (0, 0), "without a flush");
}

#[tokio::test]
async fn the_last_words_of_a_handshake_wait_for_company_but_not_for_ever() {
    let ca = Ca::new("root");
    let (connector, acceptor) = (client(None, Some(ca.trust())), server(&ca.spiffe("a"), None));
    let (near, far) = tcp_pair().await;
    let accepting = tokio::spawn(async move { acceptor.accept(far.into(), TIMEOUT).await.unwrap().0 });
    let (near, _) = connector.connect(near.into(), &Default::default(), TIMEOUT).await.unwrap();
    let Io::TlsClient(mut near) = near else { panic!("{near:?}") };
    near.write_all(b"hello").await.unwrap();
    near.write_all(b" there").await.unwrap();
    assert!(near.session.wants_write(), "the Finished is still here");
    assert_eq!((near.few, &*near.tail), (Few::Waits, &b"hello there"[..]));
    near.flush().await.unwrap();
    assert_eq!((near.few, near.session.wants_write()), (Few::Gone, false));

    let Io::TlsServer(mut far) = accepting.await.unwrap() else { panic!("no TLS") };
    assert_eq!(far.few, Few::Waits, "tickets");
    let mut got = [0; 11];
    far.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"hello there");
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    let mut cx = Context::from_waker(&waker);
    let mut buffer = [0; 8];
    assert!(Pin::new(&mut far).poll_read(&mut cx, &mut ReadBuf::new(&mut buffer)).is_pending());
    assert_eq!((far.few, wakes.0.load(SeqCst)), (Few::Asked, 1));
    assert!(Pin::new(&mut far).poll_read(&mut cx, &mut ReadBuf::new(&mut buffer)).is_pending());
    assert_eq!((far.few, far.session.wants_write()), (Few::Gone, false));
}

#[tokio::test]
async fn a_farewell_shares_a_packet_with_the_end() {
    let (mut near, mut far) = pair().await;
    near.hold_back();
    near.write_all(b"bye").await.unwrap();
    assert_eq!((near.few, &*near.tail), (Few::Waits, &b"bye"[..]));
    near.shutdown().await.unwrap();
    let mut got = Vec::new();
    far.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"bye");
}

#[tokio::test]
async fn a_peer_that_does_not_read_stops_the_writer_within_a_batch() {
    let (mut near, mut far) = pair().await;
    let data = pattern(1 << 20);
    let mut sent = 0usize;
    while let Ok(n) = tokio::time::timeout(std::time::Duration::from_millis(200), near.write(&data)).await {
        sent += n.unwrap();
        assert!(near.queued <= BATCH + RECORD + 16 * OVERHEAD, "{}", near.queued);
        assert!(sent < 64 << 20, "no backpressure");
    }
    assert!(near.queued >= BATCH && near.tail.len() < RECORD);
    let reader = tokio::spawn(async move {
        let mut got = vec![0; sent];
        far.read_exact(&mut got).await.unwrap();
    });
    near.flush().await.unwrap();
    reader.await.unwrap();
}

#[tokio::test]
async fn bytes_come_before_the_end_and_before_an_error() {
    // An orderly end, read in small pieces.
    let (mut near, mut far) = pair().await;
    near.write_all(&pattern(50_000)).await.unwrap();
    near.shutdown().await.unwrap();
    let mut got = Vec::new();
    while far.read_buf(&mut bytes::BufMut::limit(&mut got, 7)).await.unwrap() > 0 {}
    assert!(got == pattern(50_000));
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    // The other direction is still open.
    far.write_all(b"answer").await.unwrap();
    far.shutdown().await.unwrap();
    got.clear();
    near.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"answer");

    // Cut off.
    let (mut near, mut far) = pair().await;
    near.write_all(b"part").await.unwrap();
    near.flush().await.unwrap();
    near.plain.shutdown().await.unwrap();
    let mut buf = [0; 100];
    assert_eq!(far.read(&mut buf).await.unwrap(), 4);
    assert_eq!(far.read(&mut buf).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);

    // Garbage behind a good record, in one read: the peer is told why it ends.
    let (mut near, mut far) = pair().await;
    near.write_all(b"good").await.unwrap();
    near.flush().await.unwrap();
    near.plain.write_all(b"\x17\x03\x03\x00\x20 thirty-two bytes that are forged").await.unwrap();
    far.plain.tcp().unwrap().readable().await.unwrap();
    assert_eq!(far.read(&mut buf).await.unwrap(), 4);
    assert_eq!(far.read(&mut buf).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(far.write_all(b"more").await.is_err() || far.flush().await.is_err(), "nothing is sent on a broken session");
    let error = near.read(&mut buf).await.unwrap_err().to_string();
    assert!(error.contains("BadRecordMac"), "{error}");
}

#[tokio::test]
async fn ciphertext_is_held_only_while_its_reader_has_no_room() {
    let (mut near, mut far) = pair().await;
    near.write_all(&pattern(60_000)).await.unwrap();
    near.flush().await.unwrap();
    far.read_exact(&mut [0; 10]).await.unwrap();
    let mut rest = vec![0; 59_990];
    far.read_exact(&mut rest).await.unwrap();
    assert!(rest == pattern(60_000)[10..] && far.incoming.is_empty());
    let mut buf = [0; 10];
    let pending = poll_fn(|cx| {
        let mut buf = ReadBuf::new(&mut buf);
        Poll::Ready(Pin::new(&mut far).poll_read(cx, &mut buf).is_pending())
    });
    assert!(pending.await, "nothing more");
    assert!(far.incoming.is_empty());
}
