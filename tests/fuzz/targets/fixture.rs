//! A configuration in force, made from the text an operator would write.

use std::{cell::RefCell, sync::Arc};

use outrigger_proxy::{
    bootstrap::{self, Bootstrap},
    ir::snapshot::Snapshot,
    live::{Builder, Live},
    telemetry::access_log::Sinks,
    tls::Secrets,
    upstream::Deps,
};

thread_local! {
    // One writer thread for all.
    static SINKS: RefCell<Option<Arc<Sinks>>> = const { RefCell::new(None) };
}

/// Compiles configurations; it remembers nothing of those before.
pub(super) fn builder() -> Builder {
    let secrets = Arc::<Secrets>::default();
    let sinks = SINKS
        .with_borrow_mut(|known| known.get_or_insert_with(|| Sinks::start().expect("a thread can be started")).clone());
    let upstream = Deps { secrets: secrets.clone(), ..Deps::default() };
    Builder { secrets, registry: Arc::default(), sinks, tracers: Arc::default(), upstream, debug: None }
}

/// The static resources of a bootstrap.
pub(super) fn snapshot(bootstrap: Bootstrap) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        version: 1,
        listeners: bootstrap.listeners.into_iter().map(|l| (l.name.clone(), l)).collect(),
        clusters: bootstrap.clusters.into_iter().map(|c| (c.name.clone(), c)).collect(),
        secrets: bootstrap.secrets.into_iter().collect(),
        ..Snapshot::default()
    })
}

/// A sound bootstrap in force.
pub(super) fn live(yaml: &str) -> Live {
    let (bootstrap, _) = bootstrap::load(yaml, None).unwrap_or_else(|e| panic!("{e}"));
    let (live, problems) = builder().build(&snapshot(bootstrap), &Default::default(), &Live::default());
    assert_eq!(problems, [], "the fixture");
    live
}
