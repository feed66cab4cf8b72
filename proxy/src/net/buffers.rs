//! Large buffers for bytes on their way, pooled per worker.
//!
//! Whoever moves bytes holds one only while bytes wait in it: ten thousand idle connections share a handful.

use std::cell::RefCell;

/// Bytes of one buffer: eight full TLS records, two of the largest segments the kernel makes.
pub(crate) const CHUNK: usize = 128 * 1024;
const POOLED: usize = 8;

thread_local! {
    static POOL: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of [`CHUNK`] bytes; its contents are stale bytes of the same worker.
pub(crate) fn take() -> Box<[u8]> {
    POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; CHUNK].into_boxed_slice())
}

/// Returns a buffer to the pool.
pub(crate) fn give_back(buffer: Box<[u8]>) {
    POOL.with_borrow_mut(|pool| {
        if pool.len() < POOLED {
            pool.push(buffer);
        }
    });
}
