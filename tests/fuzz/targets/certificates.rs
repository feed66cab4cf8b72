//! Certificates that peers show: no bytes are an identity that no authority signed.

use std::{cell::RefCell, sync::Arc};

use outrigger_proxy::{live::LiveChain, telemetry::record::PeerInfo};

use super::hello;

thread_local! {
    static CHAIN: RefCell<Option<Arc<LiveChain>>> = const { RefCell::new(None) };
}

pub(super) fn run(data: &[u8]) {
    CHAIN.with_borrow_mut(|chain| {
        let tls = chain.get_or_insert_with(hello::chain).tls.as_ref().expect("the chain ends TLS");
        // Leaf and issuer, as a handshake brings them.
        let middle = data.first().map_or(0, |at| usize::from(*at) * data.len() / 256);
        let (leaf, issuer) = data.get(1..).unwrap_or_default().split_at(middle.min(data.len().saturating_sub(1)));
        for shown in [vec![Arc::from(data)], vec![Arc::from(leaf), Arc::from(issuer)]] {
            let peer = PeerInfo {
                certificate: shown.first().cloned(),
                chain: shown,
                version: "TLSv1.3",
                ..PeerInfo::default()
            };
            let admitted = tls.admits(&peer).is_ok();
            assert!(!admitted || hello::is_own(&peer.chain[0]), "a stranger's certificate is admitted");
        }
    });
}
