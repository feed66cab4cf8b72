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

#[test]
fn a_recording_is_whole_or_nothing() {
    let gathered = |frames: &[&'static str]| Gathered::new(frames.iter().map(|text| data(text)));
    for (limit, whole) in [(8, true), (7, false)] {
        let mut body = Incoming::Gathered(Box::new(gathered(&["1234", "5678"])));
        let recording = Recording::of(&mut body, limit);
        let Incoming::Teed(teed) = &mut body else { panic!("{body:?}") };
        while let Poll::Ready(Some(frame)) = teed.poll_frame(&mut Context::from_waker(Waker::noop())) {
            frame.unwrap();
        }
        let found = recording.whole();
        assert_eq!(found.is_some(), whole, "{limit}");
        if let Some(mut found) = found {
            assert_eq!(found.length(), 8);
            assert!(found.next().is_some() && found.next().is_some() && found.is_end());
        }
    }
    let mut body = Incoming::Gathered(Box::new(gathered(&["1"])));
    assert!(Recording::of(&mut body, 8).whole().is_none(), "not at its end yet");
}
