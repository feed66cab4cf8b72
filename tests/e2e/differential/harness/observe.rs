//! What was observed, as lines that two proxies can be compared by: what must differ is blotted out, nothing else.

use std::collections::BTreeMap;

use super::{
    authz,
    host::{Host, Seen},
};

/// Everything one run of a case gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observation {
    pub(crate) lines: Vec<String>,
    /// Per step of random choices: how often each kind of answer came.
    pub(crate) shares: Vec<BTreeMap<String, usize>>,
}

/// Values that no two runs have in common.
pub(crate) fn field_line(prefix: &str, name: &str, value: &str) -> String {
    let value = match name {
        "date" | "x-request-id" if !value.is_empty() => "(set)",
        "x-envoy-upstream-service-time" if value.parse::<u64>().is_ok() => "(ms)",
        _ => value,
    };
    if name == "x-envoy-expected-rq-timeout-ms"
        && let Ok(ms) = value.parse::<u64>()
        && ms > 5000
    {
        // What is left at a later try depends on how long the ones before took.
        return format!("{prefix} {name}: about {} s", (ms + 700) / 1000);
    }
    format!("{prefix} {name}: {value}")
}

/// A short body as it is, a long one by its length and a sum.
pub(crate) fn body_text(body: &[u8]) -> String {
    if body.len() <= 300 {
        return format!("{:?}", String::from_utf8_lossy(body));
    }
    let sum = body.iter().fold(0_u32, |sum, b| sum.wrapping_mul(31).wrapping_add(u32::from(*b)));
    format!("of {} bytes, {sum:08x}", body.len())
}

fn seen_lines(prefix: &str, seen: &Seen, lines: &mut Vec<String>) {
    lines.push(format!("{prefix} {}", seen.line));
    let mut fields: Vec<String> = seen.fields.iter().map(|(n, v)| field_line(prefix, n, v)).collect();
    fields.sort();
    lines.append(&mut fields);
    let asked = seen.line.ends_with(authz::CHECK).then(|| authz::lines(prefix, &seen.body)).flatten();
    if let Some(mut asked) = asked {
        lines.append(&mut asked);
    } else if !seen.body.is_empty() {
        lines.push(format!("{prefix} body {}", body_text(&seen.body)));
    }
    seen.trailers.iter().for_each(|(n, v)| lines.push(field_line(&format!("{prefix} trailer"), n, v)));
    lines.push(format!("{prefix} {}", if seen.end.is_empty() { "unfinished" } else { &seen.end }));
    lines.extend(seen.after.iter().map(|after| format!("{prefix} {after}")));
}

/// What each host saw. `alike` hosts are one: which of them a request reached is chance.
pub(crate) fn host_lines(hosts: &[std::sync::Arc<Host>], alike: bool, connections: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut all: Vec<(&str, Seen)> = Vec::new();
    for host in hosts {
        all.extend(host.seen().into_iter().map(|seen| (if alike { "any" } else { host.name }, seen)));
        if connections {
            lines.push(format!("{} got {} connections", host.name, host.connections()));
        }
    }
    if alike {
        all.sort_by_cached_key(|(_, seen)| {
            let mut lines = Vec::new();
            seen_lines("", seen, &mut lines);
            lines
        });
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, seen) in &all {
        let n = counts.entry(name).or_default();
        *n += 1;
        seen_lines(&format!("{name}[{n}] >"), seen, &mut lines);
    }
    lines
}
