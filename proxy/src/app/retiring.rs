//! What a new configuration left behind: connections of filter chains that are gone, clusters, old snapshots.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use crate::{
    drain::{Phase, Source},
    live::{Live, Standing},
};

pub(super) struct Retiring {
    /// How long connections of removed filter chains may go on before they are cut: a stream may outlive its
    /// configuration, not for ever.
    chain_drain: Duration,
    chains: Vec<Left>,
    /// Snapshots that some worker may still hold. To free a large one takes long: that is done here, not by the worker
    /// that happens to be the last.
    snapshots: Vec<Arc<Live>>,
    /// Where the next look begins.
    next: usize,
}

/// The end of a removed chain.
struct Left {
    source: Arc<Source>,
    /// When its connections are cut. `None`: not for this change, which concerns no stream under way.
    until: Option<Instant>,
    /// Of all versions of the chain.
    standing: Weak<Standing>,
}

/// Old snapshots looked at with every new one: more than one, so that they do not pile up between the cleanings.
const LOOKS: usize = 4;

impl Retiring {
    pub(super) fn new(chain_drain: Duration) -> Self {
        Self { chain_drain, chains: Vec::new(), snapshots: Vec::new(), next: 0 }
    }

    /// Takes leave of `previous`, now that `live` is in force.
    pub(super) fn replaced(&mut self, previous: Arc<Live>, live: &Live) {
        for cluster in previous.removed_clusters(live) {
            cluster.retire();
        }
        if !previous.same_listeners(live) {
            // Those that outlived an earlier update are judged by this one too.
            self.chains.iter().for_each(|left| left.source.wake());
        }
        self.leave(&previous, live);
        self.snapshots.push(previous);
        for _ in 0..LOOKS.min(self.snapshots.len() - 1) {
            self.next %= self.snapshots.len();
            match Arc::strong_count(&self.snapshots[self.next]) {
                1 => drop(self.snapshots.swap_remove(self.next)),
                _ => self.next += 1,
            }
        }
    }

    /// Has the connections of chains that are gone end, each in its time.
    fn leave(&mut self, previous: &Live, live: &Live) {
        let removed = previous.removed_chains(live);
        if removed.is_empty() {
            return;
        }
        let (heirs, cut) = (live.heirs(), Instant::now() + self.chain_drain);
        for chain in removed {
            let standing = Arc::as_ptr(&chain.standing);
            let lasts = heirs.get(&standing).is_some_and(|heir| heir.config.same_but_settings(&chain.config));
            if !lasts {
                let earlier = self.chains.iter_mut().filter(|left| left.standing.as_ptr() == standing);
                earlier.for_each(|left| left.until = left.until.or(Some(cut)));
            }
            chain.drain.advance(Phase::Drain);
            let (source, standing) = (chain.drain.clone(), Arc::downgrade(&chain.standing));
            self.chains.push(Left { source, until: (!lasts).then_some(cut), standing });
        }
    }

    /// Lets go of what nobody uses any more and cuts what is overdue.
    pub(super) fn clean(&mut self, now: Instant) {
        self.snapshots.retain(|live| Arc::strong_count(live) > 1);
        self.chains.retain(|Left { source, until, .. }| {
            // Connections still in their handshake hold the chain; those that listen have heard of the end.
            let used = Arc::strong_count(source) > 1 || source.listeners() > 0;
            let overdue = until.is_some_and(|until| now >= until);
            if used && overdue {
                source.advance(Phase::Overdue);
            }
            used && !overdue
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::Signal;

    const CHAIN_DRAIN: Duration = Duration::from_secs(600);

    fn left(source: Arc<Source>, now: Instant) -> Left {
        Left { source, until: Some(now + CHAIN_DRAIN), standing: Weak::new() }
    }

    #[test]
    fn streams_end_only_for_what_concerns_them() {
        use crate::live::{
            Resolved,
            testing::{builder, cluster, snapshot, statics},
        };
        const NETWORK: &str = "type.googleapis.com/envoy.extensions.filters.network";
        const HTTP: &str = "type.googleapis.com/envoy.extensions.filters.http";
        let (builder, mut before, mut retiring) = (builder(), Arc::new(Live::default()), Retiring::new(CHAIN_DRAIN));
        let mut version = 0;
        let mut apply = |fields: &str, filters: &str, retiring: &mut Retiring| {
            version += 1;
            let manager = format!(
                "{{name: h, typed_config: {{'@type': {NETWORK}.http_connection_manager.v3.HttpConnectionManager, \
                 stat_prefix: h, {fields}route_config: {{virtual_hosts: []}}, http_filters: [{filters}{{name: r, \
                 typed_config: {{'@type': {HTTP}.router.v3.Router}}}}]}}}}"
            );
            let listener = format!(
                "\n  - name: l\n    address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}\n    \
                 filter_chains:\n    - filters: [{manager}]\n"
            );
            let yaml = statics(&[listener], &[cluster("c", ([127, 0, 0, 1], 1).into())]);
            let (live, problems) = builder.build(&snapshot(version, &yaml), &Resolved::default(), &before);
            assert_eq!(problems, []);
            let live = Arc::new(live);
            retiring.replaced(std::mem::replace(&mut before, live.clone()), &live);
            live.listeners["l"].chains[0].drain.clone()
        };
        let first = apply("", "", &mut retiring);
        let late = Instant::now() + CHAIN_DRAIN * 2;
        let phases = |retiring: &mut Retiring, sources: &[&Arc<Source>]| -> Vec<Phase> {
            retiring.clean(late);
            sources.iter().map(|source| source.phase()).collect()
        };
        let log = "access_log: [{name: l, typed_config: {'@type': \
                   type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog}}], ";
        let cors = format!("{{name: c, typed_config: {{'@type': {HTTP}.cors.v3.Cors}}}}, ");
        let mut old = vec![first];
        for fields in [
            "stream_idle_timeout: 7s, ",
            log,
            "local_reply_config: {mappers: []}, ",
            "request_timeout: 5s, ",
            "drain_timeout: 9s, ",
        ] {
            old.push(apply(fields, "", &mut retiring));
        }
        let last = old.pop().unwrap();
        let old: Vec<_> = old.iter().collect();
        // Told to go elsewhere, for what is new is told of new requests; not cut.
        assert_eq!(phases(&mut retiring, &old), [Phase::Drain; 5]);
        assert_eq!(last.phase(), Phase::Run);
        let next = apply("", &cors, &mut retiring);
        assert_eq!(phases(&mut retiring, &[&last, &next]), [Phase::Overdue, Phase::Run]);
        assert_eq!(phases(&mut retiring, &old), [Phase::Overdue; 5], "those that outlived earlier ones too");
    }

    #[test]
    fn connections_of_a_removed_chain_are_cut_in_the_end() {
        let process = Source::default();
        let (used, unused) = (Arc::new(Source::default()), Arc::new(Source::default()));
        let signal = Signal::new(&process, &used);
        let now = Instant::now();
        let mut retiring = Retiring { chains: vec![left(used, now), left(unused, now)], ..Retiring::new(CHAIN_DRAIN) };
        retiring.clean(now);
        assert_eq!(retiring.chains.len(), 1, "a chain without connections is forgotten");
        assert_eq!(signal.phase(), Phase::Run);
        retiring.clean(now + CHAIN_DRAIN);
        assert_eq!(signal.phase(), Phase::Overdue);
        assert!(retiring.chains.is_empty());
    }

    #[test]
    fn snapshots_that_nobody_holds_do_not_pile_up() {
        let mut retiring = Retiring::new(CHAIN_DRAIN);
        let held: Vec<_> = (0..3).map(|_| Arc::new(Live::default())).collect();
        held.iter().for_each(|live| retiring.replaced(live.clone(), live));
        for _ in 0..1000 {
            retiring.replaced(Arc::default(), &Live::default());
            assert!(retiring.snapshots.len() <= 3 + 2 * LOOKS, "{}", retiring.snapshots.len());
        }
        drop(held);
        retiring.clean(Instant::now());
        assert!(retiring.snapshots.is_empty());
    }

    #[test]
    fn a_connection_in_its_handshake_keeps_its_chain_in_mind() {
        let chain = Arc::new(Source::default());
        let now = Instant::now();
        let mut retiring = Retiring { chains: vec![left(chain.clone(), now)], ..Retiring::new(CHAIN_DRAIN) };
        retiring.clean(now);
        assert_eq!(retiring.chains.len(), 1);
        drop(chain);
        retiring.clean(now);
        assert!(retiring.chains.is_empty());
    }
}
