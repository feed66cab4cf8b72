//! What policy costs a request at the inbound proxy: the same proxy without and with it, one right after the other.
//!
//! Every request is allowed; with authorization by the last of the rules, so that all of them are looked at.

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::{
    bench::{Bench, Rigs, Title},
    failures, http, measure,
};
use crate::{
    drive::{Service, grpc},
    result::Sample,
    rig::{Between, CLIENT_ID, Extra, Plan, Rig, grpc_cluster},
};

/// Where the rate limit service listens, in the server's Pod.
const LIMITS_PORT: u16 = 18_001;
/// Connections of the load that CPU is taken from; latency is one connection's.
const CONNECTIONS: usize = 32;

/// Number of cases.
pub(super) const CASES: f64 = 5.0;

fn cases() -> [(&'static str, &'static str, Extra); 5] {
    [
        ("rbac-1", "authorization with 1 rule", filter(rbac(1))),
        ("rbac-100", "authorization with 100 rules", filter(rbac(100))),
        ("rbac-1000", "authorization with 1000 rules", filter(rbac(1000))),
        ("local-limit", "a local rate limit", filter(local_limit())),
        ("global-limit", "a global rate limit, its service in the same Pod", global_limit()),
    ]
}

fn filter(filter: Value) -> Extra {
    Extra { filters: vec![filter], ..Extra::default() }
}

/// Rules as Istio writes them for an AuthorizationPolicy with `from`, a method and a path each.
fn rbac(rules: usize) -> Value {
    let any = |kind: &str, what: Value| json!({format!("or_{kind}"): {kind: [what]}});
    let policy = |path: &str| {
        json!({
            "permissions": [{"and_rules": {"rules": [
                any("rules", json!({"url_path": {"path": {"exact": path}}})),
                any("rules", json!({"header": {"name": ":method", "string_match": {"exact": "GET"}}})),
            ]}}],
            "principals": [{"and_ids": {"ids": [
                any("ids", json!({"authenticated": {"principal_name": {"exact": CLIENT_ID}}})),
            ]}}],
        })
    };
    // In the order of their names.
    let others = (1..rules).map(|n| (format!("ns[default]-policy[p]-rule[{n:04}]"), policy(&format!("/api/v1/{n}"))));
    let last = ("ns[default]-policy[p]-rule[last]".to_owned(), policy("/"));
    let policies: Map<String, Value> = others.chain([last]).collect();
    json!({
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": {"action": "ALLOW", "policies": policies},
        },
    })
}

fn local_limit() -> Value {
    let all = |key: &str| json!({"runtime_key": key, "default_value": {"numerator": 100, "denominator": "HUNDRED"}});
    json!({
        "name": "envoy.filters.http.local_ratelimit",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "bench",
            "token_bucket": {"max_tokens": 1_000_000_000, "tokens_per_fill": 1_000_000_000, "fill_interval": "1s"},
            "filter_enabled": all("enabled"),
            "filter_enforced": all("enforced"),
        },
    })
}

fn global_limit() -> Extra {
    let filter = json!({
        "name": "envoy.filters.http.ratelimit",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
            "domain": "bench",
            "timeout": "1s",
            "rate_limit_service": {
                "transport_api_version": "V3",
                "grpc_service": {"envoy_grpc": {"cluster_name": "limits"}},
            },
        },
    });
    Extra {
        filters: vec![filter],
        clusters: vec![grpc_cluster("limits", "127.0.0.1", LIMITS_PORT)],
        inbound: json!({"rate_limits": [{"actions": [{"generic_key": {"descriptor_value": "bench"}}]}]}),
        ..Extra::default()
    }
}

pub(super) fn run(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let contenders = failures::contenders(bench);
    let plain = Plan::http(Between::Http2);
    let mut without = bench.rigs(&plain, &contenders)?;
    http::warm_up(bench, &mut without, |rig, length| http::load(rig, CONNECTIONS, length))?;
    for (name, what, extra) in cases() {
        let plan = Plan { extra, ..plain.clone() };
        let mut with = bench.rigs(&plan, &contenders)?;
        let _services = limit_services(&with)?;
        http::warm_up(bench, &mut with, |rig, length| http::load(rig, CONNECTIONS, length))?;
        let title = format!("{what}, {CONNECTIONS} connections (p50: one); added: to the same proxy without it");
        let (rounds, window) = (bench.options.rounds(), bench.options.window());
        bench.rounds(&Title::new("policy", name, title), &contenders, rounds, |index, _| {
            let pair = [&without, &with].map(|rigs| rigs.slots[index].rig.as_ref().map_err(|e| anyhow::anyhow!("{e}")));
            let [without, with] = pair;
            compare(without?, with?, window)
        })?;
        for slot in with.slots.iter_mut().chain(&mut without.slots) {
            if let Ok(rig) = &mut slot.rig {
                rig.check()?;
            }
        }
    }
    Ok(())
}

/// A rate limit service beside each server that allows everything.
fn limit_services(rigs: &Rigs) -> anyhow::Result<Vec<Service>> {
    let running = rigs.slots.iter().filter_map(|slot| slot.rig.as_ref().ok());
    running.map(|rig| Service::start(rig.server().listen(LIMITS_PORT), grpc::serve_limits)).collect()
}

fn compare(without: &Rig, with: &Rig, window: std::time::Duration) -> anyhow::Result<Sample> {
    let busy = |rig: &Rig| measure::requests(rig, |rig| http::load(rig, CONNECTIONS, window));
    let (base, mut sample) = (busy(without)?, busy(with)?);
    let single = |rig: &Rig| measure::requests(rig, |rig| http::load(rig, 1, window));
    let (base_single, with_single) = (single(without)?, single(with)?);
    let figure = |sample: &Sample, key: &str| sample.figures.get(key).copied().with_context(|| format!("no {key}"));
    let added = figure(&sample, "cpu_in")? - figure(&base, "cpu_in")?;
    sample.set("cpu_added", added);
    sample.set("p50_added", (figure(&with_single, "p50")? - figure(&base_single, "p50")?) * 1e3);
    Ok(sample)
}
