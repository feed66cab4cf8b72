use std::{pin::pin, task::Context};

use super::*;

fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

fn next(copy: &mut Copy) -> Option<Option<Result<String, BodyError>>> {
    let frame = match copy.poll_frame(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => return None,
        Poll::Ready(frame) => frame,
    };
    Some(frame.map(|f| f.map(|f| String::from_utf8(f.into_data().unwrap().to_vec()).unwrap())))
}

#[test]
fn a_copy_follows_and_ends_like_the_original() {
    let queue = Queue::new(10);
    let mut copy = Copy { queue: queue.clone(), hint: SizeHint::default() };
    assert_eq!(next(&mut copy), None);
    assert!(queue.push(&data("12345678")));
    assert_eq!(next(&mut copy), Some(Some(Ok("12345678".into()))));
    // What was taken away makes room.
    assert!(queue.push(&data("12345678")));
    queue.finish();
    assert!(!copy.is_end_stream());
    assert_eq!(next(&mut copy), Some(Some(Ok("12345678".into()))));
    assert!(copy.is_end_stream());
    assert_eq!(next(&mut copy), Some(None));
}

#[test]
fn a_copy_that_cannot_follow_is_cut_once_and_holds_nothing() {
    let queue = Queue::new(10);
    let mut copy = Copy { queue: queue.clone(), hint: SizeHint::default() };
    assert!(queue.push(&data("12345678")));
    assert!(!queue.push(&data("123")), "told");
    assert!(queue.push(&data("123")), "told once");
    queue.finish();
    assert!(queue.0.borrow().frames.is_empty());
    assert_eq!(next(&mut copy), Some(Some(Err(BodyError::Superseded))), "it must not look complete");
}

#[test]
fn an_original_that_breaks_off_or_a_reader_that_leaves_ends_the_other() {
    let queue = Queue::new(10);
    let mut copy = pin!(Copy { queue: queue.clone(), hint: SizeHint::default() });
    let teed = Teed { incoming: Incoming::None, copies: [queue.clone()].into_iter().collect(), cut: Box::new(|| ()) };
    drop(teed);
    assert_eq!(next(&mut copy), Some(Some(Err(BodyError::Superseded))));
    let queue = Queue::new(10);
    drop(Copy { queue: queue.clone(), hint: SizeHint::default() });
    assert!(queue.push(&data("1")));
    assert!(queue.0.borrow().frames.is_empty());
}
