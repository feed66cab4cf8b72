//! The pool against real servers on loopback.

mod failures;
mod http1;
mod http2;
mod limits;
mod support;
mod transports;
