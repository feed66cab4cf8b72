//! What a decision may look at.

use std::net::SocketAddr;

use crate::{
    ir::{
        Metadata,
        rbac::{Index, Places},
    },
    policy::router::RequestFacts,
    telemetry::record::PeerInfo,
};

/// A connection, and a request on it if there is one.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The session, if the connection is TLS.
    pub tls: Option<&'a PeerInfo>,
    /// Where the peer wanted to go.
    pub local: SocketAddr,
    /// The peer as the kernel sees it.
    pub peer: SocketAddr,
    /// The client as far as forwarding headers are trusted; the peer where there are none.
    pub client: SocketAddr,
    /// SNI; empty when there is none.
    pub server_name: &'a str,
    pub http: Option<RequestFacts<'a>>,
    pub dynamic: Option<&'a Metadata>,
    pub route: Option<&'a Metadata>,
}

impl<'a> Facts<'a> {
    /// The path without query and fragment.
    pub(super) fn path(&self) -> Option<&'a str> {
        // A plain CONNECT has no path at all.
        self.http.map(|http| bare_path(http.path)).filter(|path| !path.is_empty())
    }

    /// The policies that can match.
    pub(super) fn candidates(&self, index: &Index) -> Places {
        let mut found = index.begin();
        if let Some(tls) = self.tls {
            let sans = tls.uri_sans.iter().chain(&tls.dns_sans);
            sans.chain([&tls.subject]).for_each(|name| index.name(name, &mut found));
        }
        index.peer(self.peer.ip(), &mut found);
        index.client(self.client.ip(), &mut found);
        index.port(self.local.port(), &mut found);
        if let Some(http) = &self.http {
            index.path(bare_path(http.path), &mut found);
            index.host(http.authority, &mut found);
            for name in index.headers() {
                for value in http.headers.get_all(name) {
                    index.header(name, &String::from_utf8_lossy(value.as_bytes()), &mut found);
                }
            }
        }
        found
    }
}

fn bare_path(path: &str) -> &str {
    path.find(['?', '#']).map_or(path, |end| &path[..end])
}
