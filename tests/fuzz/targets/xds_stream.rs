//! A stream of responses: the protocol's state, the store behind it, and the configuration that comes into force.
//!
//! The input's first byte chooses the protocol. Then, for each message: seconds that pass, two bytes of length, a
//! response.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use outrigger_proxy::{
    ir::ConfigSource,
    live::Live,
    xds::{
        StartConfig,
        client::{Interest, Interests, Protocol, Settled, delta::Delta, sotw::Sotw},
        decode,
        store::{Frame, Now, Store, prepare},
    },
};
use prost::Message;

use super::fixture;

const SOURCE: ConfigSource = ConfigSource::Ads;

pub(super) fn run(data: &[u8]) {
    let Some((&protocol, rest)) = data.split_first() else { return };
    if protocol & 1 == 0 {
        converse(Sotw::new(Default::default()), rest);
    } else {
        converse(Delta::new(Default::default()), rest);
    }
}

fn converse(mut protocol: impl Protocol, mut data: &[u8]) {
    let mut now = Now { mono: Instant::now(), wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) };
    let config = StartConfig { lds: Some(SOURCE), cds: Some(SOURCE), ..StartConfig::default() };
    let mut store = Store::new(&config, decode::resource, now);
    let builder = fixture::builder();
    let mut live = Live::default();
    protocol.connected(Default::default());
    while let Some((&[seconds, high, low], rest)) = data.split_first_chunk() {
        let (message, rest) = rest.split_at(usize::from(u16::from_be_bytes([high, low])).min(rest.len()));
        data = rest;
        let passed = Duration::from_secs(seconds.into());
        (now.mono, now.wall) = (now.mono + passed, now.wall + passed);
        ask(&mut protocol, &store);
        answer(&mut protocol, &mut store, message, now);
        store.resolve(now);
        if let Some(snapshot) = store.publish() {
            live = builder.build(&Arc::new(snapshot), &Default::default(), &live).0;
        }
        store.resolve(now);
        assert!(store.publish().is_none(), "something changed by itself");
    }
    super::xds::use_it(&live);
}

/// Says what is subscribed to; that must come to an end.
fn ask(protocol: &mut impl Protocol, store: &Store) {
    let mut interests = Interests::new();
    for ((source, kind), wanted) in store.subscriptions().iter() {
        if *source == SOURCE {
            let interest = if wanted.wildcard { Interest::Wildcard } else { Interest::Names(wanted.names.clone()) };
            interests.insert(*kind, interest);
        }
    }
    protocol.want(&interests);
    for turn in 0.. {
        assert!(turn < 1000, "requests without end");
        let Some(request) = protocol.next() else { break };
        assert!(request.encoded_len() < 4 << 20);
    }
}

fn answer<P: Protocol>(protocol: &mut P, store: &mut Store, message: &[u8], now: Now) {
    let Ok(response) = P::Response::decode(message) else { return };
    let Ok(update) = protocol.received(response) else { return };
    let prepared = update.items.into_iter().map(|item| prepare(store, &SOURCE, update.kind, item)).collect();
    let frame = Frame {
        source: &SOURCE,
        kind: update.kind,
        version: &update.version,
        full: update.full,
        removed: &update.removed,
    };
    let error = store.apply(&frame, prepared, now).error();
    let settled = Settled { kind: update.kind, version: update.version, nonce: update.nonce };
    protocol.settled(&settled, error);
}
