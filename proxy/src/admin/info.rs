//! `/listeners`, `/certs`.

use std::{
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Inner, http::Answer};
use crate::{
    live::LiveListener,
    tls::shown::Shown,
    xds::{self, IdentityStatus},
};

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
            let mut status = json!({"name": *l.config.name, "local_address": addresses.next()});
            let more: Vec<Value> = addresses.collect();
            if !more.is_empty() {
                status["additional_local_addresses"] = more.into();
            }
            status
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

/// As `envoy.admin.v3.Certificates`: what every TLS context uses, and how the renewal of the workload's own goes.
pub(super) fn certs(inner: &Inner) -> Answer {
    let status = inner.context.subscription.status().borrow().clone();
    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
    let details = |c: &Shown| {
        json!({
            "path": *c.path,
            "serial_number": c.serial,
            "subject_alt_names": c.names.iter().map(|(kind, name)| json!({*kind: name})).collect::<Vec<_>>(),
            "days_until_expiration": ((c.not_after - now) / 86_400).max(0).to_string(),
            "valid_from": seconds(c.not_before),
            "expiration_time": seconds(c.not_after),
        })
    };
    let in_use = inner.context.secrets.certificates();
    let mut certificates: Vec<Value> = in_use
        .iter()
        .map(|context| {
            let all = |list: &[Shown]| list.iter().map(details).collect::<Vec<_>>();
            json!({"ca_cert": all(&context.roots), "cert_chain": all(&context.leaves)})
        })
        .collect();
    if let Some(identity) = &status.identity {
        let chains = certificates.iter_mut().filter_map(|c| c["cert_chain"].as_array_mut()).flatten();
        let mut own: Vec<&mut Value> = chains.filter(|leaf| leaf["serial_number"] == *identity.serial).collect();
        if own.is_empty() {
            certificates.push(waiting(identity));
        } else {
            own.iter_mut().for_each(|leaf| renewal(identity, leaf));
        }
    }
    Answer::json(&json!({"certificates": certificates}))
}

/// The workload's certificate while no context uses it.
fn waiting(identity: &IdentityStatus) -> Value {
    let roots = identity.roots.iter();
    let roots = roots.map(|(serial, end)| json!({"serial_number": **serial, "expiration_time": rfc3339(Some(*end))}));
    let mut leaf = json!({
        "serial_number": *identity.serial,
        "subject_alt_names": identity.spiffe_id.iter().map(|id| json!({"uri": **id})).collect::<Vec<_>>(),
        "valid_from": rfc3339(identity.not_before),
        "expiration_time": rfc3339(identity.not_after),
    });
    renewal(identity, &mut leaf);
    json!({"ca_cert": roots.collect::<Vec<_>>(), "cert_chain": [leaf]})
}

fn renewal(identity: &IdentityStatus, leaf: &mut Value) {
    leaf["next_renewal"] = rfc3339(identity.next_renewal).into();
    leaf["last_error"] = identity.last_error.as_deref().into();
    leaf["clock_skewed"] = identity.clock_skewed.into();
}

fn seconds(at: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(at).ok()?.format(&Rfc3339).ok()
}

fn rfc3339(time: Option<SystemTime>) -> Option<String> {
    OffsetDateTime::from(time?).format(&Rfc3339).ok()
}
