//! Copy buffers, pooled per worker.
//!
//! A direction holds a buffer only while bytes wait in it: ten thousand idle relays share a handful.

use std::cell::RefCell;

/// Bytes of one buffer: two full TLS records.
pub(super) const CHUNK: usize = 32 * 1024;
const POOLED: usize = 16;

thread_local! {
    static POOL: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of [`CHUNK`] bytes; its contents are stale bytes of the same worker.
pub(super) fn take() -> Box<[u8]> {
    POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; CHUNK].into_boxed_slice())
}

pub(super) fn give_back(buffer: Box<[u8]>) {
    POOL.with_borrow_mut(|pool| {
        if pool.len() < POOLED {
            pool.push(buffer);
        }
    });
}
