//! Socket calls.
use crate::ir::listener::Keepalive;
use std::{io, net::SocketAddr};
use tokio::net::{TcpSocket, TcpStream};

/// The address with a v4-mapped v6 address turned into the v4 one.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// How to bind a listening socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenOptions {
    pub reuse_port: bool,
    pub backlog: u32,
    pub transparent: bool,
    pub freebind: bool,
    pub v6only: bool,
}

/// How to open an outgoing connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectSocketOptions {
    pub bind: Option<SocketAddr>,
    pub freebind: bool,
    pub transparent: bool,
    pub keepalive: Option<Keepalive>,
}

pub fn original_dst(_stream: &TcpStream) -> io::Result<SocketAddr> {
    todo!()
}
pub fn bind_listener(_addr: SocketAddr, _options: &ListenOptions) -> io::Result<std::net::TcpListener> {
    todo!()
}
pub fn connect_socket(_peer: SocketAddr, _options: &ConnectSocketOptions) -> io::Result<TcpSocket> {
    todo!()
}
