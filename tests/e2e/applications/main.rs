//! Applications that know of no mesh, through two proxies with interception and mutual TLS (plaintext is refused).

#![allow(clippy::unwrap_used)]

mod bulk;
mod databases;
mod grpc;
mod http1;
mod http2;
mod tcp;
mod wire;
