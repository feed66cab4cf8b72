//! HTTP: the server side, the request pipeline and the client side.

pub mod client;
