//! Balancing, limits and ejection of a traffic policy.

use crate::model::{
    Balance, ConnectionPool, ConsistentHash, LoadBalancer, LocalitySetting, OutlierDetection, scalars::header_name,
};

/// What is wrong, as field below the policy and reason.
pub(super) type Findings = Vec<(String, String)>;

pub(super) fn balancer(balancer: &LoadBalancer) -> Findings {
    let mut found = Findings::new();
    let mut problem = |field: &str, reason: &str| found.push((field.to_owned(), reason.to_owned()));
    if balancer.simple.is_some() && balancer.consistent_hash.is_some() {
        problem("consistentHash", "give simple or consistentHash, not both");
    }
    if balancer.warmup.is_some() && balancer.warmup_duration_secs.is_some() {
        problem("warmupDurationSecs", "give warmup or warmupDurationSecs, not both");
    }
    let gradual = matches!(balancer.simple, None | Some(Balance::LeastRequest | Balance::RoundRobin))
        && balancer.consistent_hash.is_none();
    if (balancer.warmup.is_some() || balancer.warmup_duration_secs.is_some()) && !gradual {
        problem("warmup", "works with LEAST_REQUEST and ROUND_ROBIN only");
    }
    if let Some(warmup) = &balancer.warmup {
        if warmup.duration.is_none() {
            problem("warmup.duration", "is missing: how long an endpoint warms up");
        }
        if warmup.aggression.is_some_and(|a| !(a.is_finite() && a >= 1.0)) {
            problem("warmup.aggression", "must be at least 1");
        }
    }
    if let Some(hash) = &balancer.consistent_hash {
        for (field, reason) in consistent(hash) {
            problem(&format!("consistentHash{field}"), &reason);
        }
    }
    if let Some(setting) = &balancer.locality_lb_setting {
        found.extend(locality(setting));
    }
    found
}

fn consistent(hash: &ConsistentHash) -> Findings {
    let mut found = Findings::new();
    let mut problem = |field: &str, reason: String| found.push((field.to_owned(), reason));
    let keys = [
        hash.http_header_name.is_some(),
        hash.http_cookie.is_some(),
        hash.use_source_ip,
        hash.http_query_parameter_name.is_some(),
    ];
    if keys.iter().filter(|there| **there).count() != 1 {
        let reason = "needs exactly one of httpHeaderName, httpCookie, useSourceIp, httpQueryParameterName";
        problem("", reason.to_owned());
    }
    if let Some(Err(reason)) = hash.http_header_name.as_deref().map(header_name) {
        problem(".httpHeaderName", reason);
    }
    if let Some(cookie) = &hash.http_cookie {
        if http::HeaderName::from_bytes(cookie.name.as_bytes()).is_err() {
            problem(".httpCookie.name", format!("`{}` is not a cookie's name", cookie.name));
        }
        if cookie.path.contains([';', ',']) || http::HeaderValue::from_str(&cookie.path).is_err() {
            problem(".httpCookie.path", "holds characters no path of a cookie may hold".to_owned());
        }
    }
    if hash.http_query_parameter_name.as_deref() == Some("") {
        problem(".httpQueryParameterName", "must not be empty".to_owned());
    }
    let sizes = [hash.ring_hash.is_some(), hash.maglev.is_some(), hash.minimum_ring_size.is_some()];
    if sizes.iter().filter(|there| **there).count() > 1 {
        problem("", "give one of ringHash, maglev, minimumRingSize".to_owned());
    }
    let ring = hash.ring_hash.and_then(|ring| ring.minimum_ring_size).or(hash.minimum_ring_size);
    if ring.is_some_and(|size| size > MAX_RING) {
        problem(".ringHash.minimumRingSize", format!("must be at most {MAX_RING}"));
    }
    if let Some(size) = hash.maglev.and_then(|maglev| maglev.table_size)
        && (size > MAX_MAGLEV || !prime(size))
    {
        problem(".maglev.tableSize", format!("must be a prime number of at most {MAX_MAGLEV}"));
    }
    found
}

/// Envoy's bounds.
const MAX_RING: u64 = 8 << 20;
const MAX_MAGLEV: u64 = 5_000_011;

fn prime(n: u64) -> bool {
    n > 1 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

fn locality(setting: &LocalitySetting) -> Findings {
    let mut found = Findings::new();
    let mut problem = |field: String, reason: String| found.push((format!("localityLbSetting.{field}"), reason));
    if !setting.distribute.is_empty() && (!setting.failover.is_empty() || !setting.failover_priority.is_empty()) {
        problem("distribute".to_owned(), "excludes failover and failoverPriority".to_owned());
    }
    for (index, rule) in setting.distribute.iter().enumerate() {
        let sum: u64 = rule.to.values().map(|weight| u64::from(*weight)).sum();
        if sum != 100 {
            problem(format!("distribute[{index}].to"), format!("the weights must add up to 100, not {sum}"));
        }
        if rule.to.values().any(|weight| *weight == 0) {
            let reason = "a weight must not be 0: leave the locality out".to_owned();
            problem(format!("distribute[{index}].to"), reason);
        }
        for pattern in rule.to.keys().chain([&rule.from]) {
            let parts: Vec<&str> = pattern.split('/').collect();
            let star = parts.iter().position(|part| part.contains('*'));
            let last = |at: usize| at + 1 == parts.len() && parts[at] == "*";
            if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) || star.is_some_and(|at| !last(at)) {
                let reason = format!("`{pattern}` is not region/zone/subzone, of which the last may be *");
                problem(format!("distribute[{index}]"), reason);
            }
        }
    }
    let sources = setting.distribute.iter().map(|rule| rule.from.as_str());
    if let Some(reason) = overlap(sources) {
        problem("distribute".to_owned(), format!("from: {reason}"));
    }
    for (index, rule) in setting.distribute.iter().enumerate() {
        if let Some(reason) = overlap(rule.to.keys().map(String::as_str)) {
            problem(format!("distribute[{index}].to"), reason);
        }
    }
    for (index, rule) in setting.failover.iter().enumerate() {
        if rule.from == rule.to || rule.from.is_empty() || rule.to.is_empty() {
            problem(format!("failover[{index}]"), "needs two different regions".to_owned());
        } else if [&rule.from, &rule.to].iter().any(|region| region.contains(['/', '*'])) {
            problem(format!("failover[{index}]"), "is from region to region: no zone, no *".to_owned());
        }
    }
    for (index, label) in setting.failover_priority.iter().enumerate() {
        if label.split('=').next().is_none_or(str::is_empty) || label.matches('=').count() > 1 {
            let reason = format!("`{label}` is neither a label nor label=value");
            problem(format!("failoverPriority[{index}]"), reason);
        }
    }
    found
}

/// Two patterns that some locality matches both: Istio refuses them, as nothing says which of them counts.
fn overlap<'a>(patterns: impl Iterator<Item = &'a str>) -> Option<String> {
    let patterns: Vec<&str> = patterns.collect();
    let both = |a: &str, b: &str| a.split('/').zip(b.split('/')).all(|(a, b)| a == b || a == "*" || b == "*");
    let pairs = patterns.iter().enumerate().flat_map(|(i, a)| patterns[..i].iter().map(move |b| (*b, *a)));
    pairs.filter(|(a, b)| both(a, b)).map(|(a, b)| format!("`{a}` and `{b}` overlap")).next()
}

pub(super) fn pool(pool: &ConnectionPool) -> Findings {
    let mut found = Findings::new();
    let mut problem = |field: &str, reason: &str| found.push((field.to_owned(), reason.to_owned()));
    if pool.http.use_client_protocol && pool.http.h2_upgrade_policy == Some(crate::model::H2Upgrade::Upgrade) {
        problem("http.h2UpgradePolicy", "UPGRADE contradicts useClientProtocol: remove one");
    }
    if pool.http.max_concurrent_streams.is_some_and(|n| n > i32::MAX as u32) {
        problem("http.maxConcurrentStreams", "must be at most 2147483647");
    }
    found
}

pub(super) fn outlier(outlier: &OutlierDetection) -> Findings {
    let mut found = Findings::new();
    let mut problem = |field: &str, reason: &str| found.push((field.to_owned(), reason.to_owned()));
    for (field, percent) in
        [("maxEjectionPercent", outlier.max_ejection_percent), ("minHealthPercent", outlier.min_health_percent)]
    {
        if percent.is_some_and(|p| p > 100) {
            problem(field, "is not a percentage (0 to 100)");
        }
    }
    if outlier.consecutive_local_origin_failures.is_some() && !outlier.split_external_local_origin_errors {
        let reason = "has no effect without splitExternalLocalOriginErrors: set it, or remove this";
        problem("consecutiveLocalOriginFailures", reason);
    }
    if outlier.consecutive_errors.is_some() && outlier.consecutive_gateway_errors.is_some() {
        problem("consecutiveErrors", "is the older name of consecutiveGatewayErrors: give one of the two");
    }
    found
}
