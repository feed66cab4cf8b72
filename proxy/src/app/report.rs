//! What an end cut: connections and requests that were still open, by listener and protocol.

use crate::{
    ir::Name,
    telemetry::{metrics::Kind, registry::Registry},
};

/// Most lines of a report; the counts of all are in its head.
const MOST: usize = 50;

/// What is open at this moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Open {
    /// `listener NAME: 3 connections` and the like, in order.
    pub(super) lines: Vec<String>,
    /// Lines left out.
    pub(super) more: usize,
}

/// Reads the gauges.
pub(super) fn open(registry: &Registry) -> Open {
    let mut found = Vec::new();
    registry.visit(&mut |scope, owner, metric, kind, value| found.extend(line(scope, owner, metric, kind, value)));
    found.sort();
    let more = found.len().saturating_sub(MOST);
    found.truncate(MOST);
    Open { lines: found, more }
}

fn line(scope: &str, owner: &Name, metric: &str, kind: Kind, value: u64) -> Option<String> {
    if kind != Kind::Gauge || value == 0 {
        return None;
    }
    let what = match (scope, metric) {
        ("listener", "downstream_cx_active") => "connections",
        ("listener", "downstream_pre_cx_active") => "connections in their handshake",
        ("http", "downstream_cx_active") => "HTTP connections",
        ("http", "downstream_rq_active") => "HTTP requests",
        ("http", "downstream_cx_upgrades_active") => "upgraded connections",
        ("tcp", "downstream_cx_active") => "TCP connections",
        _ => return None,
    };
    Some(format!("{scope} {owner}: {value} {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_open_is_told() {
        let name: Name = "0.0.0.0_15006".into();
        let line = |scope, metric, kind, value| line(scope, &name, metric, kind, value);
        assert_eq!(
            line("listener", "downstream_cx_active", Kind::Gauge, 2).as_deref(),
            Some("listener 0.0.0.0_15006: 2 connections")
        );
        assert_eq!(
            line("tcp", "downstream_cx_active", Kind::Gauge, 1).as_deref(),
            Some("tcp 0.0.0.0_15006: 1 TCP connections")
        );
        for nothing in [
            line("listener", "downstream_cx_active", Kind::Gauge, 0),
            line("listener", "downstream_cx_total", Kind::Counter, 2),
            line("http", "rq_active", Kind::Gauge, 2),
        ] {
            assert_eq!(nothing, None);
        }
    }
}
