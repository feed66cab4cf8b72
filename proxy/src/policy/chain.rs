//! Accepting connections.
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::ir::listener::{FilterChain, Transport};

/// What is known of a connection when its filter chain is chosen.
#[derive(Clone, Copy, Debug)]
pub struct ChainFacts<'a> {
    pub destination: SocketAddr,
    pub server_name: Option<&'a str>,
    pub transport: Transport,
    pub alpn: &'a [Box<str>],
    /// The peer of the socket.
    pub direct_source: IpAddr,
    /// The peer as far as known (PROXY protocol); usually the same.
    pub source: SocketAddr,
}

/// Filter chains, indexed by their match criteria.
#[derive(Debug)]
pub struct ChainIndex {}

impl ChainIndex {
    pub fn new(_chains: &[Arc<FilterChain>]) -> Result<Self, String> {
        todo!()
    }

    pub fn select(&self, _facts: &ChainFacts<'_>) -> Option<usize> {
        todo!()
    }
}
