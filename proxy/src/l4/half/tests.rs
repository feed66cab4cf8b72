use std::task::Waker;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::tls::testing::tcp_pair;

struct Rig {
    writer: TcpStream,
    source: Io,
    target: Io,
    reader: TcpStream,
    moved: Cell<u64>,
}

impl Rig {
    async fn new() -> Self {
        let ((writer, source), (reader, target)) = (tcp_pair().await, tcp_pair().await);
        Self { writer, source: source.into(), target: target.into(), reader, moved: Cell::new(0) }
    }

    fn poll(&mut self, half: &mut Half) -> Poll<Result<(), Broken>> {
        let mut cx = Context::from_waker(Waker::noop());
        half.poll(&mut cx, &mut self.source, &mut self.target, &self.moved)
    }

    /// Sends bytes and moves them all; then nothing more can be done at the moment.
    async fn pass(&mut self, half: &mut Half, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        let writer = &mut self.writer;
        let reader = &mut self.reader;
        let (source, target, moved) = (&mut self.source, &mut self.target, &self.moved);
        let pump = std::future::poll_fn(|cx| half.poll(cx, source, target, moved));
        tokio::select! {
            biased;
            _ = pump => panic!("the source has not ended"),
            () = async {
                tokio::join!(async { writer.write_all(bytes).await.unwrap() }, async {
                    reader.read_exact(&mut got).await.unwrap();
                });
            } => {}
        }
        assert!(got == bytes);
        assert!(self.poll(half).is_pending());
    }
}

#[tokio::test]
async fn an_idle_direction_holds_neither_buffer_nor_pipe() {
    let mut rig = Rig::new().await;
    let mut half = Half::new(1 << 20);
    assert!(rig.poll(&mut half).is_pending());
    assert!(half.buffer.is_none() && half.pipe.is_none(), "nothing is held before the first byte");
    for (len, spliced) in [(10, false), (1 << 20, true), (10, true), (1 << 20, true)] {
        rig.pass(&mut half, &vec![7; len]).await;
        assert!(half.buffer.is_none() && half.pipe.is_none() && !half.holds_bytes(), "after {len} bytes");
        assert_eq!(half.spliced, spliced);
    }
    rig.writer.shutdown().await.unwrap();
    std::future::poll_fn(|cx| half.poll(cx, &mut rig.source, &mut rig.target, &rig.moved)).await.unwrap();
    assert_eq!(rig.reader.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(rig.moved.get(), (2 << 20) + 20);
}

#[tokio::test]
async fn without_splice_bytes_caught_in_the_pipe_are_copied_in_order() {
    let mut rig = Rig::new().await;
    let mut half = Half::new(1 << 20);
    rig.writer.write_all(b"in the pipe, ").await.unwrap();
    let Io::Plain(source) = &rig.source else { panic!("a plain socket") };
    let source = source.tcp().unwrap();
    source.readable().await.unwrap();
    let mut pipe = Pipe::take().unwrap();
    assert!(matches!(pipe.fill(source, 100), Spliced::Moved(13)));
    half.pipe = Some(pipe);
    half.state = State::Splicing;
    assert!(half.holds_bytes());
    assert!(half.copy_from_now_on().is_ready());
    rig.writer.write_all(b"and after it").await.unwrap();
    rig.writer.shutdown().await.unwrap();
    std::future::poll_fn(|cx| half.poll(cx, &mut rig.source, &mut rig.target, &rig.moved)).await.unwrap();
    let mut got = [0; 25];
    rig.reader.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"in the pipe, and after it");
    assert_eq!(rig.reader.read(&mut [0]).await.unwrap(), 0);
    assert!(!half.spliced && half.pipe.is_none());
}

#[tokio::test]
async fn small_limits_are_kept() {
    let mut rig = Rig::new().await;
    let mut half = Half::new(0);
    rig.pass(&mut half, b"one byte at a time").await;
    assert!(!half.spliced);
}

#[tokio::test]
async fn what_was_read_before_comes_first_and_only_as_fast_as_it_is_taken() {
    let mut rig = Rig::new().await;
    let first = vec![1; 16 << 20];
    let mut half = Half::new(1 << 20).after(Bytes::from(first.clone()));
    assert!(rig.poll(&mut half).is_pending());
    assert!(half.holds_bytes() && rig.moved.get() < 16 << 20, "nobody reads");
    rig.writer.write_all(b"second").await.unwrap();
    let mut got = vec![0; first.len() + 6];
    let pump = std::future::poll_fn(|cx| half.poll(cx, &mut rig.source, &mut rig.target, &rig.moved));
    tokio::select! {
        biased;
        _ = pump => panic!("the source has not ended"),
        read = rig.reader.read_exact(&mut got) => assert!(read.is_ok()),
    }
    assert!(got[..first.len()] == first && got[first.len()..] == *b"second");
    assert!(!half.holds_bytes() && half.first.is_none());
    assert_eq!(rig.moved.get(), got.len() as u64);
}
