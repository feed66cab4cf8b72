//! `/server_info`, `/listeners`, `/certs`.

use std::{net::SocketAddr, sync::atomic::Ordering, time::SystemTime};

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Inner, http::Answer};
use crate::{live::LiveListener, xds};

/// As `envoy.admin.v3.ServerInfo`.
pub(super) fn server_info(inner: &Inner) -> Answer {
    let status = inner.context.subscription.status().borrow().clone();
    let state = if inner.state.draining.load(Ordering::Relaxed) {
        "DRAINING"
    } else if inner.state.not_ready(&status).is_empty() {
        "LIVE"
    } else {
        "INITIALIZING"
    };
    let uptime = format!("{}s", inner.state.started.elapsed().as_secs());
    let settings = &inner.context.settings;
    let node = outrigger_wire::json::to_value(&inner.context.node).unwrap_or(Value::Null);
    Answer::json(&json!({
        "version": format!("outrigger/{}", env!("CARGO_PKG_VERSION")),
        "state": state,
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_version": "disabled",
        "command_line_options": {
            "concurrency": inner.context.workers,
            "config_path": settings.config_path,
            "log_level": settings.log_level,
            "drain_time": format!("{}s", settings.lifecycle.drain_time_s),
            "mode": "Serve",
        },
        "node": node,
        "last_good_configuration": last_good(&status),
        "overload": overload(inner),
    }))
}

/// What of the limits is used, and what is given up for it.
pub(super) fn overload(inner: &Inner) -> Value {
    let overload = *super::lock(&inner.state.overload);
    let percent = |part: Option<f64>| part.map(|part| (part * 1000.0).round() / 10.0);
    json!({
        "memory_percent": percent(overload.memory),
        "file_descriptors_percent": percent(overload.descriptors),
        "refuses_new_work": overload.sheds,
        "closes_idle_connections": overload.closes_idle,
    })
}

/// Whether what is in force came from disk, and what is known of the file; `null` where none is kept.
pub(super) fn last_good(status: &xds::Status) -> Option<Value> {
    let saved = status.saved.as_ref()?;
    Some(json!({
        "in_force": saved.in_force.is_some(),
        "written": rfc3339(saved.in_force.or(saved.written)),
        "refused": saved.refused,
        "last_error": saved.last_error,
    }))
}

/// As `envoy.admin.v3.Listeners`, or `name::address` lines.
pub(super) fn listeners(inner: &Inner, as_json: bool) -> Answer {
    let live = inner.context.publisher.current();
    let mut listeners: Vec<_> = live.listeners.values().collect();
    listeners.sort_by(|a, b| a.config.name.cmp(&b.config.name));
    if !as_json {
        let lines = listeners.iter().map(|l| {
            let addresses: Vec<String> = addresses(inner, l).iter().map(ToString::to_string).collect();
            format!("{}::{}\n", l.config.name, addresses.join(","))
        });
        return Answer::text(lines.collect::<String>());
    }
    let address =
        |a: &std::net::SocketAddr| json!({"socket_address": {"address": a.ip().to_string(), "port_value": a.port()}});
    let statuses: Vec<Value> = listeners
        .iter()
        .map(|l| {
            let addresses = addresses(inner, l);
            let mut addresses = addresses.iter().map(address);
            json!({
                "name": *l.config.name,
                "local_address": addresses.next(),
                "additional_local_addresses": addresses.collect::<Vec<_>>(),
            })
        })
        .collect();
    Answer::json(&json!({"listener_statuses": statuses}))
}

/// The addresses of a listener: where the kernel chose the port, the port it chose.
fn addresses(inner: &Inner, listener: &LiveListener) -> Vec<SocketAddr> {
    let configured = &listener.config.addresses;
    let bound = inner.state.bound(&listener.config.name);
    if configured.iter().any(|a| a.port() == 0) && !bound.is_empty() { bound } else { configured.clone() }
}

/// The workload's own certificate, as far as this process fetched it itself.
pub(super) fn certs(inner: &Inner) -> Answer {
    let status = inner.context.subscription.status().borrow().clone();
    let certificates: Vec<Value> = status
        .identity
        .iter()
        .map(|identity| {
            let roots = identity.roots.iter();
            let roots =
                roots.map(|(serial, end)| json!({"serial_number": **serial, "expiration_time": rfc3339(Some(*end))}));
            json!({"ca_cert": roots.collect::<Vec<_>>(), "cert_chain": [{
                "serial_number": *identity.serial,
                "subject_alt_names": identity.spiffe_id.iter().map(|id| json!({"uri": **id})).collect::<Vec<_>>(),
                "valid_from": rfc3339(identity.not_before),
                "expiration_time": rfc3339(identity.not_after),
                "next_renewal": rfc3339(identity.next_renewal),
                "last_error": identity.last_error,
                "clock_skewed": identity.clock_skewed,
            }]})
        })
        .collect();
    Answer::json(&json!({"certificates": certificates}))
}

fn rfc3339(time: Option<SystemTime>) -> Option<String> {
    OffsetDateTime::from(time?).format(&Rfc3339).ok()
}
