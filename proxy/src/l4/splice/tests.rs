use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::tls::testing::tcp_pair;

#[tokio::test]
async fn bytes_pass_through_and_only_empty_pipes_are_pooled() {
    let ((mut a, from), (b, to)) = (tcp_pair().await, tcp_pair().await);
    let mut pipe = Pipe::take().unwrap();
    assert!(pipe.size >= 4096);
    assert!(matches!(pipe.fill(&from, 1 << 20), Spliced::WouldBlock));
    a.write_all(b"hello").await.unwrap();
    from.readable().await.unwrap();
    assert!(matches!(pipe.fill(&from, 3), Spliced::Moved(3)), "the limit holds");
    assert_eq!(pipe.held(), 3);
    to.writable().await.unwrap();
    assert!(matches!(pipe.drain(&to), Spliced::Moved(3)));
    assert_eq!(pipe.held(), 0);
    b.readable().await.unwrap();
    let mut got = [0; 8];
    assert_eq!(b.try_read(&mut got).unwrap(), 3);
    assert_eq!(&got[..3], b"hel");

    assert!(matches!(pipe.fill(&from, 1 << 20), Spliced::Moved(2)));
    let pooled = || POOL.with_borrow(Vec::len);
    let before = pooled();
    pipe.give_back();
    assert_eq!(pooled(), before, "a pipe with bytes in it is not reused");
    Pipe::take().unwrap().give_back();
    assert_eq!(pooled(), before + 1);
    let many: Vec<_> = (0..2 * POOLED).map(|_| Pipe::take().unwrap()).collect();
    many.into_iter().for_each(Pipe::give_back);
    assert_eq!(pooled(), POOLED);
}

#[tokio::test]
async fn the_end_and_a_reset_are_told_apart() {
    let (mut a, from) = tcp_pair().await;
    a.shutdown().await.unwrap();
    let mut pipe = Pipe::take().unwrap();
    from.readable().await.unwrap();
    assert!(matches!(pipe.fill(&from, 100), Spliced::Moved(0)));
    let (a, from) = tcp_pair().await;
    a.set_zero_linger().unwrap();
    drop(a);
    from.readable().await.unwrap();
    let outcome = pipe.fill(&from, 100);
    assert!(matches!(&outcome, Spliced::Failed(e) if e.kind() == io::ErrorKind::ConnectionReset), "{outcome:?}");
}

#[tokio::test]
async fn bytes_can_be_taken_back_into_memory() {
    let (mut a, from) = tcp_pair().await;
    a.write_all(b"hello").await.unwrap();
    from.readable().await.unwrap();
    let mut pipe = Pipe::take().unwrap();
    assert!(matches!(pipe.fill(&from, 100), Spliced::Moved(5)));
    let mut buffer = [0; 3];
    assert_eq!(pipe.recover(&mut buffer).unwrap(), 3);
    assert_eq!((&buffer, pipe.held()), (b"hel", 2));
}

#[test]
fn errors_that_mean_copying_instead() {
    for errno in [Errno::EINVAL, Errno::ENOSYS, Errno::EPERM] {
        assert!(matches!(classify(Err(errno.into())), Spliced::Unsupported));
    }
    assert!(matches!(classify(Err(Errno::EAGAIN.into())), Spliced::WouldBlock));
    assert!(matches!(classify(Err(Errno::EPIPE.into())), Spliced::Failed(_)));
}

#[tokio::test]
async fn a_pipe_that_was_half_full_grows_within_the_budget() {
    let ((a, from), (mut b, to)) = (tcp_pair().await, tcp_pair().await);
    let mut pipe = Pipe::take().unwrap();
    let small = pipe.size;
    let half = small / 2;
    let mut seen = vec![std::mem::MaybeUninit::uninit(); half];
    while socket2::SockRef::from(&from).peek(&mut seen).unwrap_or(0) < half {
        a.writable().await.unwrap();
        let _ = a.try_write(&[7; 4096]);
    }
    from.readable().await.unwrap();
    let Spliced::Moved(moved) = pipe.fill(&from, 1 << 20) else { panic!("bytes wait") };
    assert_eq!((pipe.growth, pipe.size), (Growth::Wanted, small), "not with bytes in it");
    while pipe.held() > 0 {
        to.writable().await.unwrap();
        let _ = pipe.drain(&to);
    }
    b.read_exact(&mut vec![0; moved]).await.unwrap();
    let _ = pipe.fill(&from, 1 << 20);
    match pipe.growth {
        Growth::Done => assert!(pipe.size >= LARGE && LARGE_PIPES.load(Relaxed) > 0),
        // Others of this process or user have what there is.
        growth => assert_eq!((growth, pipe.size), (Growth::Refused, small)),
    }
}
