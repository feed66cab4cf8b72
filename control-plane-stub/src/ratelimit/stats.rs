//! What the service counts, and its Prometheus form. Rules are the operator's, so their names may be labels.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use serde::{Deserialize, Serialize};

use super::{
    redis::{Away, Health},
    service::Store,
};
use crate::status::{
    metrics::{header, line},
    report::rfc3339,
};

/// Rules counted apart; those of later names are counted as `other`.
const MAX_RULES: usize = 10_000;

/// Decisions under one rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub ok: u64,
    pub over_limit: u64,
    /// Over the limit of a rule that is not enforced.
    pub would_deny: u64,
}

/// All counters of the service.
#[derive(Debug, Default)]
pub struct Stats {
    rules: Mutex<BTreeMap<Arc<str>, Counts>>,
    pub requests: AtomicU64,
    /// Requests of callers that may not ask, or that could not be understood.
    pub refused: AtomicU64,
    /// Descriptors that no rule is for.
    pub unmatched: AtomicU64,
    away: [AtomicU64; Away::ALL.len()],
}

impl Stats {
    pub(super) fn decided<'a>(&self, decisions: impl Iterator<Item = (&'a Arc<str>, bool, bool)>) {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        for (rule, over, enforced) in decisions {
            let known = rules.len() < MAX_RULES || rules.contains_key(rule);
            let counts = rules.entry(if known { Arc::clone(rule) } else { "other".into() }).or_default();
            let counter = match (over, enforced) {
                (false, _) => &mut counts.ok,
                (true, true) => &mut counts.over_limit,
                (true, false) => &mut counts.would_deny,
            };
            *counter += 1;
        }
    }

    pub(super) fn away(&self, away: Away) {
        if let Some(at) = Away::ALL.iter().position(|known| *known == away) {
            self.away[at].fetch_add(1, Relaxed);
        }
    }

    fn rules(&self) -> BTreeMap<Arc<str>, Counts> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes all counters in Prometheus' text format.
    pub fn render(&self, store: &Store, out: &mut String) {
        let mut single = |name: &str, help: &str, kind: &str, value: u64| {
            header(out, name, help, kind);
            line(out, name, "", value);
        };
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        let total = "counter";
        single("outrigger_ratelimit_requests_total", "Requests to the rate limit service", total, read(&self.requests));
        let help = "Requests to the rate limit service that were not answered: not allowed, or malformed";
        single("outrigger_ratelimit_refused_total", help, total, read(&self.refused));
        let help = "Descriptors that no rule is for";
        single("outrigger_ratelimit_unmatched_total", help, total, read(&self.unmatched));
        match store {
            Store::Memory(memory) => {
                let (keys, evicted) = memory.size();
                single("outrigger_ratelimit_keys", "Counters held in memory", "gauge", keys as u64);
                let help = "Counters given up before their time for want of room";
                single("outrigger_ratelimit_keys_evicted_total", help, total, evicted);
            }
            Store::Redis(redis) => {
                let help = "Whether the rate limit service is connected to Redis";
                single("outrigger_ratelimit_redis_connected", help, "gauge", redis.is_connected().into());
                let name = "outrigger_ratelimit_redis_errors_total";
                header(out, name, "Requests without an answer because of Redis", total);
                for (away, counter) in Away::ALL.iter().zip(&self.away) {
                    line(out, name, &format!("{{reason=\"{}\"}}", away.as_str()), read(counter));
                }
            }
        }
        let name = "outrigger_ratelimit_decisions_total";
        header(out, name, "Decisions by rule; would_deny: over a limit that is not enforced", total);
        for (rule, counts) in self.rules() {
            let rule = rule.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let results = [("ok", counts.ok), ("over_limit", counts.over_limit), ("would_deny", counts.would_deny)];
            for (result, count) in results {
                line(out, name, &format!("{{rule=\"{rule}\",result=\"{result}\"}}"), count);
            }
        }
    }
}

/// The service in `/status`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LimitsReport {
    /// `memory`, or the address of Redis.
    pub store: String,
    pub available: bool,
    /// Of the last change of `available`; for Redis only.
    pub since: Option<String>,
    /// Why it is not available.
    #[serde(default)]
    pub error: String,
    /// Counters held, in memory only.
    pub keys: Option<usize>,
    pub rules: BTreeMap<String, Counts>,
}

impl LimitsReport {
    pub(super) fn of(stats: &Stats, store: &Store) -> Self {
        let rules = stats.rules().into_iter().map(|(rule, counts)| (rule.to_string(), counts)).collect();
        match store {
            Store::Memory(memory) => {
                let keys = Some(memory.size().0);
                Self { store: "memory".to_owned(), available: true, since: None, error: String::new(), keys, rules }
            }
            Store::Redis(redis) => {
                let Health { connected, since, error } = redis.health();
                let store = redis.address().to_owned();
                Self { store, available: connected, since: Some(rfc3339(since)), error, keys: None, rules }
            }
        }
    }
}
