//! Bootstrap files, YAML or JSON: what is accepted can be put in force.

use outrigger_proxy::{bootstrap, live::Live};

use super::fixture;

pub(super) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // An overlay, as `--config-yaml` has it, behind a form feed.
    let (text, overlay) = match text.split_once('\u{c}') {
        Some((text, overlay)) => (text, Some(overlay)),
        None => (text, None),
    };
    let Ok((bootstrap, notes)) = bootstrap::load(text, overlay) else { return };
    assert!(notes.iter().count() <= 100_000);
    let _ = bootstrap.require_node();
    let packed = bootstrap.packed.unpack();
    let _ = outrigger_wire::json::bytes_to_value("envoy.config.bootstrap.v3.Bootstrap", &packed);
    let snapshot = fixture::snapshot(bootstrap);
    let builder = fixture::builder();
    let (live, _) = builder.build(&snapshot, &Default::default(), &Live::default());
    // Nothing changed: nothing is made anew.
    let (again, _) = builder.build(&snapshot, &Default::default(), &live);
    for (one, other) in live.clusters().zip(again.clusters()) {
        assert_eq!(one.config.name, other.config.name);
    }
    super::xds::use_it(&live);
}
