//! Sockets and byte streams: how connections are accepted, opened, addressed, inspected and read.

pub(crate) mod buffers;
pub mod inspect;
pub mod io;
pub mod listener;
pub mod sniff;
pub mod socket;
