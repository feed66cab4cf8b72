use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::*;
use crate::tls::testing::{Ca, client, handshake, server, tcp_pair};

#[tokio::test]
async fn the_prefix_comes_first_and_is_given_back() {
    let (mut near, far) = tcp_pair().await;
    let mut io = Io::Plain(Plain::new(Stream::Tcp(far), Bytes::from_static(b"prefix")));
    near.write_all(b" and socket").await.unwrap();
    assert!(io.is_readable_now());
    let mut two = [0; 2];
    io.read_exact(&mut two).await.unwrap();
    assert_eq!(&two, b"pr");
    let mut rest = [0; 15];
    io.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"efix and socket");
    let plain = io.into_plain().unwrap();
    assert!(plain.prefix().is_empty() && plain.tcp().is_some());
}

#[tokio::test]
async fn probing_tells_quiet_readable_and_closed() {
    let (mut near, far) = tcp_pair().await;
    let mut io = Io::from(far);
    assert_eq!(io.probe(), Probe::Quiet);
    near.write_all(b"x").await.unwrap();
    io.socket().tcp().unwrap().readable().await.unwrap();
    assert_eq!(io.probe(), Probe::Readable);
    io.read_exact(&mut [0]).await.unwrap();
    assert_eq!(io.probe(), Probe::Quiet, "probing consumes nothing and reading does");
    near.shutdown().await.unwrap();
    io.socket().tcp().unwrap().readable().await.unwrap();
    assert_eq!(io.probe(), Probe::Closed);

    let (near, far) = tcp_pair().await;
    near.set_zero_linger().unwrap();
    drop(near);
    far.readable().await.unwrap();
    assert_eq!(Io::from(far).probe(), Probe::Closed);
}

#[tokio::test]
async fn waiting_for_something_to_see_consumes_nothing() {
    use std::{future::poll_fn, task::Poll};
    let (mut near, far) = tcp_pair().await;
    let mut io = Io::from(far);
    let pending = poll_fn(|cx| Poll::Ready(io.poll_probe(cx).is_pending())).await;
    assert!(pending);
    near.write_all(b"xy").await.unwrap();
    assert_eq!(poll_fn(|cx| io.poll_probe(cx)).await, Probe::Readable);
    io.read_exact(&mut [0, 0]).await.unwrap();
    near.shutdown().await.unwrap();
    assert_eq!(poll_fn(|cx| io.poll_probe(cx)).await, Probe::Closed);

    let (near, far) = UnixStream::pair().unwrap();
    let far = Io::Plain(far.into());
    drop(near);
    assert_eq!(poll_fn(|cx| far.poll_probe(cx)).await, Probe::Readable, "which of both, reading tells");
    let prefixed = Io::Plain(Plain::new(Stream::Tcp(tcp_pair().await.0), Bytes::from_static(b"p")));
    assert_eq!(poll_fn(|cx| prefixed.poll_probe(cx)).await, Probe::Readable);
}

#[tokio::test]
async fn unix_sockets_have_no_ip_address() {
    let (near, far) = UnixStream::pair().unwrap();
    let (mut a, mut b) = (Io::Plain(near.into()), Io::Plain(far.into()));
    assert!(a.local_addr().is_err() && a.peer_addr().is_err() && !a.is_tls());
    assert!(a.is_write_vectored());
    assert_eq!(a.write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b"cd")]).await.unwrap(), 4);
    a.shutdown().await.unwrap();
    let mut got = String::new();
    b.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "abcd");
    assert_eq!(b.probe(), Probe::Closed);
}

#[tokio::test]
async fn tls_streams_know_their_sockets() {
    let ca = Ca::new("root");
    let (near, far) = handshake(&client(None, Some(ca.trust())), &server(&ca.spiffe("a"), None)).await;
    let (near, far) = (near.unwrap().0, far.unwrap().0);
    assert_eq!(near.local_addr().unwrap(), far.peer_addr().unwrap());
    assert!(near.is_tls());
    assert!(matches!(near.into_plain(), Err(Io::TlsClient(_))));
}
