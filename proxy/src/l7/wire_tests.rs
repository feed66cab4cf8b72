use super::*;

fn refused(text: &str) -> bool {
    let whole = !Scan::default().feed(text.as_bytes(), &mut Ends::new());
    // However it is cut, the verdict is the same.
    for cut in 1..text.len() {
        let mut scan = Scan::default();
        let pieces = !(scan.feed(&text.as_bytes()[..cut], &mut Ends::new())
            && scan.feed(&text.as_bytes()[cut..], &mut Ends::new()));
        assert_eq!(whole, pieces, "cut at {cut} of {text:?}");
    }
    whole
}

#[test]
fn heads_are_judged() {
    for fine in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na\nb",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nX-Transfer-Encoding: a\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encodings: a\r\nContent-Length: 0\r\n\r\n",
        "GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\n\r\nbare\nlines\n",
        "GET / HTTP/1.1\r\nUpgrade: x\r\n\r\nbare\nlines\n",
    ] {
        assert!(!refused(fine), "{fine:?}");
    }
    for bad in [
        "GET / HTTP/1.1\nHost: x\r\n\r\n",
        "\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\ncontent-length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length:1\r\nA: b\r\nTRANSFER-encoding:chunked\r\n\r\n",
        "GET /1 HTTP/1.1\r\n\r\nPOST /2 HTTP/1.1\r\nContent-Length:1\r\nTransfer-Encoding:chunked\r\n\r\n",
    ] {
        assert!(refused(bad), "{bad:?}");
    }
}

#[tokio::test]
async fn the_preface_tells_http2() {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::*,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for (pieces, is_http2) in [
        (&["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrest"][..], true),
        (&["PRI * HT", "TP/2.0\r\n\r\nSM\r\n\r\n"], true),
        (&["PRI * HTTP/1.1\r\n\r\n"], false),
        (&["P", "UT / HTTP/1.1\r\n"], false),
        (&["PRI * "], false),
    ] {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut io = Io::from(listener.accept().await.unwrap().0);
        let writing = async {
            for piece in pieces {
                client.write_all(piece.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
            client.shutdown().await.unwrap();
        };
        let ((), found) = tokio::join!(writing, detect(&mut io));
        let (verdict, mut seen) = {
            let (v, b) = found.unwrap();
            (v, b.to_vec())
        };
        io.read_to_end(&mut seen).await.unwrap();
        assert_eq!((verdict, String::from_utf8(seen).unwrap()), (is_http2, pieces.concat()));
    }
}

#[test]
fn a_te_is_added_to_heads_without_one() {
    let added = |text: &str, capacity: usize| {
        let mut memory = vec![0; capacity];
        let mut buf = ReadBuf::new(&mut memory);
        buf.put_slice(b"##");
        buf.put_slice(text.as_bytes());
        let mut ends = Ends::new();
        assert!(Scan::default().feed(text.as_bytes(), &mut ends));
        add_te(&mut buf, 2, &ends);
        String::from_utf8(buf.filled()[2..].to_vec()).unwrap()
    };
    assert_eq!(added("GET / HTTP/1.1\r\nA: b\r\n\r\n", 99), "GET / HTTP/1.1\r\nA: b\r\nte: tRAILERS\r\n\r\n");
    assert_eq!(
        added("GET / HTTP/1.1\r\n\r\nPUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 199),
        "GET / HTTP/1.1\r\nte: tRAILERS\r\n\r\nPUT / HTTP/1.1\r\nContent-Length: 3\r\nte: tRAILERS\r\n\r\nabc"
    );
    for same in ["GET / HTTP/1.1\r\nTE: x\r\n\r\n", "GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n", "GET / HTTP/1.1\r\nA: b"] {
        assert_eq!(added(same, 99), same);
    }
    assert_eq!(added("GET / HTTP/1.1\r\n\r\n", 22), "GET / HTTP/1.1\r\n\r\n", "no room");
}

#[tokio::test]
async fn a_wire_is_at_rest_once_all_is_written() {
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut near, far) = crate::tls::testing::tcp_pair().await;
    let shared = Shared::new();
    let mut wire = Wire::http1(far.into(), Bytes::new(), shared.clone(), false);
    assert!(shared.at_rest());
    // Until the socket takes no more.
    let written = poll_fn(|cx| {
        let mut written = 0;
        while let Poll::Ready(count) = Pin::new(&mut wire).poll_write(cx, &[b'x'; 65536]) {
            written += count.unwrap();
        }
        Poll::Ready(written)
    })
    .await;
    assert!(!shared.at_rest());
    let mut read = vec![0; written];
    near.read_exact(&mut read).await.unwrap();
    wire.flush().await.unwrap();
    assert!(shared.at_rest());
    shared.busy();
    assert!(!shared.at_rest());
    shared.idle();
    assert!(shared.at_rest());
    near.write_all(b"G").await.unwrap();
    wire.read_exact(&mut [0]).await.unwrap();
    assert!(!shared.at_rest(), "the start of a head");
}

#[tokio::test]
async fn a_codec_that_ends_for_a_rest_leaves_the_session_open() {
    use crate::tls::testing::{Ca, client, handshake, server};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let ca = Ca::new("root");
    let (near, far) = handshake(&client(None, Some(ca.trust())), &server(&ca.host("a"), None)).await;
    let (mut near, far) = (near.unwrap().0, far.unwrap().0);
    let shared = Shared::new();
    let mut wire = Wire::http1(far, Bytes::new(), shared.clone(), false);
    shared.rest(true);
    wire.shutdown().await.unwrap();
    wire.write_all(b"still open").await.unwrap();
    shared.rest(false);
    wire.shutdown().await.unwrap();
    let mut all = String::new();
    // Not an error: the end was announced, and the wire still holds the socket.
    near.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "still open");
}
